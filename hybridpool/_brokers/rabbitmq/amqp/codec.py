"""The few AMQP 0-9-1 frames that are read and written for every message; all others are the client library's.

A frame: type, channel, size, payload, 0xCE. A message: a method frame (`basic.deliver`, `basic.publish`), a frame with
its size and properties, and frames with its body.

AMQP calls names and properties text, and lets them hold any bytes. What is not UTF-8 is read with `surrogateescape`,
and written as it was.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from hybridpool._brokers.rabbitmq.amqp.table import (
    BadTable,
    decode_text,
    encode_text,
    entries,
    join_entries,
    raw_entry,
    read_field,
    read_table,
    write_entry,
    write_table,
)
from hybridpool._message import Outgoing
from hybridpool._policy.ledger import AckFrame, Answer

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END: Final = 0xCE
#: class 60 is basic
DELIVER, RETURN, ACK, NACK = (struct.pack(">HH", 60, method) for method in (60, 50, 80, 120))
#: class 10 is connection
BLOCKED, UNBLOCKED = (struct.pack(">HH", 10, method) for method in (60, 61))
#: `channel.close`
CLOSE: Final = struct.pack(">HH", 20, 40)
#: both begin with a code and a text
_CLOSES: Final = (struct.pack(">HH", 10, 50), CLOSE)
#: of each frame: type, channel, size of the payload
HEAD = struct.Struct(">BHI")
#: bytes around a payload
AROUND: Final = HEAD.size + 1
ALIVE: Final = HEAD.pack(HEARTBEAT, 0, 0) + bytes((END,))

_ANSWER = struct.Struct(">BHIHHQBB")
_PUBLISH = struct.Struct(">HHH")
_HEADER = struct.Struct(">HHQH")
#: before properties with their flags
_RAW_HEADER = struct.Struct(">HHQ")
_TAG = struct.Struct(">Q")
_MULTIPLE, _REQUEUE = 1, 2
_MANDATORY: Final = 1
TRANSIENT, PERSISTENT = 1, 2

#: properties in their order, from bit 15 of the flags down (AMQP 0-9-1, class basic)
_CONTENT_TYPE, _ENCODING, _HEADERS, _MODE, _PRIORITY, _CORRELATION, _REPLY_TO, _EXPIRATION, _ID = (
    1 << bit for bit in range(15, 6, -1)
)
_TIMESTAMP, _TYPE, _USER, _APP, _CLUSTER = (1 << bit for bit in range(6, 1, -1))
#: all of them, in the order in which they are written
_IN_ORDER: Final = tuple(1 << bit for bit in range(15, 1, -1))
#: properties of a fixed size, in bytes; the headers are a table, all others are short strings
_SIZES: Final = {_MODE: 1, _PRIORITY: 1, _TIMESTAMP: 8}

#: the header by which a message is known that comes back though it had to reach a queue, when its `message_id` is a
#: sender's
RETURN_TAG: Final = "x-hybridpool-return"
#: headers that keep two properties of a message written again. RabbitMQ closes the channel of a client that writes the
#: name of another user; and what has been taken in time must not vanish from where it goes next
USER, EXPIRATION = "x-hybridpool-user", "x-hybridpool-expiration"
#: the header that counts those left out, because all together do not fit into a frame
LEFT_OUT: Final = "x-hybridpool-left-out"
#: headers without which a message cannot be identified: never shortened or left out before others
_IDENTIFYING: Final = frozenset({"task", "id"})
#: of a header that was shortened
_SHORTENED_BYTES: Final = 200


class Delivered(NamedTuple):
    """The arguments of `basic.deliver`."""

    consumer: str
    tag: int
    redelivered: bool
    exchange: str
    routing_key: str


class Properties(NamedTuple):
    """The properties of a received message that hybridpool looks at."""

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
    try:
        texts = payload[1:at].decode(), payload[exchange_at + 1 : key_at].decode(), payload[key_at + 1 :].decode()
    except UnicodeDecodeError:
        texts = (
            decode_text(payload[1:at]),
            decode_text(payload[exchange_at + 1 : key_at]),
            decode_text(payload[key_at + 1 :]),
        )
    return Delivered(texts[0], tag, payload[at + 8] & 1 == 1, texts[1], texts[2])


def read_return(payload: bytes) -> str:
    """Read the reason in `basic.return`."""
    return payload[3 : 3 + payload[2]].decode(errors="replace")


def read_blocked(payload: bytes) -> str:
    """Read the reason in `connection.blocked`, after class and method."""
    return payload[1 : 1 + payload[0]].decode(errors="replace")


def read_confirm(payload: bytes) -> tuple[int, bool]:
    """Read the tag of `basic.ack` or `basic.nack`, and whether all before it are meant too."""
    return _TAG.unpack_from(payload)[0], payload[8] & _MULTIPLE == _MULTIPLE


def readable(data: bytes, at: int, stop: int) -> bytes | None:
    """Return a frame that closes a channel or connection as the client library can read it; None: it can.

    The broker cuts its reasons off at 255 bytes, in the middle of a character if need be, and quotes names of any
    bytes; the library would end the connection for that.
    """
    begin = at + HEAD.size
    if data[begin : begin + 4] not in _CLOSES:
        return None
    text = begin + 7
    reason = data[text : text + data[text - 1]]
    try:
        reason.decode()
    except UnicodeDecodeError:
        plain = reason.decode("ascii", errors="replace").replace("\ufffd", "?").encode()
        return data[at:text] + plain + data[text + len(reason) : stop]
    return None


def read_properties(payload: bytes) -> Properties:
    """Read a message's properties: flags, and the value of each one that is there.

    :raises BadTable: if they cannot be read.
    """
    try:
        return _properties(payload, payload[0] << 8 | payload[1])
    except IndexError as error:
        raise BadTable(f"the properties cannot be read: {error}") from error


def read_headers(payload: bytes) -> Mapping[str, object]:
    """Read the headers out of properties; those that cannot be read hold none."""
    try:
        return read_properties(payload).headers
    except BadTable:
        return {}


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
    try:
        return data[at + 1 : stop].decode(), stop
    except UnicodeDecodeError:
        return decode_text(data[at + 1 : stop]), stop


def split_properties(payload: bytes) -> dict[int, bytes]:
    """Return the properties that are there as bytes, lengths included, by their flags.

    :raises BadTable: if they cannot be told apart.
    """
    try:
        flags, at = payload[0] << 8 | payload[1], 2
        found: dict[int, bytes] = {}
        for flag in _IN_ORDER:
            if flags & flag:
                size = _SIZES.get(flag)
                if size is None:
                    size = 4 + int.from_bytes(payload[at : at + 4]) if flag == _HEADERS else 1 + payload[at]
                found[flag] = payload[at : at + size]
                at += size
    except IndexError as error:
        raise BadTable(f"the properties cannot be read: {error}") from error
    if at > len(payload):
        raise BadTable("the properties are longer than what holds them")
    return found


def read_return_tag(payload: bytes) -> int:
    """Return the tag of a returned message, which `write_publish` wrote into it; 0: it has none."""
    try:
        found = read_properties(payload)
    except BadTable:
        return 0
    tag = found.headers.get(RETURN_TAG, found.message_id)
    return int(tag) if isinstance(tag, str) and tag.isascii() and tag.isdigit() else 0


def write_answers(channel: int, answers: Sequence[AckFrame]) -> bytes:
    """Write acknowledgements. Children finish in any order, and then each one is a frame of its own.

    `Answer.REJECT` is `basic.nack` without requeue, because `basic.reject` settles only one message.
    """
    pack = _ANSWER.pack
    return b"".join(
        pack(METHOD, channel, 13, 60, 80, tag, multiple, END)
        if kind is Answer.ACK
        else pack(METHOD, channel, 13, 60, 120, tag, multiple * _MULTIPLE | (kind is Answer.REQUEUE) * _REQUEUE, END)
        for kind, tag, multiple in answers
    )


def write_publish(
    channel: int, message: Outgoing, exchange: str, routing_key: str, *, message_id: str | None, max_frame_bytes: int
) -> bytes:
    """Write a message with all its frames.

    :param message_id: comes back with a message that no queue takes.
    :param max_frame_bytes: bytes of a frame, as agreed with the broker.
    :raises TypeError: if a header has a value that AMQP cannot carry.
    :raises ValueError: if something is too long.
    """
    method, header = write_head(message, exchange, routing_key, message_id=message_id, max_frame_bytes=max_frame_bytes)
    body, room = message.body, max_frame_bytes - AROUND
    parts = [_frame(METHOD, channel, method), _frame(HEADER, channel, header)]
    parts += [_frame(BODY, channel, body[start : start + room]) for start in range(0, len(body), room)]
    return b"".join(parts)


def write_head_frames(
    channel: int, message: Outgoing, exchange: str, routing_key: str, *, message_id: str | None, max_frame_bytes: int
) -> bytes:
    """Write a message's frames without its body's; see `write_publish`."""
    method, header = write_head(message, exchange, routing_key, message_id=message_id, max_frame_bytes=max_frame_bytes)
    return _frame(METHOD, channel, method) + _frame(HEADER, channel, header)


def write_body(channel: int, body: bytes, max_frame_bytes: int, portion: int) -> Iterator[bytes]:
    """Write the frames of a body, about so many bytes of it at a time."""
    room = max_frame_bytes - AROUND
    step = max(1, portion // room) * room
    for begin in range(0, len(body), step):
        end = min(begin + step, len(body))
        yield b"".join(_frame(BODY, channel, body[at : min(at + room, end)]) for at in range(begin, end, room))


def write_head(
    message: Outgoing, exchange: str, routing_key: str, *, message_id: str | None, max_frame_bytes: int
) -> tuple[bytes, bytes]:
    """Write the payloads of a message's method and header frames; see `write_publish`."""
    flags = _MANDATORY if message.mandatory else 0
    method = _PUBLISH.pack(60, 40, 0) + _shortly(exchange) + _shortly(routing_key) + bytes((flags,))
    room = max_frame_bytes - AROUND
    if message.raw:
        header = _RAW_HEADER.pack(60, 0, len(message.body)) + message.raw
    else:
        header = _rewritten(message, message_id, room) if message.original else _header(message, message_id)
    if len(header) > room:
        raise ValueError(f"headers of {len(header)} bytes do not fit into a frame of {max_frame_bytes}")
    return method, header


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


def _rewritten(message: Outgoing, message_id: str | None, room: int) -> bytes:
    """Write the header frame of a message that is published again: what is not replaced stays as its sender wrote it.

    :param room: bytes that the frame may have.
    """
    try:
        found = split_properties(message.original)
    except BadTable:
        return _header(message, message_id)
    headers = _headers_again(message, found)
    if message_id is not None and _ID in found:
        headers.append((RETURN_TAG, write_entry(RETURN_TAG, message_id)))
    elif message_id is not None:
        found[_ID] = _shortly(message_id)
    found[_MODE] = bytes((PERSISTENT if message.persistent else TRANSIENT,))
    if message.has_new_body:
        found[_CONTENT_TYPE], found[_ENCODING] = _shortly(message.content_type), _shortly(message.content_encoding)
    taken = _HEADER.size + 4 + sum(map(len, found.values()))
    found[_HEADERS] = join_entries(_fitting(headers, message, room - taken))
    properties = [found[flag] for flag in _IN_ORDER if flag in found]
    return _HEADER.pack(60, 0, len(message.body), sum(found)) + b"".join(properties)


def _headers_again(message: Outgoing, found: dict[int, bytes]) -> list[tuple[str, bytes]]:
    """Return the headers with their names, the sender's first; properties that cannot be sent again become headers."""
    try:
        came = entries(found.pop(_HEADERS, bytes(4)), 0)
    except BadTable:
        came = []
    kept, headers = message.kept, message.headers
    listed = [(name, raw_entry(name, field)) for name, field in came if name in kept and name in headers]
    there = {name for name, _ in listed}
    listed += [(name, write_entry(name, value)) for name, value in headers.items() if name not in there]
    for flag, name in ((_USER, USER), (_EXPIRATION, EXPIRATION)):
        said = found.pop(flag, None)
        if said is not None and name not in headers:
            listed.append((name, raw_entry(name, _text_of(said[1:]))))
    return listed


def _fitting(headers: list[tuple[str, bytes]], message: Outgoing, room: int) -> list[bytes]:
    """Return the headers as bytes; if they have more than so many, those that may be shortened are.

    What we wrote goes first, then what the sender wrote, the longest first; then whole headers of the sender's are left
    out, and counted. A message that does not fit into a frame could neither be dead-lettered nor published again, and
    would be redelivered for ever.
    """
    size = sum(len(entry) for _, entry in headers)
    if size <= room:
        return [entry for _, entry in headers]
    listed = list(headers)
    # a count of what is left out has room in any case
    room -= len(write_entry(LEFT_OUT, len(listed)))
    order = [at for at, (name, _) in enumerate(listed) if name in message.expendable and name != RETURN_TAG]
    order.sort(key=lambda at: (listed[at][0] in message.kept, listed[at][0] in _IDENTIFYING, -len(listed[at][1])))
    for at in order:
        name, entry = listed[at]
        if size > room and len(entry) > 2 * _SHORTENED_BYTES:
            listed[at] = name, _shortened(name, entry)
            size += len(listed[at][1]) - len(entry)
    left_out: set[int] = set()
    theirs = [at for at in order if listed[at][0] in message.kept and listed[at][0] not in _IDENTIFYING]
    for at in sorted(theirs, key=lambda at: -len(listed[at][1])):
        if size > room:
            left_out.add(at)
            size -= len(listed[at][1])
    if left_out:
        listed.append((LEFT_OUT, write_entry(LEFT_OUT, len(left_out))))
    return [entry for at, (_, entry) in enumerate(listed) if at not in left_out]


def _shortened(name: str, entry: bytes) -> bytes:
    """Write the beginning of a header's value as text."""
    field = entry[1 + entry[0] :]
    raw = field[5:] if field[:1] == b"S" else repr(read_field(field)).encode(errors="backslashreplace")
    return raw_entry(name, _text_of(raw[:_SHORTENED_BYTES].decode(errors="ignore").encode() + "…".encode()))


def _text_of(raw: bytes) -> bytes:
    return b"S" + len(raw).to_bytes(4) + raw


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%b%b\xce" % (HEAD.pack(kind, channel, len(payload)), payload)


def _shortly(text: str) -> bytes:
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raw = encode_text(text)
    if len(raw) > 255:
        raise ValueError(f"{text[:40]!r}… is longer than 255 bytes")
    return len(raw).to_bytes() + raw
