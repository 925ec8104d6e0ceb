"""The broker goes: stopped, killed, or closing connections. Durable messages survive; the worker comes back."""

from collections.abc import Iterator

import psutil
import pytest

from tests.faults.helpers import deliveries, finished, numbers, publish, run_out, settled, wait_until, worker
from tests.faults.ledger import Journal, account, tell
from tests.rabbit import Node
from tests.workers import Gate, Worker

#: of a worker of two children: so many messages at most are unsettled when a connection is lost
PREFETCH = 8
#: lines of the log about an outage of ten seconds: the loss, and one for each attempt, further and further apart
LINES = 12
LOSS = r"No connection to amqp://guest:\*\*@127\.0\.0\.1:\d+//: (.*)\. Trying again in [\d.]+ seconds"


@pytest.fixture
def own_node() -> Iterator[Node]:
    """A node for one test, that may be harmed."""
    with Node("victim") as node:
        yield node


def told_well(output: Worker, losses: int) -> list[str]:
    """Check how the log tells of losses: one line each, one for each vain attempt, no more; return the reasons."""
    reasons = [match[1] for match in output.seen(LOSS)]
    assert len(output.seen("Connected to")) == losses + 1
    assert not output.seen("Traceback")
    assert "guest:guest" not in output.text
    return reasons


@pytest.mark.slow
@pytest.mark.parametrize("hard", [False, True], ids=["stopped", "killed"])
def test_node_goes_and_comes_back(hard: bool, own_node: Node, queue_name: str, journal: Journal, gate: Gate) -> None:
    """When the node goes, running tasks go on; when it is back, the rest runs and no finished task runs again."""
    ids = publish(own_node.url, queue_name, numbers(2000, gate=gate, gated=[600]))
    with worker(own_node.url, queue_name, journal) as at_work:
        [before] = gate.entered()
        if hard:
            own_node.kill()
        else:
            own_node.stop()
        at_work.see(LOSS)
        # the broker is away, the task runs on, and ends
        assert psutil.Process(before.pid).is_running()
        gate.release()
        wait_until(lambda: "n0600" in journal.finished())
        assert journal.started("n0600") == [before.pid]
        own_node.start()
        # it could not be acknowledged, so the broker delivers it again, and it is recognised
        at_work.see(r"\[n0600\] was delivered again: it is done")
        ids += run_out(own_node.url, queue_name, journal)
        reasons = told_well(at_work, 1)
        tell("".join(f"\n  {reason}" for reason in reasons))
        assert len(reasons) <= LINES
    drawn = account(ids, journal, depth=settled(own_node.url, queue_name), redelivered=deliveries(at_work))
    assert "n0600" not in drawn.repeated
    if not hard:
        assert not drawn.repeated


@pytest.mark.slow
def test_connections_are_closed(own_node: Node, queue_name: str, journal: Journal, gate: Gate) -> None:
    """A worker whose connections are closed connects again, and no task runs twice."""
    ids: list[str] = []
    losses = 3
    with worker(own_node.url, queue_name, journal) as at_work:
        for loss in range(losses):
            first = len(ids)
            batch = numbers(2000 // losses + 1, first=first, gate=gate, gated=[first + 200])
            ids += publish(own_node.url, queue_name, batch)
            gate.entered()
            own_node.ctl("close_all_connections", "the test closes it")
            at_work.see("Connected to", loss + 2)
            # it stands there still, is delivered again, and stays the only one
            at_work.see("it is still at work here", loss + 1)
            gate.release()
            finished(journal, ids)
        ids += run_out(own_node.url, queue_name, journal)
        reasons = told_well(at_work, losses)
        assert len(reasons) == losses
        assert all("CONNECTION_FORCED - the test closes it" in reason for reason in reasons)
    drawn = account(ids, journal, depth=settled(own_node.url, queue_name), redelivered=deliveries(at_work))
    assert not drawn.repeated


def test_unstarted_calls_go_with_their_connection(
    rabbit_node: Node, broker_url: str, queue_name: str, journal: Journal, gate: Gate
) -> None:
    """Calls that wait in the worker when its connection is lost run once, when they are delivered again."""
    ids = publish(broker_url, queue_name, numbers(PREFETCH, gate=gate, gated=[0, 1]))
    with worker(broker_url, queue_name, journal) as at_work:
        gate.entered(2)
        at_work.see("received", PREFETCH)
        rabbit_node.ctl("close_all_connections", "the test closes it")
        at_work.see("received", 2 * PREFETCH - 2)
        # both stand there still, and are not begun again
        at_work.see("it is still at work here", 2)
        gate.release(2)
        ids += run_out(broker_url, queue_name, journal)
    drawn = account(ids, journal, depth=settled(broker_url, queue_name), redelivered=deliveries(at_work))
    assert not drawn.repeated
