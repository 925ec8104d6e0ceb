"""Messages that are written again: byte for byte what their senders wrote, whatever AMQP lets that be."""

import struct
from collections.abc import Mapping

import attrs
import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.header import ContentHeader

from hybridpool._brokers.rabbitmq.amqp.codec import (
    EXPIRATION,
    LEFT_OUT,
    RETURN_TAG,
    USER,
    read_deliver,
    read_properties,
    read_return_tag,
    split_properties,
    write_head,
)
from hybridpool._brokers.rabbitmq.amqp.table import entries, write_entry
from hybridpool._message import Delivery, Outgoing
from hybridpool._outcome import Lost
from hybridpool._protocol import dead_letter
from hybridpool._protocol.task_headers import LOST_BEFORE
from tests.strategies import NOON

LARGEST = 131_072
#: class, weight, size of the body, flags: what stands before the properties in a header frame
BEFORE = 12
LOST = Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1", exitcode=-9)


def short(raw: bytes) -> bytes:
    """Write a short string."""
    return bytes((len(raw),)) + raw


def sized(kind: bytes, raw: bytes) -> bytes:
    """Write a field that begins with its length."""
    return kind + struct.pack(">I", len(raw)) + raw


shorts = st.binary(max_size=255).map(short)
names = st.binary(max_size=40)
#: fields of every type that RabbitMQ reads, with any bytes in them
plain = st.one_of(
    st.just(b"V"),
    *(
        st.binary(min_size=size, max_size=size).map(kind.__add__)
        for kind, size in {b"t": 1, b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"I": 4, b"i": 4, b"l": 8, b"L": 8}.items()
    ),
    *(
        st.binary(min_size=size, max_size=size).map(kind.__add__)
        for kind, size in {b"f": 4, b"d": 8, b"T": 8, b"D": 5}.items()
    ),
    *(st.binary(max_size=60).map(lambda raw, kind=kind: sized(kind, raw)) for kind in (b"S", b"x")),  # type: ignore[misc]
)
fields: st.SearchStrategy[bytes] = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: sized(b"A", b"".join(found)))
        | st.lists(st.tuples(names, inner), max_size=3).map(
            lambda found: sized(b"F", b"".join(short(name) + field for name, field in found))
        )
    ),
    max_leaves=6,
)
tables = st.dictionaries(names, fields, max_size=6)
#: by bit, all but the headers: what a sender may set
others = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys((15, 14, 10, 9, 7, 5, 3, 2), shorts),
        8: st.integers(0, 10**9).map(lambda ms: short(str(ms).encode())),
        4: shorts,
        12: st.sampled_from([b"\1", b"\2"]),
        11: st.binary(min_size=1, max_size=1),
        6: st.binary(min_size=8, max_size=8),
    },
)


def properties(headers: Mapping[bytes, bytes], rest: Mapping[int, bytes] | None = None) -> bytes:
    """Write properties."""
    found = {**(rest or {}), 13: struct.pack(">I", sum(len(n) + 1 + len(f) for n, f in headers.items()))}
    found[13] += b"".join(short(name) + field for name, field in headers.items())
    flags = sum(1 << bit for bit in found)
    return struct.pack(">H", flags) + b"".join(found[bit] for bit in sorted(found, reverse=True))


def delivered(raw: bytes, body: bytes = b"[]") -> Delivery:
    """Return a delivery with these properties."""
    found = read_properties(raw)
    return Delivery(
        queue="celery",
        tag=1,
        channel=1,
        redelivered=False,
        headers=found.headers,
        content_type=found.content_type,
        content_encoding=found.content_encoding,
        correlation_id=found.correlation_id,
        reply_to=found.reply_to,
        priority=found.priority,
        exchange="",
        routing_key="celery",
        body=body,
        properties=raw,
    )


def again(message: Outgoing, max_frame_bytes: int = LARGEST) -> bytes:
    """Return the properties that are written for it."""
    _, header = write_head(message, "", message.routing_key, message_id="9", max_frame_bytes=max_frame_bytes)
    assert len(header) + 8 <= max_frame_bytes
    return header[BEFORE:]


def headers_of(raw: bytes) -> dict[str, bytes]:
    """Return the headers as bytes."""
    return dict(entries(split_properties(raw)[1 << 13], 0))


@given(tables, others)
def test_what_a_sender_wrote_goes_on_byte_for_byte(headers: dict[bytes, bytes], rest: dict[int, bytes]) -> None:
    """Every header and property of a sender goes on byte for byte in copies, retries, delays and dead letters."""
    came = delivered(properties(headers, rest))
    ours = {b"CC", b"BCC", b"retries", b"eta", b"expires", LOST_BEFORE.encode()}
    for message in (
        dead_letter.write_redelivery(came, 1, LOST, "w@h", NOON),
        dead_letter.write_retry(came, 1, 5.0, NOON, None),
        dead_letter.write_delayed(came, 5.0),
        dead_letter.copy_message(came, "other"),
        dead_letter.write_dead_letter(came, "why", "w@h", NOON, LOST, 3),
    ):
        raw = again(message)
        found, told = split_properties(raw), headers_of(raw)
        for name, field in headers.items():
            if name not in ours and not name.startswith(b"x-"):
                assert told[name.decode(errors="surrogateescape")] == field
        for bit, value in rest.items():
            if bit not in (12, 8, 4):
                assert found[1 << bit] == value
        assert found[1 << 12] == b"\2"
        assert found.keys() <= {1 << bit for bit in {*rest, 7, 12, 13}}


@given(tables, others, st.integers(1, 5))
def test_it_does_not_grow(headers: dict[bytes, bytes], rest: dict[int, bytes], times: int) -> None:
    """A message that goes round many times does not grow."""
    came = delivered(properties(headers, rest))
    sizes = set()
    for _ in range(times):
        raw = again(dead_letter.write_redelivery(came, 1))
        sizes.add(len(raw))
        came = delivered(raw)
    # the first time it may be given a message id
    assert len(sizes) <= 2
    assert max(sizes) - min(sizes) <= len(RETURN_TAG) + 10


def test_what_the_broker_would_refuse_becomes_a_header() -> None:
    """Properties that the broker would refuse or act on are kept as headers."""
    raw = again(
        dead_letter.write_dead_letter(
            delivered(properties({}, {4: short(b"someone"), 8: short(b"60000")})), "", "w", NOON
        )
    )
    assert {1 << 4, 1 << 8}.isdisjoint(split_properties(raw))
    assert (headers_of(raw)[USER], headers_of(raw)[EXPIRATION]) == (sized(b"S", b"someone"), sized(b"S", b"60000"))
    assert headers_of(again(dead_letter.write_redelivery(delivered(raw), 1)))[USER] == sized(b"S", b"someone")


def test_a_senders_message_id_is_kept() -> None:
    """A sender's message ID is kept, and a returned copy is known by a header of its own."""
    raw = again(dead_letter.write_redelivery(delivered(properties({}, {7: short(b"\xffmine")})), 1))
    assert split_properties(raw)[1 << 7] == short(b"\xffmine")
    assert read_return_tag(raw) == 9
    assert RETURN_TAG not in dead_letter.copy_message(delivered(raw), "other").headers


@pytest.mark.parametrize("raw", [b"", b"\x20", b"\x20\x00\xff\xff\xff\xff", b"\x00\x80\x03a", b"\x00\x80\x03abc"])
def test_a_message_that_comes_back_without_a_tag(raw: bytes) -> None:
    """A returned message without a readable tag is tag 0."""
    assert read_return_tag(raw) == 0


@given(
    st.dictionaries(st.binary(min_size=1, max_size=3), st.integers(0, 131_000), max_size=12),
    st.integers(0, 400),
    st.sampled_from([4096, 8192, LARGEST]),
)
def test_a_dead_letter_fits_into_a_frame(sizes: dict[bytes, int], small: int, max_frame_bytes: int) -> None:
    """A dead letter fits into a frame whatever the size of its headers, and says what it is and why."""
    headers = {b"task": sized(b"S", b"shop.add"), b"id": sized(b"S", b"id-1")}
    headers |= {b"%d" % number: sized(b"S", b"x" * 30) for number in range(small)}
    headers |= {b"_" + name: sized(b"S", b"y" * size) for name, size in sizes.items()}
    letter = dead_letter.write_dead_letter(delivered(properties(headers)), "r" * 2000, "w@h", NOON, LOST, 3)
    told = headers_of(again(letter, max_frame_bytes))
    assert (told["task"], told["id"]) == (headers[b"task"], headers[b"id"])
    assert told[dead_letter.REASON].startswith(b"S")
    if sum(map(len, headers.values())) + sum(map(len, headers)) + len(headers) + 5000 < max_frame_bytes:
        assert LEFT_OUT not in told
        assert {name.encode(errors="surrogateescape"): field for name, field in told.items()}.items() >= headers.items()


def test_near_the_frames_limit_our_own_words_go_first() -> None:
    """A sender's headers that just fit are kept whole, and the reason of the dead letter is shortened."""
    for size in range(127_800, 130_200, 150):
        headers = {b"task": sized(b"S", b"shop.add"), b"id": sized(b"S", b"id-1"), b"x": sized(b"S", b"y" * size)}
        letter = dead_letter.write_dead_letter(delivered(properties(headers)), "r" * 2000, "w@h", NOON, LOST, 3)
        assert headers_of(again(letter))["x"] == headers[b"x"]


def test_what_is_run_again_is_what_came() -> None:
    """A message is never published again with another ID; if its ID does not fit, that is an error."""
    headers = {b"task": sized(b"S", b"shop.add"), b"id": sized(b"S", b"i" * 130_980)}
    came = delivered(properties(headers))
    with pytest.raises(ValueError, match="do not fit"):
        again(dead_letter.write_retry(came, 1, 5.0, NOON, None))
    short_of = {b"argsrepr": sized(b"S", b"a" * 130_950), **headers, b"id": sized(b"S", b"i")}
    told = headers_of(again(dead_letter.write_retry(delivered(properties(short_of)), 1, 5.0, NOON, None)))
    assert told["id"] == short_of[b"id"]
    assert len(told["argsrepr"]) < 300


def test_other_arguments_have_their_own_type() -> None:
    """New arguments of a retry have their own content type and encoding."""
    came = delivered(properties({}, {15: short(b"application/x-python-serialize"), 14: short(b"binary")}))
    found = split_properties(again(dead_letter.write_retry(came, 1, 0.0, NOON, b"[[],{},{}]")))
    assert (found[1 << 15], found[1 << 14]) == (short(b"application/json"), short(b"utf-8"))


@given(st.binary(max_size=255), st.binary(max_size=255), st.binary(max_size=255), st.integers(0, 2**64 - 1))
def test_names_of_any_bytes(consumer: bytes, exchange: bytes, key: bytes, tag: int) -> None:
    """Consumer tag, exchange and routing key may be any bytes."""
    said = short(consumer) + struct.pack(">QB", tag, 1) + short(exchange) + short(key)
    found = read_deliver(said)
    assert found.tag == tag
    for text, raw in ((found.consumer, consumer), (found.exchange, exchange), (found.routing_key, key)):
        assert text.encode(errors="surrogateescape") == raw


@given(others)
def test_properties_of_any_bytes(rest: dict[int, bytes]) -> None:
    """Properties may be any bytes, and an answer goes to exactly the queue that was named."""
    found = read_properties(properties({}, rest))
    if 9 in rest:
        assert found.reply_to is not None
        method, _ = write_head(
            Outgoing(body=b"", routing_key=found.reply_to, correlation_id=found.correlation_id),
            "",
            found.reply_to,
            message_id=None,
            max_frame_bytes=LARGEST,
        )
        assert rest[9] in method


def test_as_the_library_reads_it() -> None:
    """A message that is written again is read by the library."""
    came = delivered(properties({b"task": sized(b"S", b"shop.add")}, {15: short(b"application/json")}))
    method, header = write_head(
        dead_letter.write_delayed(came, 0), "", "celery", message_id="9", max_frame_bytes=LARGEST
    )
    data = struct.pack(">BHI", 2, 1, len(header)) + header + b"\xce"
    _, _, frame = pamqp.frame.unmarshal(data)
    assert method
    assert isinstance(frame, ContentHeader)
    assert frame.properties.headers == {"task": "shop.add", "x-hybridpool-postponed": True}
    assert frame.properties.content_type == "application/json"


def test_properties_that_cannot_be_told_apart() -> None:
    """A message whose properties are not AMQP is written with what is known of it."""
    came = attrs.evolve(delivered(properties({})), properties=b"\xff")
    assert (
        headers_of(again(dead_letter.write_dead_letter(came, "why", "w", NOON)))[dead_letter.REASON]
        == write_entry("", "why")[1:]
    )
