"""The zygote dies, and its children with it: another one takes its place, and nothing is lost."""

import os
import signal

import psutil
import pytest

from tests.faults.apps import ZYGOTE, ZYGOTE_LASTS
from tests.faults.helpers import Call, finished, numbers, pid_of, publish, reached, settled, wait_gone, worker
from tests.faults.ledger import Journal, account, tell
from tests.queues import BrokerConsole
from tests.rabbit import wait_for
from tests.workers import Gate

#: zygotes in four seconds; without a pause there would be some twenty
MANY = 9


def test_killed_with_running_tasks(broker_url: str, queue_name: str, journal: Journal, gate: Gate) -> None:
    """When the zygote is killed its children end, a new one starts, and the running tasks run again."""
    family = Call("family", "with_process", (gate.path,))
    ids = publish(broker_url, queue_name, [family, *numbers(100, gate=gate, gated=[0])])
    with worker(broker_url, queue_name, journal) as at_work:
        standing = gate.entered(2)
        zygote = at_work.zygote
        grandchild = next(int(one.tag) for one in standing if one.tag.isdigit())
        below = [psutil.Process(pid) for pid in (*(one.pid for one in standing), grandchild)]
        zygote.send_signal(signal.SIGKILL)
        tell(f"  zygote, children and grandchild gone after {wait_gone([zygote, *below]):.3f} s")
        at_work.see(r"The zygote died \(signal 9 \(SIGKILL\)\) and its children with it; starting another")
        again = gate.entered(2)
        assert {one.child for one in again} == {"ForkPoolWorker-3", "ForkPoolWorker-4"}
        assert at_work.zygote.pid != zygote.pid
        gate.release(2)
        finished(journal, ids)
        assert len(at_work.seen(r"lost its child \S+: its zygote died: signal 9 \(SIGKILL\) \(delivery 1\)")) == 2
        assert len(at_work.children()) == 2
    killed = {one.pid: "zygote killed" for one in standing}
    drawn = account(ids, journal, depth=settled(broker_url, queue_name), killed=killed)
    assert set(drawn.repeated) == {"family", "n0000"}


def test_neighbours_are_not_blamed(broker_url: str, queue_name: str, journal: Journal, gate: Gate) -> None:
    """A zygote's death counts as a delivery for a call that ran alone, and for none of several."""
    with worker(broker_url, queue_name, journal, "--max-deliveries=1") as at_work:
        several = publish(broker_url, queue_name, numbers(2, gate=gate, gated=[0, 1]))
        gate.entered(2)
        at_work.zygote.kill()
        at_work.see(r"lost its child .*; it is queued again", 2)
        gate.entered(2)
        gate.release(2)
        finished(journal, several)
        alone = publish(broker_url, queue_name, numbers(3, gate=gate, gated=[2])[2:])
        [last] = gate.entered()
        at_work.zygote.kill()
        at_work.see(rf"\[{alone[0]}\] lost its child {last.child}: its zygote died: .*; dead-lettered to")
    with BrokerConsole(broker_url) as console:
        assert (console.depth(queue_name), console.depth(f"{queue_name}.dead")) == (0, 1)
        console.delete(f"{queue_name}.dead")


def test_killed_again_and_again_in_a_run(broker_url: str, queue_name: str, journal: Journal) -> None:
    """A zygote killed at many moments of a run loses no call, and no name is used twice."""
    moments = range(200, 2000, 400)
    ids = publish(broker_url, queue_name, numbers(2000))
    killed: dict[int, str] = {}
    with worker(broker_url, queue_name, journal) as at_work:
        for moment in moments:
            reached(journal, moment)
            zygote = at_work.zygote
            # it must not fork between our look and its end
            zygote.suspend()
            killed |= {child.pid: "zygote killed" for child in zygote.children()}
            zygote.kill()
        finished(journal, ids)
        at_work.see("The zygote died", len(moments))
        assert len(at_work.children()) == 2
        children = {match[1] for match in at_work.seen(r"(ForkPoolWorker-\d+) forked")}
        assert len(children) == len(at_work.seen("forked, pid")), "a name was used twice"
    drawn = account(ids, journal, depth=settled(broker_url, queue_name), killed=killed)
    assert len(drawn.repeated) <= 2 * len(moments)


@pytest.mark.parametrize("size", [2, 9])
def test_killed_idle(size: int, broker_url: str, queue_name: str, journal: Journal) -> None:
    """A zygote killed while its children are idle is replaced without a pause."""
    options = (f"--concurrency={size}",)
    with worker(broker_url, queue_name, journal, *options, ready=size) as at_work:
        os.kill(at_work.zygote.pid, signal.SIGKILL)
        pid_of(at_work, 2 * size)
        ids = publish(broker_url, queue_name, numbers(20))
        finished(journal, ids)
        assert not at_work.seen(r"; the next .* in [\d.]+ s")
    assert not account(ids, journal, depth=settled(broker_url, queue_name)).repeated


def test_stopped(broker_url: str, queue_name: str, journal: Journal) -> None:
    """A zygote that does not answer is replaced, and no call is lost or run twice."""
    options = ("--max-tasks-per-child=1", "--proc-alive-timeout=5s")
    with worker(broker_url, queue_name, journal, *options) as at_work:
        at_work.zygote.suspend()
        ids = publish(broker_url, queue_name, numbers(10))
        at_work.see("The zygote died")
        finished(journal, ids)
        assert not at_work.seen("lost its child")
    assert not account(ids, journal, depth=settled(broker_url, queue_name)).repeated


def test_dies_again_and_again(broker_url: str, queue_name: str, journal: Journal) -> None:
    """A zygote that dies again and again is started with growing pauses."""
    with worker(broker_url, queue_name, journal, env={ZYGOTE_LASTS: "0.15"}, ready=0) as at_work:
        at_work.see(r"The zygote died \(signal 14 \(SIGALRM\)\)", 2)
        assert not wait_for(lambda: len(journal.entries(ZYGOTE)) > MANY, 4.0)
