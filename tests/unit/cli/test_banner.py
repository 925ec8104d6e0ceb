"""The start-up banner: how many calls run at once, and in which lane each task runs."""

import re
from typing import Any, cast

import pytest

from hybridpool._cli.banner import banner
from hybridpool._config import apply_pool_name, command_line_layer, lane_sizes, pool_range, resolve
from hybridpool._task import LaneName, TaskOptions
from hybridpool._worker.bootstrap import Prepared


def drawn(lanes: tuple[LaneName | None, ...], **given: object) -> str:
    """Return the banner of an app that has a task for each lane."""
    tasks = {f"shop.t{number}": TaskOptions(name=f"shop.t{number}", lane=lane) for number, lane in enumerate(lanes)}
    resolved = apply_pool_name(resolve([command_line_layer({"worker_concurrency": 2, **given})]))
    prepared = Prepared(
        # no process is started for a text
        zygote=cast("Any", None),
        app="shop",
        node="w1@host",
        resolved=resolved,
        range=pool_range(resolved),
        lanes=lane_sizes(resolved, tasks),
        tasks=tasks,
        threads=(),
    )
    return banner(prepared, ("celery",))


CASES: list[tuple[tuple[LaneName | None, ...], dict[str, object], str]] = [
    ((), {}, "2 (prefork): fixed by --concurrency"),
    ((None,), {}, "2 (prefork): fixed by --concurrency"),
    ((None, "async"), {}, "2 (prefork), 100 (async, 1 process)"),
    ((None, "async"), {"worker_autoscale": "1,3"}, "{min=2, max=3} (prefork), 100 (async, 1 process)"),
    (("process", "async", "thread"), {}, "2 (prefork), 100 (async, 1 process), 32 (thread, 1 process)"),
    (("async",), {"worker_async_processes": 3}, "102 (async, 3 processes)"),
    ((None,), {"worker_pool": "threads"}, "2 (thread, 1 process)"),
    (("async",), {"worker_pool": "asyncio", "worker_concurrency": 500}, "500 (async, 1 process)"),
    ((None,), {"worker_pool": "solo", "worker_concurrency": "auto"}, "1 (prefork): fixed by --pool"),
]


@pytest.mark.parametrize(("lanes", "given", "shown"), CASES)
def test_concurrency(lanes: tuple[LaneName | None, ...], given: dict[str, object], shown: str) -> None:
    """The banner shows each lane that has tasks; with the process lane alone, why it is so large."""
    assert re.findall(r"^.*\.> concurrency: (.*)$", drawn(lanes, **given), re.MULTILINE) == [shown]


def test_tasks() -> None:
    """The list of tasks shows the lane of those that do not run in the process lane."""
    given: tuple[LaneName | None, ...] = (None, "process", "thread", "async")
    of = "  . shop.t0\n  . shop.t1\n  . shop.t2 (thread)\n  . shop.t3 (async)\n\n"
    assert drawn(given).endswith(f"[tasks]\n{of}")
    assert drawn(given, task_default_lane="thread").endswith(f"[tasks]\n{of.replace('t0', 't0 (thread)')}")
