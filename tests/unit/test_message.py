"""Messages on their way from a child to its parent."""

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._message import Outgoing, pack, unpack
from hybridpool.errors import ProtocolError
from tests.strategies import names

words = st.none() | st.text(max_size=8)
tables = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | words
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
messages = st.builds(
    Outgoing,
    body=st.binary(max_size=100),
    routing_key=names,
    exchange=st.text(max_size=5),
    headers=st.dictionaries(st.text(max_size=5), tables, max_size=4),
    content_type=st.text(max_size=8),
    content_encoding=st.text(max_size=8),
    correlation_id=words,
    reply_to=words,
    persistent=st.booleans(),
    priority=st.none() | st.integers(0, 255),
    expiration=st.none() | st.integers(0, 2**40),
    mandatory=st.booleans(),
)


@given(message=messages)
def test_round_trip(message: Outgoing) -> None:
    """A message is unpacked as it was packed."""
    assert unpack(pack(message)) == message


def test_a_large_body() -> None:
    """A message with a body of megabytes is unpacked as it was packed."""
    message = Outgoing(body=b"x" * 5_000_000, routing_key="celery")
    assert unpack(pack(message)) == message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"text",
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode(None),
        msgspec.msgpack.encode({}),
        msgspec.msgpack.encode({"body": b""}),
        msgspec.msgpack.encode({1: 2}),
    ],
)
def test_something_else(data: bytes) -> None:
    """Bytes that are not a message raise ProtocolError."""
    with pytest.raises(ProtocolError, match="not a message to publish"):
        unpack(data)


def test_messages_are_values() -> None:
    """A message is a frozen value."""
    message = Outgoing(body=b"", routing_key="q")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        message.body = b"other"  # type: ignore[misc]  # that is the point
