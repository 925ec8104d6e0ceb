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
    """A value is decoded as it was encoded."""
    assert decode(encode(value)) == value


@given(value=values)
def test_we_read_what_celery_writes(value: object) -> None:
    """A value that Celery encoded is decoded as it was."""
    assert decode(kombu.dumps(value)) == value


@given(value=values)
def test_celery_reads_what_we_write(value: object) -> None:
    """Celery decodes a value as we encoded it."""
    assert kombu.loads(encode(value)) == value


@pytest.mark.parametrize("value", SPECIAL, ids=lambda value: type(value).__name__)
def test_each_type_stays_itself(value: object) -> None:
    """Each special type is decoded as itself."""
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
    """Celery decodes UUIDs of any version."""
    assert kombu.loads(encode(value)) == value
    assert decode(kombu.dumps(value)) == value


def test_nested_special_values() -> None:
    """Special types inside lists and mappings are decoded as themselves."""
    value = {"list": [*SPECIAL], "deep": [{"deeper": {"at": SPECIAL[0]}}]}
    assert decode(encode(value)) == kombu.loads(kombu.dumps(value)) == value


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinity(value: float) -> None:
    """Infinity is encoded and decoded, as in Celery."""
    assert decode(encode(value)) == kombu.loads(encode(value)) == decode(kombu.dumps(value)) == value


def test_nan() -> None:
    """NaN is encoded and decoded, as in Celery."""
    assert all(math.isnan(back) for back in (decode(encode(math.nan)), kombu.loads(encode(math.nan)), decode("NaN")))


@pytest.mark.parametrize("value", [2**63, -(2**64), 10**4000, Decimal("1e-400"), Decimal("NaN")])
def test_numbers_of_any_size(value: object) -> None:
    """Numbers of any size keep all their digits."""
    assert repr(decode(encode(value))) == repr(kombu.loads(encode(value))) == repr(value)


@pytest.mark.parametrize("text", ["ä€😀", "\x00", "\udc80", '"\\'])
def test_any_text(text: str) -> None:
    """Any text, surrogates included, is decoded as it was."""
    assert decode(encode(text)) == decode(kombu.dumps(text)) == text


def test_tuples_become_lists() -> None:
    """A tuple is decoded as a list."""
    assert decode(encode((1, (2, 3)))) == [1, [2, 3]]


@given(naive=st.datetimes())
def test_zones_are_not_invented(naive: dt.datetime) -> None:
    """A time without a zone is decoded without one."""
    assert decode(encode(naive)).tzinfo is None


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, print, [object()], {"a": {2}}])
def test_what_has_no_form(value: object) -> None:
    """A type without a JSON form raises TypeError that says so."""
    with pytest.raises(TypeError, match="has no JSON form"):
        encode(value)


def test_own_form() -> None:
    """A type with `__json__` is encoded by it."""

    class Money:
        def __json__(self) -> object:
            return {"amount": Decimal(5)}

    assert decode(encode([Money()])) == [{"amount": Decimal(5)}]


def test_a_value_within_itself() -> None:
    """A value that contains itself raises ValueError."""
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
    """A body that cannot be decoded raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        decode(data)


@given(data=st.binary(max_size=40))
def test_noise(data: bytes) -> None:
    """Any bytes are decoded or raise ValueError."""
    try:
        decode(data)
    except ValueError:
        return


def test_too_deep_to_encode() -> None:
    """A value nested too deeply to be encoded raises ValueError."""
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
    """A mapping that only looks like a special value is decoded as a mapping."""
    assert decode(encode(more)) == more


def test_by_content_type() -> None:
    """The names in accept_content mean the content types that they mean in Celery."""
    assert CONTENT_TYPES == {"json": JSON, "pickle": PICKLE}
    assert decode_as(JSON, b"[1]") == [1]
    assert decode_as(PICKLE, pickle.dumps([{1, 2}])) == [{1, 2}]


@pytest.mark.parametrize(
    ("content_type", "data"), [(PICKLE, b"nonsense"), (PICKLE, b""), ("application/x-yaml", b"[]"), ("", b"[]")]
)
def test_undecodable_by_content_type(content_type: str, data: bytes) -> None:
    """A broken pickle and an unknown content type raise ValueError."""
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
    """A body is decoded by its compression and its character set."""
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
    """A body that is not compressed as it says, or is too large, raises ValueError with that reason."""
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
    """A large body of rows is decoded."""
    data = encode([{"id": number, "name": f"row {number}"} for number in range(40_000)])
    assert len(decode_as(f"application/json;limit={len(data)}", data)) == 40_000
