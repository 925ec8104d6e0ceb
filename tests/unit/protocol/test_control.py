"""Orders to workers, as Celery writes them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool.errors import ProtocolError
from hybridpool.protocol import control
from tests.strategies import values


def order(**fields: object) -> bytes:
    """Write an order as kombu does, with fields that we do not read."""
    return json.dumps({"pattern": None, "matcher": None, "ticket": None, **fields}).encode()


def test_there_and_back() -> None:
    """An order would be understood otherwise than it was meant."""
    message = control.revoke(["a", "b"], terminate=True)
    read = control.read_order(message.body)
    assert (read.method, read.destination, control.ids_of(read)) == ("revoke", None, ["a", "b"])
    assert read.arguments["terminate"] is True
    assert (message.exchange, message.broadcast) == ("celery.pidbox", True)


@pytest.mark.parametrize("named", ["a", ["a"]])
def test_one_id_or_several(named: object) -> None:
    """What Celery's `control.revoke` sends for a single task would not be understood."""
    read = control.read_order(order(method="revoke", arguments={"task_id": named}, destination=["w@h"]))
    assert control.ids_of(read) == ["a"]
    assert read.destination == ["w@h"]


@pytest.mark.parametrize("named", [None, 1, [1], {"a": 1}])
def test_no_ids(named: object) -> None:
    """A strange order would end a worker."""
    with pytest.raises(ProtocolError, match="task_id"):
        control.ids_of(control.read_order(order(method="revoke", arguments={"task_id": named})))


@given(body=st.binary(max_size=40) | values.map(lambda value: repr(value).encode()))
def test_noise(body: bytes) -> None:
    """A message that is no order would raise something that nobody expects."""
    try:
        read = control.read_order(body)
    except ProtocolError:
        return
    assert isinstance(read.method, str)


def test_too_large() -> None:
    """A worker could be kept busy, or filled, by one order."""
    with pytest.raises(ProtocolError, match="too large"):
        control.read_order(b" " * (control.LARGEST + 1))
