"""The Bus, and the facts on it."""

import logging
import typing
from typing import Any

import attrs
import pytest

from hybridpool import events
from hybridpool.events import Bus, ChildReady, Fact

FACT = ChildReady("ForkPoolWorker-1", 77)


def test_everyone_hears_in_order() -> None:
    """A face would miss facts, or the log show them in another order than they happened."""
    bus, heard = Bus(), list[tuple[int, Fact]]()
    bus.subscribe(lambda fact: heard.append((1, fact)))
    bus.subscribe(lambda fact: heard.append((2, fact)))
    bus.emit(FACT)
    assert heard == [(1, FACT), (2, FACT)]


def test_nobody_listens() -> None:
    """An embedded pool without a log would fail."""
    Bus().emit(FACT)


def test_one_who_left_hears_no_more() -> None:
    """A face that is gone would be called for ever."""
    bus, heard = Bus(), list[Fact]()
    bus.subscribe(heard.append)
    bus.unsubscribe(heard.append)
    bus.unsubscribe(heard.append)
    bus.emit(FACT)
    assert heard == []


def test_one_who_leaves_while_it_hears() -> None:
    """A face that leaves would take its neighbour's turn."""
    bus, heard = Bus(), list[Fact]()

    def once(fact: Fact) -> None:
        bus.unsubscribe(once)

    bus.subscribe(once)
    bus.subscribe(heard.append)
    bus.emit(FACT)
    bus.emit(FACT)
    assert heard == [FACT, FACT]


def test_a_listener_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A fault in a face would stop the pipeline, or pass unseen."""
    bus, heard = Bus(), list[Fact]()

    def faulty(fact: Fact) -> None:
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
    one, other, heard = Bus(), Bus(), list[Fact]()
    one.subscribe(heard.append)
    other.emit(FACT)
    assert heard == []


def test_every_fact_is_in_the_union() -> None:
    """A fact could be emitted that no checker makes the faces think of."""
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and attrs.has(kind)}
    assert kinds == set(typing.get_args(Fact))


@pytest.mark.parametrize("kind", typing.get_args(Fact))
def test_facts_are_values(kind: Any) -> None:
    """A listener could change what the next one hears."""
    fields = [None] * len(attrs.fields(kind))
    fact = kind(*fields)
    assert fact == kind(*fields)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(fact, next((field.name for field in attrs.fields(kind)), "anything"), 1)
