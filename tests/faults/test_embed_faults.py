"""Children die under a worker that is embedded in this process, with messages in memory."""

import os
import signal

import pytest

from hybridpool import embedded, events
from hybridpool.errors import ChildLost
from tests.faults.apps import JOURNAL, app, fatal
from tests.faults.helpers import APP, Call, numbers, send_with, until
from tests.faults.ledger import Journal, account
from tests.workers import PATIENCE, Gate

#: starting a zygote means a wait for its exec on the loop, about a millisecond
pytestmark = [pytest.mark.anyio, pytest.mark.may_block]


async def test_killed_in_the_middle_of_a_run(journal: Journal, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child killed in a run loses its own attempt alone in an embedded worker."""
    monkeypatch.setenv(JOURNAL, str(journal.path))
    observed: list[events.Event] = []
    bus = events.Bus()
    bus.subscribe(observed.append)
    calls = numbers(2000, gate=gate, gated=[600])
    async with embedded(app, f"{APP}:app", bus=bus, worker_concurrency=2):
        await send_with(app, calls)
        await until(lambda: journal.started("n0600"))
        [victim] = gate.entered()
        os.kill(victim.pid, signal.SIGKILL)
        await until(lambda: len(journal.started("n0600")) == 2)
        gate.entered()
        gate.release()
        await until(lambda: len(journal.finished()) == len(calls))
    [lost] = [event for event in observed if isinstance(event, events.TaskLost)]
    assert (lost.task.id, lost.child, lost.cause) == ("n0600", victim.child, "signal 9 (SIGKILL)")
    ids = [call.id for call in calls]
    drawn = account(ids, journal, depth=0, killed={victim.pid: "child killed"})
    assert set(drawn.repeated) == {"n0600"}


async def test_deadly_task_is_told(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller of a task that kills its children gets ChildLost from an embedded worker."""
    monkeypatch.setenv(JOURNAL, str(journal.path))
    async with embedded(app, f"{APP}:app", worker_concurrency=2):
        handle = await fatal.options(task_id="bad").enqueue("segfaults")
        await send_with(app, [Call("good")])
        with pytest.raises(ChildLost, match="SIGSEGV"):
            await handle.get(timeout=PATIENCE)
        await until(lambda: "good" in journal.finished())
    pids = dict.fromkeys(journal.started("bad"), "killed by its own task")
    assert len(pids) == 3
    account(["bad", "good"], journal, depth=0, dead={"bad"}, killed=pids)
