"""The frame filter: which frames it takes out of a connection's bytes, and which it passes to the library."""

import asyncio
from itertools import pairwise
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from hybridpool._brokers.rabbitmq.amqp import codec
from hybridpool._brokers.rabbitmq.amqp.codec import DELIVER, RETURN, read_deliver, read_properties, read_return
from hybridpool._brokers.rabbitmq.amqp.frame_filter import ChannelReceiver, FrameFilter
from hybridpool._message import Outgoing

#: the channel that is listened to, and one that is the library's
OURS, THEIRS = 3, 4
HEADERS = {"task": "shop.add", "id": "id-1", "retries": 0, "timelimit": [None, 3], "stamps": {}}
LARGEST = 4096


def marshal(channel: int, *sent: Any) -> bytes:
    """Write frames as the client library does."""
    return b"".join(pamqp.frame.marshal(frame, channel) for frame in sent)


def message(tag: int, body: bytes, channel: int = OURS) -> bytes:
    """Write a delivery as a broker does, in frames of 10 bytes."""
    properties = commands.Basic.Properties(
        content_type="application/json",
        content_encoding="utf-8",
        headers=HEADERS,  # type: ignore[arg-type]
        delivery_mode=2,
        priority=4,
        correlation_id="id-1",
        reply_to="answers",
        expiration="1000",
        message_id="7",
        app_id="app",
    )
    return marshal(
        channel,
        commands.Basic.Deliver("ctag", tag, tag % 2 == 1, "", "celery"),
        ContentHeader(0, len(body), properties),
        *(ContentBody(body[start : start + 10]) for start in range(0, len(body), 10)),
    )


class Heard:
    """What a receiver took, in order."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.receiver = ChannelReceiver(self.message, self.confirmed)

    def message(self, method: bytes, said: bytes, properties: bytes, body: bytes) -> None:
        """Note a message."""
        if method == DELIVER:
            self.said.append((read_deliver(said), read_properties(properties), body))
        else:
            assert method == RETURN
            self.said.append(("returned", read_return(said), read_properties(properties).message_id))

    def confirmed(self, tag: int, multiple: bool, is_taken: bool) -> None:
        """Note a confirmation."""
        self.said.append((tag, multiple, is_taken))


def pour(data: bytes, cuts: list[int]) -> tuple[list[tuple[Any, ...]], bytes]:
    """Send bytes through a filter, in pieces; return the frames taken out, and the bytes passed to the library."""
    loop = asyncio.new_event_loop()
    try:
        frames, heard = FrameFilter(loop), Heard()
        frames.watch(OURS, heard.receiver)
        edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        for start, stop in pairwise(edges):
            if start < stop:
                frames.data_received(data[start:stop])
        frames.stream.feed_eof()
        return heard.said, loop.run_until_complete(frames.stream.read())
    finally:
        loop.close()


CUTS = st.lists(st.integers(0, 10_000), max_size=20)


@given(CUTS, st.lists(st.binary(max_size=35), min_size=1, max_size=4))
def test_messages_are_taken_out(cuts: list[int], bodies: list[bytes]) -> None:
    """Messages are taken out of the stream whole, wherever the network cuts it, and other frames are passed on."""
    theirs = marshal(THEIRS, commands.Queue.DeclareOk("q", 1, 0))
    alive = marshal(0, Heartbeat())
    strange = message(9, b"not ours", THEIRS)
    data = b"".join(theirs + message(tag, body) + alive for tag, body in enumerate(bodies, 1)) + strange
    heard, passed = pour(data, cuts)
    assert [(said.tag, said.redelivered, said.consumer, said.routing_key) for said, _, _ in heard] == [
        (tag, tag % 2 == 1, "ctag", "celery") for tag in range(1, len(bodies) + 1)
    ]
    assert [body for _, _, body in heard] == bodies
    for _, found, _ in heard:
        assert found == ("application/json", "utf-8", HEADERS, 4, "id-1", "answers", "7")
    # heartbeats may be added: signs of life
    assert passed.replace(alive, b"") == (theirs * len(bodies) + strange).replace(alive, b"")


@given(CUTS)
def test_confirmations_and_returns(cuts: list[int]) -> None:
    """Confirmations and returned messages are taken out of the stream."""
    back = marshal(
        OURS,
        commands.Basic.Return(312, "NO_ROUTE", "", "nowhere"),
        ContentHeader(0, 2, commands.Basic.Properties(message_id="5")),
        ContentBody(b"ab"),
    )
    data = marshal(OURS, commands.Basic.Ack(4, True)) + back + marshal(OURS, commands.Basic.Nack(6, False))
    heard, passed = pour(data, cuts)
    assert heard == [(4, True, True), ("returned", "NO_ROUTE", "5"), (6, False, False)]
    assert passed.replace(codec.ALIVE, b"") == b""


@given(
    CUTS,
    st.sampled_from([b"AMQP\x00\x00\x09\x01", b"\x01\x00\x03\x00\x00\x00\x01ab, no frame at all", b"HTTP/1.1 400 "]),
)
def test_no_amqp(cuts: list[int], data: bytes) -> None:
    """A stream that is not AMQP is passed on."""
    _, passed = pour(data, [cut for cut in cuts if cut % (len(data) + 1) >= 8])
    assert data.startswith(passed)
    assert passed == data or not data.startswith(b"AMQP")


def test_a_frame_without_its_end() -> None:
    """After a frame without its end octet everything is passed on."""
    broken = marshal(OURS, commands.Basic.Ack(4, True))[:-1] + b"\x00"
    rest = marshal(OURS, commands.Basic.Ack(5, True))
    assert pour(broken + rest, []) == ([], broken + rest)


@given(
    st.binary(max_size=3 * LARGEST),
    st.sampled_from([None, 0, 9]),
    st.sampled_from([None, "a"]),
    st.booleans(),
    st.booleans(),
)
def test_published_as_the_library_would(
    body: bytes, priority: int | None, reply_to: str | None, mandatory: bool, persistent: bool
) -> None:
    """A published message is decoded by the library as it was meant."""
    outgoing = Outgoing(
        body=body,
        routing_key="celery",
        headers=HEADERS,
        correlation_id="id-1",
        reply_to=reply_to,
        priority=priority,
        expiration=60_000,
        mandatory=mandatory,
        persistent=persistent,
    )
    data = codec.write_publish(OURS, outgoing, "exchange", "key", message_id="7", max_frame_bytes=LARGEST)
    found: list[Any] = []
    while data:
        used, channel, frame = pamqp.frame.unmarshal(data)
        assert (channel, used <= LARGEST) == (OURS, True)
        found.append(frame)
        data = data[used:]
    publish, header, *parts = found
    assert (publish.exchange, publish.routing_key, publish.mandatory) == ("exchange", "key", mandatory)
    assert b"".join(part.value for part in parts) == body
    assert header.body_size == len(body)
    told = header.properties
    assert (told.content_type, told.content_encoding, told.headers) == ("application/json", "utf-8", HEADERS)
    assert (told.delivery_mode, told.priority, told.correlation_id) == (2 if persistent else 1, priority, "id-1")
    assert (told.reply_to, told.expiration, told.message_id) == (reply_to, "60000", "7")


@pytest.mark.parametrize("wrong", ["routing key", "headers"])
def test_too_long(wrong: str) -> None:
    """A routing key or headers that do not fit into a frame are refused before they are sent."""
    outgoing = Outgoing(body=b"", routing_key="q", headers={"h": "x" * (LARGEST if wrong == "headers" else 1)})
    with pytest.raises(ValueError, match=r"longer than 255|do not fit"):
        codec.write_publish(
            1, outgoing, "", "k" * (256 if wrong == "routing key" else 1), message_id=None, max_frame_bytes=LARGEST
        )


@given(CUTS)
def test_reasons_that_are_cut_off(cuts: list[int]) -> None:
    """A reason that the broker cut off within a character is read."""
    said = b"NOT_FOUND - no queue '" + "ü".encode() * 150
    close = marshal(THEIRS, commands.Channel.Close(404, "x" * 255, 50, 10))
    theirs = marshal(THEIRS, commands.Queue.DeclareOk("q", 1, 0))
    _, passed = pour(theirs + close.replace(b"x" * 255, said[:255]) + theirs, cuts)
    found: list[Any] = []
    while passed:
        used, _, frame = pamqp.frame.unmarshal(passed)
        if not isinstance(frame, Heartbeat):
            found.append(frame)
        passed = passed[used:]
    assert [frame.name for frame in found] == ["Queue.DeclareOk", "Channel.Close", "Queue.DeclareOk"]
    assert found[1].reply_text.startswith("NOT_FOUND - no queue '?")
    assert (found[1].class_id, found[1].method_id) == (50, 10)
