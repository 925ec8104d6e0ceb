"""Lifespans in a real worker: when they are entered and left, and what a task sees of them."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.rabbit import wait_for
from tests.workers import APPS, PATIENCE, Worker, client_of

APP = "lifespans"


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    """The file into which the app's children write."""
    return tmp_path / "diary"


def told(diary: Path, pid: int) -> list[str]:
    """Return what one process has written."""
    lines = map(str.split, diary.read_text().splitlines())
    return [what for what, who in lines if int(who) == pid]


def test_one_value_per_child(broker_url: str, queue_name: str, diary: Path) -> None:
    """A child has one value for all its tasks, entered after the hooks and left before theirs at a warm stop."""
    with (
        Worker(broker_url, queue_name, "-c1", app=APP, env={"DIARY": str(diary)}) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        (child,) = worker.children()
        calls = [us.send_task(f"{APP}.count") for _ in range(5)]
        assert [call.get(PATIENCE) for call in calls] == [
            [child.pid, number, "session over Connection"] for number in range(1, 6)
        ]
        assert told(diary, child.pid) == ["hook", "open", "begin"]
        assert worker.stop() == 0
    assert told(diary, child.pid) == ["hook", "open", "begin", "end", "close", "hook"]


def test_recycled_and_killed_children(broker_url: str, queue_name: str, diary: Path) -> None:
    """A child that is recycled closes what it has opened; one that is killed does not, and the next opens its own."""
    options = ("-c1", "--max-tasks-per-child=2")
    with (
        Worker(broker_url, queue_name, *options, app=APP, env={"DIARY": str(diary)}) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        seen = [us.send_task(f"{APP}.count").get(PATIENCE) for _ in range(3)]
        (recycled, _, _), _, (killed, first, _) = seen
        assert seen[1][:2] == [recycled, 2]
        assert first == 1
        assert wait_for(lambda: told(diary, recycled)[-1] == "hook" and len(told(diary, recycled)) == 6, PATIENCE)
        os.kill(killed, signal.SIGKILL)
        worker.see(rf"pid:{killed} exited with")
        following, first, _ = us.send_task(f"{APP}.count").get(PATIENCE)
        assert first == 1
        assert following not in (recycled, killed)
    assert told(diary, recycled) == ["hook", "open", "begin", "end", "close", "hook"]
    assert told(diary, killed) == ["hook", "open", "begin"]
    assert told(diary, following) == ["hook", "open", "begin", "end", "close", "hook"]


def test_a_copy_closes_nothing(broker_url: str, queue_name: str, diary: Path) -> None:
    """A process that a task forks has no value, and closes nothing when it ends."""
    with (
        Worker(broker_url, queue_name, "-c1", app=APP, env={"DIARY": str(diary)}) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        (child,) = worker.children()
        said = us.send_task(f"{APP}.count_in_a_copy").get(PATIENCE)
        assert said.startswith(f"lifespan {APP}.connection belongs to process {child.pid}")
        assert us.send_task(f"{APP}.count").get(PATIENCE)[:2] == [child.pid, 1]
        assert diary.read_text().splitlines() == [f"{what} {child.pid}" for what in ("hook", "open", "begin")]


def test_failed_start(broker_url: str, queue_name: str, diary: Path) -> None:
    """A lifespan that fails is a failed start, logged once with its name and the app's traceback."""
    env = {"DIARY": str(diary), "LIFESPAN": "refused"}
    with Worker(broker_url, queue_name, "-c1", app=APP, env=env, ready=0) as worker:
        header = rf"ERROR/MainProcess\] Children fail early: its lifespan {APP}\.connection failed:$"
        worker.see(header, 2)
        first, second = [at for at, line in enumerate(worker.lines) if re.search(header, line)][:2]
        said = [line.strip() for line in worker.lines[first + 1 : second]]
        assert said[0] == "Traceback (most recent call last):"
        assert said[1].startswith(f'File "{APPS / "lifespans.py"}"')
        assert said[2] == 'raise ConnectionRefusedError("no server")'
        assert said[3].startswith("ConnectionRefusedError: no server; the next one is tried in")
        assert sum("no server" in line for line in said) == 2, "its line of source, and its text"
        assert not worker.seen(r"ForkPoolWorker-\d+ \(pid \d+\) ready")
        worker.send(signal.SIGTERM)
        worker.wait()


def test_failed_end(broker_url: str, queue_name: str, diary: Path) -> None:
    """A lifespan that fails at the end is named in the log; the others are left, and the child ends in order."""
    env = {"DIARY": str(diary), "LIFESPAN": "leaves badly"}
    with Worker(broker_url, queue_name, "-c1", app=APP, env=env) as worker:
        (child,) = worker.children()
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        worker.see(rf"ERROR/ForkPoolWorker-1\] lifespan {APP}\.session failed while it was left: the others are left")
        assert len(worker.seen("RuntimeError: the session is stuck")) == 1
        worker.see(rf"DEBUG.*pid:{child.pid} exited with 'exit code 0'")
    assert told(diary, child.pid) == ["hook", "open", "begin", "end", "close", "hook"]
