"""Several queues, their weights, and priorities."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridpool import embedded, events
from tests.apps import worker as worker_app
from tests.contract.inbox import Events
from tests.queues import BrokerConsole
from tests.rabbit import wait_for
from tests.workers import PATIENCE, Gate, Worker, client_of, gate_in

#: tasks in each of the queues
COUNT = 120


@pytest.fixture
def order(tmp_path: Path) -> Path:
    """Where tasks note their tags, in the order in which they ran."""
    return tmp_path / "order"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Where a task stands until it is let go."""
    with gate_in(tmp_path) as made:
        yield made


def tags(order: Path) -> list[str]:
    """Return what ran so far."""
    return order.read_text().split() if order.exists() else []


@pytest.mark.parametrize(("weights", "share"), [("", 0.5), ("{0}=3", 0.75)], ids=["even", "weighed"])
def test_turns(broker_url: str, queue_name: str, order: Path, gate: Gate, weights: str, share: float) -> None:
    """Two queues are served in turn, in the proportion of their weights."""
    other = f"{queue_name}-other"
    options = [f"-Q{queue_name},{other}", *([f"--queue-weights={weights.format(queue_name)}"] if weights else [])]
    with BrokerConsole(broker_url) as console:
        try:
            with client_of(broker_url, queue_name) as client:
                # until both are consumed: whichever is first would be far ahead
                client.send_task("worker.hold", (gate.path,), ignore_result=True)
                for queue in (queue_name, other):
                    for _ in range(COUNT):
                        client.send_task("worker.note", (str(order), queue), queue=queue, ignore_result=True)
            with Worker(broker_url, queue_name, "-c1", *options) as worker:
                gate.entered()
                worker.see(f"Consuming from {other}")
                gate.release()
                assert wait_for(lambda: len(tags(order)) == 2 * COUNT, PATIENCE)
        finally:
            console.delete(other)
    # as long as there is something in both
    first = tags(order)[: int(COUNT / share)]
    assert abs(first.count(queue_name) - len(first) * share) <= 20


def test_urgent_first(broker_url: str, queue_name: str, order: Path, gate: Gate) -> None:
    """What the worker holds already runs in the order of its priority."""
    options = ("-c1", "--queue-max-priority=5", "--prefetch-multiplier=10")
    with Worker(broker_url, queue_name, *options) as worker, client_of(broker_url, queue_name) as client:
        client.conf.task_queue_max_priority = 5
        held = client.send_task("worker.hold", (gate.path, "first"))
        gate.entered()
        for tag, priority in (("a", None), ("b", 1), ("c", 5), ("d", 1)):
            client.send_task("worker.note", (str(order), tag), priority=priority)
        worker.see("worker.note.* received", 4)
        gate.release()
        held.get(PATIENCE)
        assert wait_for(lambda: len(tags(order)) == 4, PATIENCE)
    assert tags(order) == ["c", "b", "d", "a"]


@pytest.mark.may_block
@pytest.mark.anyio
async def test_told_of_what_outlasts_the_broker() -> None:
    """A worker warns once per task whose time limit is longer than the broker's consumer timeout."""
    observed, bus = Events(), events.Bus()
    bus.subscribe(observed)
    async with embedded(worker_app.app, bus=bus, task_time_limit=7200, worker_concurrency=1):
        pass
    told = observed.of(events.TaskOutlastsBroker)
    assert {(event.limit, event.timeout) for event in told} == {(7200.0, 1800.0)}
    assert len({event.name for event in told}) == len(told) > 0
