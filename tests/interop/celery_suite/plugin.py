"""A plugin for pytest: the suite's tests use workers that run as programs, in place of one in a thread of pytest's.

The environment says how: `SUITE_WORKERS` is a JSON list of command lines, and the first of them gets the node name
that the tests expect. `SUITE_REPORT` is the file to which the outcome of each test is written.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import celery.contrib.testing.worker as embedded
import pytest
from celery.contrib.testing.tasks import ping
from celery.result import _set_task_join_will_block, allow_join_result
from celery.utils.nodenames import anon_nodename

#: seconds
START_LIMIT = 120.0
STOP_LIMIT = 30.0


@contextmanager
def start_worker(app: Any, **_options: Any) -> Iterator[None]:
    """Start the workers, and wait until they run tasks; stands in for Celery's function of that name."""
    embedded.setup_app_for_worker(app, "ERROR", None)
    commands = json.loads(os.environ["SUITE_WORKERS"])
    nodes = [anon_nodename(), *(f"beside{number}@localhost" for number in range(1, len(commands)))]
    with ExitStack() as running:
        for command, node in zip(commands, nodes, strict=True):
            running.enter_context(_worker([word.replace("{node}", node) for word in command], node))
        _set_task_join_will_block(False)
        end = time.monotonic() + START_LIMIT
        while set(app.control.inspect(timeout=1.0).ping() or ()) != set(nodes):
            if time.monotonic() > end:
                raise RuntimeError(f"not all of {nodes} answer a ping")
        with allow_join_result():
            assert ping.delay().get(timeout=START_LIMIT) == "pong"
        yield


@contextmanager
def _worker(command: list[str], node: str) -> Iterator[None]:
    path = Path(os.environ["SUITE_REPORT"]).with_suffix(f".{node.partition('@')[0].rstrip('0123456789')}.log")
    with path.open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


embedded.start_worker = start_worker


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write an outcome: of the call, or of the set-up that made it impossible."""
    if report.when == "call" or report.outcome != "passed":
        told = {"test": report.nodeid, "outcome": report.outcome, "seconds": report.duration}
        if report.failed:
            told["why"] = str(report.longreprtext).strip().splitlines()[-1][:300]
        with Path(os.environ["SUITE_REPORT"]).open("a") as file:
            file.write(json.dumps(told) + "\n")
