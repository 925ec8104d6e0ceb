"""The few AMQP 0-9-1 frames that are read and written for every message; all others are the client library's.

A frame: type, channel, size, payload, 0xCE. A message: a method frame (`basic.deliver`, `basic.publish`), a frame with
its size and properties, and frames with its body.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from hybridpool.brokers.rabbitmq.table import BadTable, read_table, write_table
from hybridpool.message import Outgoing
from hybridpool.policy.ledger import Answer, WireAnswer

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END: Final = 0xCE
#: class 60 is basic
DELIVER, RETURN, ACK, NACK = (struct.pack(">HH", 60, method) for method in (60, 50, 80, 120))
#: `channel.close`
CLOSE: Final = struct.pack(">HH", 20, 40)
#: of each frame: type, channel, size of the payload
HEAD = struct.Struct(">BHI")
#: bytes around a payload
AROUND: Final = HEAD.size + 1
ALIVE: Final = HEAD.pack(HEARTBEAT, 0, 0) + bytes((END,))

_ANSWER = struct.Struct(">BHIHHQBB")
_PUBLISH = struct.Struct(">HHH")
_HEADER = struct.Struct(">HHQH")
_TAG = struct.Struct(">Q")
_MULTIPLE, _REQUEUE = 1, 2
_MANDATORY: Final = 1
TRANSIENT, PERSISTENT = 1, 2

#: properties in their order, from bit 15 of the flags down (AMQP 0-9-1, class basic)
_CONTENT_TYPE, _ENCODING, _HEADERS, _MODE, _PRIORITY, _CORRELATION, _REPLY_TO, _EXPIRATION, _ID = (
    1 << bit for bit in range(15, 6, -1)
)


class Delivered(NamedTuple):
    """What `basic.deliver` says."""

    consumer: str
    tag: int
    redelivered: bool
    exchange: str
    routing_key: str


class Properties(NamedTuple):
    """Of a message that came: what we look at."""

    content_type: str | None
    content_encoding: str | None
    headers: Mapping[str, object]
    priority: int | None
    correlation_id: str | None
    reply_to: str | None
    message_id: str | None


def read_deliver(payload: bytes) -> Delivered:
    """Read `basic.deliver`, after class and method."""
    at = 1 + payload[0]
    tag = int.from_bytes(payload[at : at + 8])
    exchange_at = at + 9
    key_at = exchange_at + 1 + payload[exchange_at]
    return Delivered(
        payload[1:at].decode(),
        tag,
        payload[at + 8] & 1 == 1,
        payload[exchange_at + 1 : key_at].decode(),
        payload[key_at + 1 :].decode(),
    )


def read_return(payload: bytes) -> str:
    """Read why a message came back, of `basic.return`."""
    return payload[3 : 3 + payload[2]].decode(errors="replace")


def read_confirm(payload: bytes) -> tuple[int, bool]:
    """Read the tag of `basic.ack` or `basic.nack`, and whether all before it are meant too."""
    return _TAG.unpack_from(payload)[0], payload[8] & _MULTIPLE == _MULTIPLE


def read_properties(payload: bytes) -> Properties:
    """Read a message's properties: flags, and the value of each one that is there.

    :raises BadTable: if they cannot be read.
    """
    try:
        return _properties(payload, payload[0] << 8 | payload[1])
    except (IndexError, UnicodeDecodeError) as error:
        raise BadTable(f"the properties cannot be read: {error}") from error


def _properties(payload: bytes, flags: int) -> Properties:
    at = 2
    content_type = encoding = correlation_id = reply_to = message_id = priority = None
    headers: Mapping[str, object] = {}
    if flags & _CONTENT_TYPE:
        content_type, at = _short(payload, at)
    if flags & _ENCODING:
        encoding, at = _short(payload, at)
    if flags & _HEADERS:
        headers, at = read_table(payload, at)
    if flags & _MODE:
        at += 1
    if flags & _PRIORITY:
        priority, at = payload[at], at + 1
    if flags & _CORRELATION:
        correlation_id, at = _short(payload, at)
    if flags & _REPLY_TO:
        reply_to, at = _short(payload, at)
    if flags & _EXPIRATION:
        at += 1 + payload[at]
    if flags & _ID:
        message_id, at = _short(payload, at)
    return Properties(content_type, encoding, headers, priority, correlation_id, reply_to, message_id)


def _short(data: bytes, at: int) -> tuple[str, int]:
    stop = at + 1 + data[at]
    return data[at + 1 : stop].decode(), stop


def write_answers(channel: int, answers: Sequence[WireAnswer]) -> bytes:
    """Write acknowledgements. Children finish in any order, and then each one is a frame of its own."""
    pack = _ANSWER.pack
    return b"".join(
        pack(METHOD, channel, 13, 60, 80, tag, multiple, END)
        if kind is Answer.ACK
        else pack(METHOD, channel, 13, 60, 120, tag, multiple * _MULTIPLE | _REQUEUE, END)
        for kind, tag, multiple in answers
    )


def write_publish(
    channel: int, message: Outgoing, exchange: str, routing_key: str, *, message_id: str | None, largest: int
) -> bytes:
    """Write a message with all its frames.

    :param message_id: comes back with a message that no queue takes.
    :param largest: bytes of a frame, as agreed with the broker.
    :raises TypeError: if a header has a value that AMQP cannot carry.
    :raises ValueError: if something is too long.
    """
    flags = _MANDATORY if message.mandatory else 0
    method = _PUBLISH.pack(60, 40, 0) + _shortly(exchange) + _shortly(routing_key) + bytes((flags,))
    header = _header(message, message_id)
    if len(header) + AROUND > largest:
        raise ValueError(f"headers of {len(header)} bytes do not fit into a frame of {largest}")
    body, room = message.body, largest - AROUND
    parts = [_frame(METHOD, channel, method), _frame(HEADER, channel, header)]
    parts += [_frame(BODY, channel, body[start : start + room]) for start in range(0, len(body), room)]
    return b"".join(parts)


def _header(message: Outgoing, message_id: str | None) -> bytes:
    flags = _CONTENT_TYPE | _ENCODING | _MODE
    parts = [_shortly(message.content_type), _shortly(message.content_encoding)]
    if message.headers:
        flags |= _HEADERS
        parts.append(write_table(message.headers))
    parts.append(bytes((PERSISTENT if message.persistent else TRANSIENT,)))
    if message.priority is not None:
        flags |= _PRIORITY
        parts.append(bytes((message.priority,)))
    expiration = None if message.expiration is None else str(message.expiration)
    for bit, text in (
        (_CORRELATION, message.correlation_id),
        (_REPLY_TO, message.reply_to),
        (_EXPIRATION, expiration),
        (_ID, message_id),
    ):
        if text is not None:
            flags |= bit
            parts.append(_shortly(text))
    return _HEADER.pack(60, 0, len(message.body), flags) + b"".join(parts)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%b%b\xce" % (HEAD.pack(kind, channel, len(payload)), payload)


def _shortly(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 255:
        raise ValueError(f"{text[:40]!r}… is longer than 255 bytes")
    return len(raw).to_bytes() + raw
