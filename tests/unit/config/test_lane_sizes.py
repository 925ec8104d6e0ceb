"""How many processes each lane has, and how many calls one of them runs at once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._config import LaneSize, Resolved, command_line_layer, lane_sizes, resolve
from hybridpool._task import LaneName, TaskOptions
from hybridpool.errors import ConfigError


def tasks(*lanes: LaneName | None) -> dict[str, TaskOptions]:
    """Return a task for each lane."""
    return {f"t{number}": TaskOptions(name=f"t{number}", lane=lane) for number, lane in enumerate(lanes)}


def resolved(**given: object) -> Resolved:
    """Resolve settings that are given on the command line."""
    return resolve([command_line_layer({"worker_concurrency": 2, **given})])


def sizes(found: dict[LaneName, LaneSize]) -> dict[LaneName, tuple[int, int]]:
    """Return processes and slots by lane."""
    return {lane: (size.processes, size.slots) for lane, size in found.items()}


CASES: list[tuple[dict[str, object], tuple[LaneName | None, ...], dict[LaneName, tuple[int, int]]]] = [
    ({}, (), {"process": (2, 1)}),
    ({}, (None,), {"process": (2, 1)}),
    ({}, (None, "async"), {"process": (2, 1), "async": (1, 100)}),
    ({}, ("process", "thread"), {"process": (2, 1), "thread": (1, 32)}),
    ({}, ("thread", "async"), {"process": (0, 1), "thread": (1, 32), "async": (1, 100)}),
    ({"task_default_lane": "thread"}, (None,), {"process": (0, 1), "thread": (1, 32)}),
    ({"task_default_lane": "thread"}, (None, "process"), {"process": (2, 1), "thread": (1, 32)}),
    ({"worker_async_processes": 3}, (None, "async"), {"process": (2, 1), "async": (3, 34)}),
    (
        {"worker_thread_processes": 2, "worker_thread_concurrency": 3},
        ("thread",),
        {"process": (0, 1), "thread": (2, 2)},
    ),
    ({"worker_pool": "threads", "worker_concurrency": 7}, (None,), {"process": (0, 1), "thread": (1, 7)}),
    ({"worker_pool": "asyncio", "worker_concurrency": 700}, ("async",), {"process": (0, 1), "async": (1, 700)}),
    ({"worker_pool": "solo", "worker_concurrency": 1}, (None, "async"), {"process": (1, 1), "async": (1, 100)}),
    ({"worker_concurrency": "auto", "worker_autoscale": "3,5"}, (None,), {"process": (3, 1)}),
]


@pytest.mark.parametrize(("given", "lanes", "expected"), CASES)
def test_sizes(
    given: dict[str, object], lanes: tuple[LaneName | None, ...], expected: dict[LaneName, tuple[int, int]]
) -> None:
    """A lane has the size of its settings if a task of the app runs there."""
    assert sizes(lane_sizes(resolved(**given), tasks(*lanes))) == expected


def test_more_processes_than_calls() -> None:
    """A lane cannot have more processes than calls, since each process runs at least one."""
    with pytest.raises(ConfigError) as caught:
        lane_sizes(resolved(worker_async_processes=8, worker_async_concurrency=4), tasks("async"))
    assert str(caught.value) == (
        "worker_async_processes 8 (from --async-processes) is above worker_async_concurrency 4 (from "
        "--async-concurrency), and each process runs at least one call; lower the one or raise the other"
    )


lane_names: Any = st.sampled_from((None, "process", "thread", "async"))


@given(
    lanes=st.lists(lane_names, max_size=5),
    default=st.sampled_from(("process", "thread")),
    calls=st.integers(1, 2000),
    processes=st.integers(1, 50),
)
def test_whatever_is_given(lanes: list[LaneName | None], default: LaneName, calls: int, processes: int) -> None:
    """Each lane that a task runs in has room for the calls asked for, and less than one more call a process."""
    settings = resolved(
        task_default_lane=default,
        worker_async_concurrency=max(calls, processes),
        worker_async_processes=processes,
        worker_thread_concurrency=max(calls, processes),
        worker_thread_processes=processes,
    )
    found = lane_sizes(settings, tasks(*lanes))
    used = {lane or default for lane in lanes}
    assert found.keys() == used | {"process"}
    assert (found["process"].processes > 0) == ("process" in used or not used)
    for lane in used - {"process"}:
        assert found[lane].processes == processes
        assert max(calls, processes) <= found[lane].calls < max(calls, processes) + processes
