"""Children that run many calls at once die: the guilty call alone pays for it, and its neighbours start again."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from hybridpool._protocol.dead_letter import REASON, dead_queue
from tests.faults.apps import BORN, ZYGOTE
from tests.faults.helpers import Call, finished, publish, settled, wait_until, worker
from tests.faults.ledger import Journal, tell
from tests.queues import BrokerConsole

#: the app with tasks of all lanes
LANES = "tests.faults.lane_apps:app"
#: starts that a neighbour may have: one more for each death that the guilty call causes beside it
MAX_STARTS = 3


def neighbours(count: int, task: str, release: Path) -> list[Call]:
    """Return calls that wait beside each other until they are released."""
    return [Call(f"n{number:04}", task, (str(release),)) for number in range(count)]


def all_started(journal: Journal, ids: Sequence[str], times: int = 1) -> None:
    """Wait until each of them has been started so often."""

    def starts() -> bool:
        counts = dict.fromkeys(ids, 0)
        for entry in journal.entries():
            if entry.what == "start" and entry.id in counts:
                counts[entry.id] += 1
        return all(count >= times for count in counts.values())

    wait_until(starts, what=f"the starts of {len(ids)} calls")


def check_neighbours(journal: Journal, ids: Sequence[str], broker_url: str, queue_name: str) -> None:
    """See that each has ended once, was started seldom, and that nothing else ran or is left."""
    starts = {one: len(journal.started(one)) for one in ids}
    tell(f"  {len(ids)} neighbours, started at most {max(starts.values())} times")
    assert max(starts.values()) <= MAX_STARTS
    ends = [entry.id for entry in journal.entries() if entry.what == "done"]
    assert sorted(ends) == sorted(ids)
    assert {entry.id for entry in journal.entries()} - {BORN, ZYGOTE, "bad"} == set(ids)
    assert settled(broker_url, queue_name) == 0


@pytest.mark.parametrize("how", ["is killed", "segfaults"])
def test_poison_among_coroutines(how: str, broker_url: str, queue_name: str, journal: Journal, tmp_path: Path) -> None:
    """A coroutine that kills its child is buried after its attempts; of 300 beside it none is, or starts four times."""
    release = tmp_path / "release"
    calls = neighbours(300, "waits", release)
    with (
        BrokerConsole(broker_url) as console,
        worker(broker_url, queue_name, journal, "--async-concurrency=400", ready=0, app=LANES) as at_work,
    ):
        ids = publish(broker_url, queue_name, calls)
        all_started(journal, ids)
        publish(broker_url, queue_name, [Call("bad", "fatal_in_loop", (how,))])
        at_work.see(rf"\[bad\] lost its child .* \(delivery 3\); dead-lettered to {dead_queue(queue_name)}")
        assert len(journal.started("bad")) == 3
        all_started(journal, ids, times=2)
        release.touch()
        finished(journal, ids)
        console.until_depth(dead_queue(queue_name), 1)
        letter = console.take(dead_queue(queue_name))
        assert letter.headers["id"] == "bad"
        assert "its child died 3 times (task_max_deliveries)" in letter.headers[REASON]
        at_work.see(r"AsyncLane-\d+ \(pid \d+\) died \(.*\): 300 of its calls start again here")
    check_neighbours(journal, ids, broker_url, queue_name)


def test_poison_among_threads(broker_url: str, queue_name: str, journal: Journal, tmp_path: Path) -> None:
    """A thread that ends its child, of which no one knows the cause, is found out apart from those beside it."""
    release = tmp_path / "release"
    with (
        BrokerConsole(broker_url) as console,
        worker(broker_url, queue_name, journal, "--thread-concurrency=20", ready=0, app=LANES) as at_work,
    ):
        ids = publish(broker_url, queue_name, neighbours(15, "waits_in_thread", release))
        all_started(journal, ids)
        publish(broker_url, queue_name, [Call("bad", "fatal_in_thread", ("exits",))])
        restarts = r"ThreadLane-\d+ \(pid \d+\) died \(exit code 3\): 16 of its calls start again here"
        wait_until(lambda: len(at_work.seen(restarts)) == 2, what="two deaths of shared children")
        release.touch()
        finished(journal, ids)
        at_work.see(r"\[bad\] lost its child .* \(delivery 3\); dead-lettered")
        console.until_depth(dead_queue(queue_name), 1)
        assert console.take(dead_queue(queue_name)).headers["id"] == "bad"
    check_neighbours(journal, ids, broker_url, queue_name)


@pytest.mark.parametrize("task", ["waits", "waits_in_thread"])
def test_killed_from_outside(task: str, broker_url: str, queue_name: str, journal: Journal, tmp_path: Path) -> None:
    """When the child of many calls is killed, each of them runs again in this worker, without another delivery."""
    release = tmp_path / "release"
    with worker(broker_url, queue_name, journal, ready=0, app=LANES) as at_work:
        ids = publish(broker_url, queue_name, neighbours(20, task, release))
        all_started(journal, ids)
        [pid] = set(journal.started(ids[0]))
        os.kill(pid, signal.SIGKILL)
        all_started(journal, ids, times=2)
        release.touch()
        finished(journal, ids)
        # At most the one whose code ran at that moment is taken for the cause.
        assert len(at_work.seen("lost its child")) <= 1
    check_neighbours(journal, ids, broker_url, queue_name)
