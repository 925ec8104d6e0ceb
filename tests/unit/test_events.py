"""The bus and its events."""

import logging
import typing
from typing import Any

import anyio
import attrs
import pytest

from hybridpool import events
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._message import Outgoing, QueueSpec
from hybridpool.events import BrokerConnected, BrokerLost, Bus, ChildReady, Event

FACT = ChildReady("ForkPoolWorker-1", 77)


def test_everyone_hears_in_order() -> None:
    """Every listener gets every event, in the order of subscription."""
    bus, heard = Bus(), list[tuple[int, Event]]()
    bus.subscribe(lambda event: heard.append((1, event)))
    bus.subscribe(lambda event: heard.append((2, event)))
    bus.emit(FACT)
    assert heard == [(1, FACT), (2, FACT)]


def test_nobody_listens() -> None:
    """Emitting without listeners does nothing."""
    Bus().emit(FACT)


def test_one_who_left_hears_no_more() -> None:
    """A listener that unsubscribed gets no more events."""
    bus, heard = Bus(), list[Event]()
    bus.subscribe(heard.append)
    bus.unsubscribe(heard.append)
    bus.unsubscribe(heard.append)
    bus.emit(FACT)
    assert heard == []


def test_one_who_leaves_while_it_hears() -> None:
    """A listener that unsubscribes while it is called does not take another one's turn."""
    bus, heard = Bus(), list[Event]()

    def once(event: Event) -> None:
        bus.unsubscribe(once)

    bus.subscribe(once)
    bus.subscribe(heard.append)
    bus.emit(FACT)
    bus.emit(FACT)
    assert heard == [FACT, FACT]


def test_a_listener_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A listener that fails is logged, stays subscribed, and does not stop the others."""
    bus, heard = Bus(), list[Event]()

    def faulty(event: Event) -> None:
        raise RuntimeError("no")

    bus.subscribe(faulty)
    bus.subscribe(heard.append)
    with caplog.at_level(logging.ERROR):
        bus.emit(FACT)
        bus.emit(FACT)
    assert heard == [FACT, FACT]
    assert [record.getMessage() for record in caplog.records] == [
        f"a listener failed on {FACT!r}; it stays subscribed"
    ] * 2
    assert all(record.exc_info for record in caplog.records)


def test_buses_do_not_know_each_other() -> None:
    """Two buses are independent."""
    one, other, heard = Bus(), Bus(), list[Event]()
    one.subscribe(heard.append)
    other.emit(FACT)
    assert heard == []


def test_every_fact_is_in_the_union() -> None:
    """Every event class is in the union."""
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and attrs.has(kind)}
    assert kinds == set(typing.get_args(Event))


@pytest.mark.parametrize("kind", typing.get_args(Event))
def test_facts_are_values(kind: Any) -> None:
    """Events are frozen values."""
    fields = [None] * len(attrs.fields(kind))
    event = kind(*fields)
    assert event == kind(*fields)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(event, next((field.name for field in attrs.fields(kind)), "anything"), 1)


def test_a_task_ref_is_a_value() -> None:
    """Refs of the same task are equal, and no listener can change one."""
    ref = events.TaskRef("shop.add", "id-1", retries=2)
    assert ref == events.TaskRef("shop.add", "id-1", retries=2) != events.TaskRef("shop.add", "id-1")
    with pytest.raises(AttributeError):
        ref.name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def test_a_lost_connection_calls_back_before_it_is_announced() -> None:
    """A worker drops what waits before any listener, or a message of the next connection, can see the old state."""
    server, steps = MemoryServer(), list[object]()
    broker = MemoryBroker(server, steps.append)
    broker.on_disconnect(lambda: steps.append("callback"))
    async with broker:
        await broker.declare(QueueSpec(name="celery"))
        await broker.consume("celery", 0, lambda _: steps.append("message"))
        server.put(Outgoing(body=b"", routing_key="celery"))
        await anyio.wait_all_tasks_blocked()
        steps.clear()
        server.cut()
        await anyio.wait_all_tasks_blocked()
    lost, connected = (next(step for step in steps if isinstance(step, kind)) for kind in (BrokerLost, BrokerConnected))
    assert [step for step in steps if step != connected] == ["callback", lost, "message"]
