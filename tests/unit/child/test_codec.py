"""Values ⇄ bytes, against the JSON of a real Celery client (`kombu.utils.json`)."""

import bz2
import datetime as dt
import gzip
import lzma
import math
import pickle
import uuid
import zlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._ipc.codec import CONTENT_TYPES, JSON, PICKLE, decode, decode_as, encode
from tests import celery_json as kombu
from tests.strategies import SPECIAL, values


@given(value=values)
def test_round_trip(value: object) -> None:
    """An argument would arrive as something else."""
    assert decode(encode(value)) == value


@given(value=values)
def test_we_read_what_celery_writes(value: object) -> None:
    """A message of a Celery client would be refused, or its arguments changed."""
    assert decode(kombu.dumps(value)) == value


@given(value=values)
def test_celery_reads_what_we_write(value: object) -> None:
    """A Celery client could not read our results, or would get other values."""
    assert kombu.loads(encode(value)) == value


@pytest.mark.parametrize("value", SPECIAL, ids=lambda value: type(value).__name__)
def test_each_type_stays_itself(value: object) -> None:
    """A date would come back as a datetime, or bytes as text."""
    for back in (decode(encode(value)), decode(kombu.dumps(value)), kombu.loads(encode(value))):
        assert (type(back), back) == (type(value), value)


@pytest.mark.parametrize(
    "value",
    [
        uuid.UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"),  # version 7
        uuid.UUID("1ec9414c-232a-6b00-b3c8-9f6bdeced846"),  # version 6
        uuid.UUID(int=0),
        uuid.UUID(int=2**128 - 1),
    ],
)
def test_celery_reads_uuids_of_any_version(value: uuid.UUID) -> None:
    """A Celery client on a Python that does not know the version could not read the result at all."""
    assert kombu.loads(encode(value)) == value
    assert decode(kombu.dumps(value)) == value


def test_nested_special_values() -> None:
    """A special type inside a list, a mapping or a tuple would be forgotten."""
    value = {"list": [*SPECIAL], "deep": [{"deeper": {"at": SPECIAL[0]}}]}
    assert decode(encode(value)) == kombu.loads(kombu.dumps(value)) == value


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinity(value: float) -> None:
    """A result of infinity would be refused though Celery's clients send and read it."""
    assert decode(encode(value)) == kombu.loads(encode(value)) == decode(kombu.dumps(value)) == value


def test_nan() -> None:
    """A result of NaN would be refused though Celery's clients send and read it."""
    assert all(math.isnan(back) for back in (decode(encode(math.nan)), kombu.loads(encode(math.nan)), decode("NaN")))


@pytest.mark.parametrize("value", [2**63, -(2**64), 10**4000, Decimal("1e-400"), Decimal("NaN")])
def test_numbers_of_any_size(value: object) -> None:
    """A big number would lose digits, or be refused."""
    assert repr(decode(encode(value))) == repr(kombu.loads(encode(value))) == repr(value)


@pytest.mark.parametrize("text", ["ä€😀", "\x00", "\udc80", '"\\'])
def test_any_text(text: str) -> None:
    """Text outside of ASCII, or a file name that is no UTF-8, would be refused or changed."""
    assert decode(encode(text)) == decode(kombu.dumps(text)) == text


def test_tuples_become_lists() -> None:
    """A tuple would be refused; JSON has only one kind of list."""
    assert decode(encode((1, (2, 3)))) == [1, [2, 3]]


@given(naive=st.datetimes())
def test_zones_are_not_invented(naive: dt.datetime) -> None:
    """A time without a zone would get one on the way."""
    assert decode(encode(naive)).tzinfo is None


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, print, [object()], {"a": {2}}])
def test_what_has_no_form(value: object) -> None:
    """The caller would not learn which type it is that cannot be sent."""
    with pytest.raises(TypeError, match="has no JSON form"):
        encode(value)


def test_own_form() -> None:
    """A type with `__json__`, as kombu knows it, could not be sent."""

    class Money:
        def __json__(self) -> object:
            return {"amount": Decimal(5)}

    assert decode(encode([Money()])) == [{"amount": Decimal(5)}]


def test_a_value_within_itself() -> None:
    """It would be encoded until the memory is full."""
    value: list[object] = []
    value.append(value)
    with pytest.raises(ValueError, match="Circular"):
        encode(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        '"text"'.encode("utf-16"),
        b"[1,]",
        b"1 2",
        b'{"__type__": "datetime", "__value__": 5}',
        b'{"__type__": "datetime", "__value__": "yesterday"}',
        b'{"__type__": "time", "__value__": null}',
        b'{"__type__": "uuid", "__value__": "x"}',
        b'{"__type__": "uuid", "__value__": {}}',
        b'{"__type__": "uuid", "__value__": {"hex": "x"}}',
        b'{"__type__": "decimal", "__value__": "x"}',
        b'{"__type__": "decimal", "__value__": []}',
        b'{"__type__": "bytes", "__value__": "\\ud800"}',
        b'{"__type__": "base64", "__value__": "x"}',
        b'{"__type__": "base64", "__value__": "\\u00e4"}',
        b'{"__type__": "os.system", "__value__": "x"}',
        b'{"__type__": ["x"], "__value__": "x"}',
        b'{"__type__": null, "__value__": "x"}',
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"1" * 5_000,
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_cannot_be_decoded(data: bytes) -> None:
    """A bad body would end the child in place of the call."""
    with pytest.raises(ValueError, match=r"."):
        decode(data)


@given(data=st.binary(max_size=40))
def test_noise(data: bytes) -> None:
    """Some garbage would raise what nobody catches."""
    try:
        decode(data)
    except ValueError:
        return


def test_too_deep_to_encode() -> None:
    """A deep value would raise what nobody catches: encode promises TypeError and ValueError."""
    value: list[object] = []
    for _ in range(200_000):
        value = [value]
    try:
        with pytest.raises(ValueError, match=r"."):
            encode(value)
    finally:
        # one by one, as the interpreter's own clearing away is recursive too
        while value:
            value = value.pop()  # type: ignore[assignment]  # each holds the next


@pytest.mark.parametrize("more", [{"__type__": "date"}, {"__value__": 1}, {"__type__": "x", "__value__": 1, "y": 2}])
def test_mappings_that_look_alike(more: dict[str, object]) -> None:
    """A user's mapping with one of the keys would be taken for a special value."""
    assert decode(encode(more)) == more


def test_by_content_type() -> None:
    """The names in accept_content would not mean what Celery means by them."""
    assert CONTENT_TYPES == {"json": JSON, "pickle": PICKLE}
    assert decode_as(JSON, b"[1]") == [1]
    assert decode_as(PICKLE, pickle.dumps([{1, 2}])) == [{1, 2}]


@pytest.mark.parametrize(
    ("content_type", "data"), [(PICKLE, b"nonsense"), (PICKLE, b""), ("application/x-yaml", b"[]"), ("", b"[]")]
)
def test_undecodable_by_content_type(content_type: str, data: bytes) -> None:
    """A broken pickle or an unknown type would end the child in place of the call."""
    with pytest.raises(ValueError, match=r"."):
        decode_as(content_type, data)


# ---- bodies that say how they are to be read -------------------------------------------------------------------------

MANY = 2**20


@pytest.mark.parametrize(
    ("told", "data"),
    [
        ("application/json;limit=99", b'[["\xc3\xbc"]]'),
        ("application/json;charset=utf-16;limit=99", '[["ü"]]'.encode("utf-16")),
        ("application/json;compression=gzip;limit=99", zlib.compress('[["ü"]]'.encode())),
        ("application/json;compression=gzip;limit=99", gzip.compress('[["ü"]]'.encode(), mtime=0)),
        ("application/json;compression=bz2;limit=99", bz2.compress('[["ü"]]'.encode())),
        ("application/json;compression=lzma;limit=99", lzma.compress('[["ü"]]'.encode())),
        ("application/x-python-serialize;compression=gzip;limit=99", zlib.compress(pickle.dumps([["ü"]]))),
    ],
)
def test_compressed_and_in_other_characters(told: str, data: bytes) -> None:
    """A body is opened as its parameters say."""
    assert decode_as(told, data) == [["ü"]]


@pytest.mark.parametrize(
    ("told", "data", "why"),
    [
        ("compression=gzip", zlib.compress(b"0" * MANY * 10), "over worker_max_message_size"),
        ("compression=bz2", bz2.compress(b"0" * MANY * 10), "over worker_max_message_size"),
        ("compression=lzma", lzma.compress(b"0" * MANY * 10), "over worker_max_message_size"),
        ("compression=gzip", b"[]", "not compressed with gzip"),
        ("compression=bz2", b"[]", "not compressed with bz2"),
        ("compression=lzma", b"[]" * 20, "not compressed with lzma"),
        ("compression=gzip", zlib.compress(b"[[],{},{}]")[:-6], "ends too soon"),
        ("charset=utf-16", b"\xff", "truncated data"),
    ],
)
def test_bodies_that_are_not_what_they_say(told: str, data: bytes, why: str) -> None:
    """A body that is not compressed as it says, or is more than a message may be, is refused with that reason."""
    with pytest.raises(ValueError, match=why):
        decode_as(f"application/json;{told};limit={MANY}", data)


@pytest.mark.parametrize("data", [b"[" + b"[]," * (MANY // 4) + b"0]", b"[" + b"{}," * (MANY // 4) + b"0]"])
def test_json_that_would_take_many_times_more(data: bytes) -> None:
    """JSON of empty lists, each of which takes 24 times its bytes, is refused before it is decoded."""
    limit = len(data)
    with pytest.raises(ValueError, match=r"lists and \d+ objects would take more memory than 16 times"):
        decode_as(f"application/json;limit={limit}", data)
    assert decode_as(f"application/json;limit={64 * limit}", data)


def test_large_tables_are_no_bloat() -> None:
    """A large body of rows, as tasks have them, is decoded."""
    data = encode([{"id": number, "name": f"row {number}"} for number in range(40_000)])
    assert len(decode_as(f"application/json;limit={len(data)}", data)) == 40_000
