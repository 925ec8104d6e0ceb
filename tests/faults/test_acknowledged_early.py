"""Calls acknowledged early: several short ones lie in a child's channel, and none that has begun runs a second time.

What began in the last moment before the worker itself is killed is the exception: the broker had no word of it.
"""

import os
import re
import signal
from collections.abc import Callable, Sequence

import pytest

from tests.faults.helpers import deliveries, finished, numbers, publish, reached, run_out, settled, worker
from tests.faults.ledger import Journal, account, tell
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.workers import PATIENCE, Gate, Worker

#: of 1 ms each
CALLS = 1500
#: seconds before the worker's death in which a call may begin that runs again; on an idle machine it is some 5 ms
LAST_MOMENT = 1.0


def kill_child(at_work: Worker) -> None:
    """Kill a child that works."""
    os.kill(at_work.children()[0].pid, signal.SIGKILL)


def kill_zygote(at_work: Worker) -> None:
    """Kill the zygote, and with it all children."""
    at_work.zygote.kill()


@pytest.mark.parametrize(("kill", "at_most"), [(kill_child, 1), (kill_zygote, 2)])
def test_children_killed(
    kill: Callable[[Worker], None], at_most: int, broker_url: str, queue_name: str, journal: Journal
) -> None:
    """A child that is killed takes the call that it had begun; what lay behind it runs once, in another child."""
    ids = publish(broker_url, queue_name, numbers(CALLS))
    with worker(broker_url, queue_name, journal, "--no-acks-late", "--prefetch-multiplier=64") as at_work:
        for done in (CALLS // 4, CALLS // 2, 3 * CALLS // 4):
            reached(journal, done)
            kill(at_work)
        wait_for(lambda: len(journal.finished()) + len(lost(at_work)) >= CALLS, PATIENCE)
        died = lost(at_work)
    assert len(died) <= 3 * at_most
    assert not account(ids, journal, depth=settled(broker_url, queue_name), failed=died).repeated


def lost(*workers: Worker) -> set[str]:
    """Return the ids of calls that died with their child, as the log says."""
    return {
        match[1] for one in workers for match in one.seen(r"\[(n\d+)\] lost its child .*acknowledged when it began")
    }


def test_worker_killed_at_long_calls(
    rabbit_node: Node, broker_url: str, queue_name: str, journal: Journal, gate: Gate
) -> None:
    """When the worker is killed, what has run for a moment does not run again, and what has not begun is not lost."""
    ids = publish(broker_url, queue_name, numbers(600, gate=gate, gated=[200, 400]))
    with worker(broker_url, queue_name, journal, "--no-acks-late", "--prefetch-multiplier=64") as first:
        gate.entered(2)
        begun = {entry.id for entry in journal.entries() if entry.what == "start"} & set(ids)
        assert wait_for(lambda: held(rabbit_node, queue_name) == len(ids) - len(begun), PATIENCE)
        first.main.kill()
        first.wait()
    with worker(broker_url, queue_name, journal, "--no-acks-late") as second:
        rest = [one for one in ids if one not in {"n0200", "n0400"}]
        finished(journal, rest)
        ids += run_out(broker_url, queue_name, journal)
        assert not lost(second)
    drawn = account(ids, journal, depth=settled(broker_url, queue_name), failed={"n0200", "n0400"})
    assert not drawn.repeated
    assert drawn.once == len(ids) - 2


def held(node: Node, queue: str) -> int:
    """Return how many messages of a queue are not acknowledged, delivered or not."""
    found = re.search(rf"^{queue}\s+(\d+)$", node.ctl("list_queues", "name", "messages"), re.MULTILINE)
    return -1 if found is None else int(found[1])


def test_worker_killed_at_short_calls(broker_url: str, queue_name: str, journal: Journal) -> None:
    """When the worker is killed, nothing runs twice but what began in the last moment, and nothing is lost unbegun."""
    ids = publish(broker_url, queue_name, numbers(CALLS))
    with worker(broker_url, queue_name, journal, "--no-acks-late", "--prefetch-multiplier=64") as first:
        reached(journal, CALLS // 3)
        first.main.kill()
        first.wait()
    killed_at = max(entry.at for entry in journal.entries())
    with worker(broker_url, queue_name, journal, "--no-acks-late", "--prefetch-multiplier=64"):
        run_out(broker_url, queue_name, journal)
    again = repeated(journal, ids)
    tell(
        f"  {len(again)} calls began twice, the first {killed_at - min(again.values(), default=killed_at):.4f} s before"
    )
    assert all(began > killed_at - LAST_MOMENT for began in again.values()), again
    assert all(len(journal.started(one)) <= 2 for one in ids)
    never = [one for one in ids if not journal.started(one)]
    assert not never
    assert len(set(ids) - journal.finished()) <= 2, "what had begun, and was acknowledged: one for each child"


def repeated(journal: Journal, ids: Sequence[str]) -> dict[str, float]:
    """Return the ids that were started more than once, and when each began first."""
    first: dict[str, float] = {}
    again: dict[str, float] = {}
    for entry in journal.entries():
        if entry.what == "start" and first.setdefault(entry.id, entry.at) != entry.at:
            again[entry.id] = first[entry.id]
    return {one: again[one] for one in ids if one in again}


def test_connections_are_closed(rabbit_node: Node, broker_url: str, queue_name: str, journal: Journal) -> None:
    """When the connection is lost, the worker runs nothing twice: neither what had begun nor what lay in a channel."""
    ids = publish(broker_url, queue_name, numbers(2 * CALLS))
    with worker(broker_url, queue_name, journal, "--no-acks-late", "--prefetch-multiplier=64") as at_work:
        for done in (CALLS // 4, CALLS // 2, CALLS):
            reached(journal, done)
            rabbit_node.ctl("close_all_connections", "the test closes it")
        finished(journal, ids)
        ids += run_out(broker_url, queue_name, journal)
        came = deliveries(at_work)
    with BrokerConsole(broker_url) as console:
        assert console.depth(queue_name) == 0
    assert not account(ids, journal, depth=0, redelivered=came).repeated
