"""The Bus, and the observed on it."""

import logging
import typing
from typing import Any

import attrs
import pytest

from hybridpool import events
from hybridpool.events import Bus, ChildReady, Event

FACT = ChildReady("ForkPoolWorker-1", 77)


def test_everyone_hears_in_order() -> None:
    """A face would miss observed, or the log show them in another order than they happened."""
    bus, heard = Bus(), list[tuple[int, Event]]()
    bus.subscribe(lambda event: heard.append((1, event)))
    bus.subscribe(lambda event: heard.append((2, event)))
    bus.emit(FACT)
    assert heard == [(1, FACT), (2, FACT)]


def test_nobody_listens() -> None:
    """An embedded pool without a log would fail."""
    Bus().emit(FACT)


def test_one_who_left_hears_no_more() -> None:
    """A face that is gone would be called for ever."""
    bus, heard = Bus(), list[Event]()
    bus.subscribe(heard.append)
    bus.unsubscribe(heard.append)
    bus.unsubscribe(heard.append)
    bus.emit(FACT)
    assert heard == []


def test_one_who_leaves_while_it_hears() -> None:
    """A face that leaves would take its neighbour's turn."""
    bus, heard = Bus(), list[Event]()

    def once(event: Event) -> None:
        bus.unsubscribe(once)

    bus.subscribe(once)
    bus.subscribe(heard.append)
    bus.emit(FACT)
    bus.emit(FACT)
    assert heard == [FACT, FACT]


def test_a_listener_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A fault in a face would stop the pipeline, or pass unseen."""
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
    """Two workers in one process would hear each other."""
    one, other, heard = Bus(), Bus(), list[Event]()
    one.subscribe(heard.append)
    other.emit(FACT)
    assert heard == []


def test_every_fact_is_in_the_union() -> None:
    """An event could be emitted that no checker makes the faces think of."""
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and attrs.has(kind)}
    assert kinds == set(typing.get_args(Event))


@pytest.mark.parametrize("kind", typing.get_args(Event))
def test_facts_are_values(kind: Any) -> None:
    """A listener could change what the next one hears."""
    fields = [None] * len(attrs.fields(kind))
    event = kind(*fields)
    assert event == kind(*fields)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(event, next((field.name for field in attrs.fields(kind)), "anything"), 1)
