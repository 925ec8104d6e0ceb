"""The parent dies: none of its processes outlives it, and the next worker gets the messages that were not settled."""

import signal

import psutil

from tests.faults.helpers import (
    Call,
    deliveries,
    finished,
    numbers,
    publish,
    run_out,
    settled,
    wait_gone,
    wait_until,
    worker,
)
from tests.faults.ledger import Journal, account, tell
from tests.queues import BrokerConsole
from tests.workers import Gate, Worker

#: of a worker of two children
PREFETCH = 8


def test_killed_in_the_middle_of_a_run(broker_url: str, queue_name: str, journal: Journal, gate: Gate) -> None:
    """When the parent is killed its processes end, and the next worker runs what was not settled."""
    family = Call("family", "with_process", (gate.path,))
    ids = publish(broker_url, queue_name, [*numbers(600), family, *numbers(1400, first=600, gate=gate, gated=[600])])
    with worker(broker_url, queue_name, journal) as first:
        standing = gate.entered(2)
        grandchild = next(int(one.tag) for one in standing if one.tag.isdigit())
        below = [first.zygote, *first.children(), psutil.Process(grandchild)]
        first.main.kill()
        tell(f"  zygote, children and grandchild gone after {wait_gone(below):.3f} s")
        first.wait()
    killed = {one.pid: "parent killed" for one in standing}
    done = len(journal.finished())
    with BrokerConsole(broker_url) as console:
        # what was done may have been killed before its acknowledgement left
        wait_until(lambda: console.depth(queue_name) >= len(ids) - done, what="the return of the unsettled")
        back = console.depth(queue_name)
    assert back <= len(ids) - done + PREFETCH
    with worker(broker_url, queue_name, journal) as second:
        gate.entered(2)
        gate.release(2)
        ids += run_out(broker_url, queue_name, journal)
    drawn = account(
        ids,
        journal,
        depth=settled(broker_url, queue_name),
        killed=killed,
        redelivered=deliveries(first, second),
    )
    assert {"family", "n0600"} <= set(drawn.repeated)
    assert len(drawn.repeated) <= PREFETCH


def test_killed_idle(broker_url: str, queue_name: str, journal: Journal) -> None:
    """When an idle parent is killed, its zygote and children end."""
    with worker(broker_url, queue_name, journal) as at_work:
        below = [at_work.zygote, *at_work.children()]
        at_work.main.kill()
        wait_gone(below)
        at_work.wait()


def test_killed_while_a_child_is_stopped(broker_url: str, queue_name: str, journal: Journal, gate: Gate) -> None:
    """A stopped child ends when its parent is killed, and the next worker runs its task."""
    [task] = publish(broker_url, queue_name, [Call("held", args=(gate.path,))])
    with worker(broker_url, queue_name, journal) as at_work:
        [one] = gate.entered()
        below = [at_work.zygote, *at_work.children()]
        psutil.Process(one.pid).suspend()
        at_work.main.kill()
        wait_gone(below)
        at_work.wait()
    with worker(broker_url, queue_name, journal):
        gate.entered()
        gate.release()
        finished(journal, [task])
    account([task], journal, depth=settled(broker_url, queue_name), killed={one.pid: "parent killed"})


def test_gone_while_the_app_is_imported(gate: Gate) -> None:
    """A worker that is killed while the app is imported leaves no process and no traceback."""
    with Worker("amqp://127.0.0.1:1//", "none", app="slow", env={"GATE": gate.path}, ready=0) as starting:
        (importing,) = gate.entered()
        zygote = psutil.Process(importing.pid)
        starting.main.kill()
        wait_gone([zygote])
        assert starting.wait() == -signal.SIGKILL
        assert starting.text == ""
