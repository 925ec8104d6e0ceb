"""Children die: killed, crashed, gone without a word. Each death costs one attempt of one task, and no more."""

import json
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from hybridpool._protocol.dead_letter import REASON, dead_queue
from hybridpool.errors import ChildLost
from tests.faults.apps import BORN, FATE, FATES
from tests.faults.helpers import (
    APP,
    Call,
    finished,
    numbers,
    pid_of,
    publish,
    publish_for_reply,
    settled,
    wait_gone,
    wait_until,
    worker,
)
from tests.faults.ledger import Journal, account, tell
from tests.queues import BrokerConsole
from tests.workers import PATIENCE, Gate, client_of

#: seconds that eight failed starts with their back-off may take
GIVING_UP = 200.0


def test_killed_in_the_middle_of_a_run(broker_url: str, queue_name: str, journal: Journal, gate: Gate) -> None:
    """A child killed in a run loses its own attempt alone, and the other child goes on."""
    ids = publish(broker_url, queue_name, numbers(2000, gate=gate, gated=[600]))
    with worker(broker_url, queue_name, journal) as at_work:
        [victim] = gate.entered()
        os.kill(victim.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        gate.entered()
        gate.release()
        finished(journal, ids)
        story = at_work.see(r"Task \S+\[n0600\] lost its child (\S+): signal 9 \(SIGKILL\) \(delivery 1\)")
        assert story[0][1] == victim.child
    drawn = account(ids, journal, depth=settled(broker_url, queue_name), killed={victim.pid: "child killed"})
    assert set(drawn.repeated) == {"n0600"}
    starts = [entry for entry in journal.entries() if entry.what == "start" and entry.id != BORN]
    before = {entry.pid for entry in starts if entry.at < killed_at}
    new = next(entry for entry in starts if entry.at > killed_at and entry.pid not in before)
    tell(f"  the next child was at work after {new.at - killed_at:.3f} s")
    assert any(entry.at > killed_at and entry.pid in before for entry in starts), "the other child stopped too"


def test_killed_idle(broker_url: str, queue_name: str, journal: Journal) -> None:
    """A child killed while idle is replaced, and no call is lost with it."""
    ids = publish(broker_url, queue_name, numbers(20))
    with worker(broker_url, queue_name, journal) as at_work:
        finished(journal, ids)
        os.kill(pid_of(at_work, 1), signal.SIGKILL)
        at_work.see(r"Process 'ForkPoolWorker-1' pid:\d+ exited with 'signal 9 \(SIGKILL\)'")
        pid_of(at_work, 3)
        assert len(at_work.children()) == 2
        ids += publish(broker_url, queue_name, numbers(20, first=20))
        finished(journal, ids)
        assert not at_work.seen("lost its child")
    assert not account(ids, journal, depth=settled(broker_url, queue_name)).repeated


def test_unread_call_goes_to_another_child(broker_url: str, queue_name: str, journal: Journal, gate: Gate) -> None:
    """A call that a stopped child has not read runs in another child, once, and the stopped child works again later."""
    with worker(broker_url, queue_name, journal) as at_work:
        stopped = psutil.Process(pid_of(at_work, 1))
        stopped.suspend()
        ids = publish(broker_url, queue_name, numbers(10))
        finished(journal, ids)
        at_work.see(rf"ForkPoolWorker-1 \(pid {stopped.pid}\) does not take its calls: was it stopped\?")
        stopped.resume()
        ids += publish(broker_url, queue_name, numbers(2, first=10, gate=gate, gated=[10, 11]))
        assert stopped.pid in {entered.pid for entered in gate.entered(2)}, "it has no work any more"
        gate.release(2)
        finished(journal, ids)
        assert not at_work.seen("lost its child")
    assert not account(ids, journal, depth=settled(broker_url, queue_name)).repeated


@pytest.mark.parametrize(
    ("how", "cause"),
    [("exits", r"exit code 3"), ("segfaults", r"signal 11 \(SIGSEGV\)"), ("is killed", r"signal 9 \(SIGKILL\)")],
)
def test_dies_by_its_own_task(
    how: str, cause: str, broker_url: str, queue_name: str, journal: Journal, tmp_path: Path
) -> None:
    """A task that kills its child is logged with the cause, delivered again, and costs no other task."""
    bomb = tmp_path / "bomb"
    bomb.touch()
    calls = [*numbers(50), Call("bad", "fatal", (how, str(bomb))), *numbers(50, first=50)]
    ids = publish(broker_url, queue_name, calls)
    with worker(broker_url, queue_name, journal) as at_work:
        finished(journal, ids)
        at_work.see(rf"Task \S+\[bad\] lost its child \S+: {cause} \(delivery 1\); it is queued again")
    first, _second = journal.started("bad")
    drawn = account(ids, journal, depth=settled(broker_url, queue_name), killed={first: f"child {how}"})
    assert set(drawn.repeated) == {"bad"}


def test_deadly_task_is_dead_lettered(broker_url: str, queue_name: str, journal: Journal) -> None:
    """A task that kills its child three times is dead-lettered with the reason, and its caller is told."""
    with (
        BrokerConsole(broker_url) as console,
        worker(broker_url, queue_name, journal, "--result-backend", "rpc://") as at_work,
    ):
        with client_of(broker_url, queue_name) as client:
            handle = client.send_task(f"{APP}.fatal", ["is killed"], task_id="bad")
            ids = publish(broker_url, queue_name, numbers(200))
            with pytest.raises(ChildLost, match=r"Worker exited prematurely: signal 9 \(SIGKILL\)"):
                handle.get(timeout=PATIENCE)
        finished(journal, ids)
        at_work.see(rf"\[bad\] lost its child .* \(delivery 3\); dead-lettered to {dead_queue(queue_name)}")
        console.until_depth(dead_queue(queue_name), 1)
        letter = console.take(dead_queue(queue_name))
        assert letter.headers["id"] == "bad"
        assert "its child died 3 times (task_max_deliveries)" in letter.headers[REASON]
        assert "signal 9 (SIGKILL)" in letter.headers[REASON]
        assert json.loads(letter.body)[0] == ["is killed"]
    pids = dict.fromkeys(journal.started("bad"), "killed by its own task")
    assert len(pids) == 3
    account([*ids, "bad"], journal, depth=settled(broker_url, queue_name), dead={"bad"}, killed=pids)


def test_deadly_task_is_told_to_celery(broker_url: str, queue_name: str, journal: Journal) -> None:
    """A Celery client gets WorkerLostError for a task that kills its children."""
    reply_queue = f"{queue_name}-reply"
    with BrokerConsole(broker_url) as console, worker(broker_url, queue_name, journal, "--result-backend", "rpc://"):
        console.declare(reply_queue, {"x-expires": 60_000})
        publish_for_reply(broker_url, queue_name, Call("bad", "fatal", ("exits",)), reply_queue)
        console.until_depth(reply_queue, 1)
        meta = json.loads(console.take(reply_queue).body)
    assert (meta["status"], meta["task_id"]) == ("FAILURE", "bad")
    assert meta["result"]["exc_type"] == "WorkerLostError"
    assert meta["result"]["exc_module"] == "billiard.exceptions"
    assert "exit code 3" in str(meta["result"]["exc_message"])


@pytest.mark.parametrize("by", ["task", "worker"])
def test_acknowledged_early_is_not_run_again(
    by: str, broker_url: str, queue_name: str, journal: Journal, gate: Gate
) -> None:
    """A task acknowledged early whose child is killed is not run again, and its caller is told."""
    task, options = ("number_once", ()) if by == "task" else ("number", ("--no-acks-late",))
    with (
        worker(broker_url, queue_name, journal, "--result-backend", "rpc://", *options) as at_work,
        client_of(broker_url, queue_name) as client,
    ):
        handle = client.send_task(f"{APP}.{task}", [gate.path], task_id="once")
        [victim] = gate.entered()
        ids = publish(broker_url, queue_name, numbers(100))
        os.kill(victim.pid, signal.SIGKILL)
        with pytest.raises(ChildLost, match="SIGKILL"):
            handle.get(timeout=PATIENCE)
        finished(journal, ids)
        at_work.see(r"\[once\] lost its child .*; it was acknowledged when it began")
    drawn = account([*ids, "once"], journal, depth=settled(broker_url, queue_name), failed={"once"})
    assert not drawn.repeated
    assert drawn.once == 100


def test_processes_of_a_task_go_with_its_child(broker_url: str, queue_name: str, journal: Journal, gate: Gate) -> None:
    """A process that a task started is killed with its child."""
    [task] = publish(broker_url, queue_name, [Call("family", "with_process", (gate.path,))])
    with worker(broker_url, queue_name, journal):
        [victim] = gate.entered()
        family = [psutil.Process(victim.pid), psutil.Process(int(victim.tag))]
        os.kill(victim.pid, signal.SIGKILL)
        tell(f"  child and grandchild gone after {wait_gone(family):.3f} s")
        gate.entered()
        gate.release()
        finished(journal, [task])
    account([task], journal, depth=settled(broker_url, queue_name), killed={victim.pid: "child killed"})


def test_killed_while_the_worker_stops(broker_url: str, queue_name: str, journal: Journal, gate: Gate) -> None:
    """A child killed during a warm stop does not delay the stop, and its task goes back to the queue."""
    ids = publish(broker_url, queue_name, [*numbers(20), Call("held", args=(gate.path,))])
    with worker(broker_url, queue_name, journal) as at_work:
        [victim] = gate.entered()
        finished(journal, ids[:-1])
        at_work.main.send_signal(signal.SIGTERM)
        at_work.see(rf"{victim.child} \(pid {victim.pid}\) retires: shutdown")
        os.kill(victim.pid, signal.SIGKILL)
        assert at_work.wait() == 0
    assert settled(broker_url, queue_name) == 1
    with worker(broker_url, queue_name, journal):
        gate.entered()
        gate.release()
        finished(journal, ids)
    account(ids, journal, depth=settled(broker_url, queue_name), killed={victim.pid: "child killed"})


def test_killed_in_its_last_task(broker_url: str, queue_name: str, journal: Journal, gate: Gate) -> None:
    """A child killed in its last task before recycling is replaced once."""
    ids = publish(broker_url, queue_name, numbers(200, gate=gate, gated=[100]))
    with worker(broker_url, queue_name, journal, "--max-tasks-per-child=1") as at_work:
        [victim] = gate.entered()
        os.kill(victim.pid, signal.SIGKILL)
        gate.entered()
        gate.release()
        finished(journal, ids)
        # the two that work, and the one that stands by
        wait_until(lambda: len(at_work.children()) == 3)
        # one for each attempt, and those
        assert len(journal.entries(BORN)) <= 200 + 1 + 2 + 1
    account(ids, journal, depth=settled(broker_url, queue_name), killed={victim.pid: "child killed"})


@pytest.mark.slow
@pytest.mark.timeout(GIVING_UP + 60)
def test_birth_that_always_dies(broker_url: str, queue_name: str, journal: Journal) -> None:
    """A worker whose children all die at their start pauses longer each time, and gives up with the reason."""
    with worker(broker_url, queue_name, journal, env={FATE: "dies"}, ready=0) as at_work:
        begun = time.monotonic()
        assert at_work.wait(GIVING_UP) == 1
        took = time.monotonic() - begun
        failed_starts = [entry.at for entry in journal.entries(BORN)]
        pauses = [after - before for before, after in pairwise(failed_starts)]
        tell(
            f"  {len(failed_starts)} failed starts in {took:.1f} s; "
            f"pauses: {' '.join(f'{pause:.2f}' for pause in pauses)}"
        )
        assert len(failed_starts) <= 10
        assert pauses[-1] > pauses[-3] > pauses[-5]
        assert at_work.seen(r": exit code 7; the next .* in [\d.]+ s")
        [last] = at_work.seen(r"^hybridpool: (.*)")
        assert "children in a row failed to start; the last: exit code 7" in last[1]


@pytest.mark.parametrize("size", [1, 2])
def test_birth_that_hangs_once(size: int, broker_url: str, queue_name: str, journal: Journal, tmp_path: Path) -> None:
    """A child that hangs in worker_process_init is replaced after worker_proc_alive_timeout."""
    fate = {FATE: "hangs", FATES: fates_in(tmp_path, 1)}
    options = (f"--concurrency={size}", "--proc-alive-timeout=5s")
    ids = publish(broker_url, queue_name, numbers(20))
    with worker(broker_url, queue_name, journal, *options, env=fate, ready=0) as at_work:
        at_work.see(r"not ready within 5 s \(worker_proc_alive_timeout\)")
        # one of the first hung, so one more takes its place
        pid_of(at_work, size + 1)
        finished(journal, ids)
        wait_until(lambda: len(at_work.children()) == size)
        assert len(journal.entries(BORN)) == size + 1
    account(ids, journal, depth=settled(broker_url, queue_name))


@pytest.mark.parametrize("size", [2, 9])
def test_births_that_fail_together(
    size: int, broker_url: str, queue_name: str, journal: Journal, tmp_path: Path
) -> None:
    """First children that all fail to start at once do not end a pool, small or large."""
    fate = {FATE: "dies", FATES: fates_in(tmp_path, size)}
    ids = publish(broker_url, queue_name, numbers(20))
    with worker(broker_url, queue_name, journal, f"--concurrency={size}", env=fate, ready=size) as at_work:
        finished(journal, ids)
        assert len(journal.entries(BORN)) == 2 * size
        assert at_work.seen(r": exit code 7; the next .* in [\d.]+ s")
    account(ids, journal, depth=settled(broker_url, queue_name))


def fates_in(folder: Path, count: int) -> str:
    """Make a folder that lets so many starts fail."""
    fates = folder / "fates"
    fates.mkdir()
    for number in range(count):
        (fates / str(number)).touch()
    return str(fates)
