"""Field tables, against the client library's own reading and writing of them."""

import datetime as dt
import math
import struct
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode, encode

from hybridpool._brokers.rabbitmq.amqp.table import BadTable, read_table, write_table

NAMES = st.text(max_size=20)
MOMENTS = st.integers(0, 2**32 - 1).map(lambda seconds: dt.datetime.fromtimestamp(seconds, dt.UTC))
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=50)
    | st.binary(max_size=20).map(bytearray)
    | MOMENTS
    | st.integers(-(2**31), 2**31 - 1).map(lambda number: Decimal(number).scaleb(-3))
)
VALUES = st.recursive(
    PLAIN | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
TABLES = st.dictionaries(NAMES, VALUES, max_size=6)
#: without what the library writes in another way: floats with half their digits, decimals and unsigned numbers
COMMON = st.dictionaries(
    NAMES.filter(lambda name: len(name.encode()) <= 128),
    st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.text(max_size=50) | MOMENTS,
    max_size=6,
)


@given(TABLES)
def test_there_and_back(table: dict[str, object]) -> None:
    """A table is read as it was written."""
    written = write_table(table)
    assert read_table(b"xy" + written, 2) == (table, len(written) + 2)


@given(TABLES)
def test_the_library_reads_what_we_write(table: dict[str, object]) -> None:
    """The library reads a table as we wrote it."""
    assert decode.field_table(write_table(table)) == (len(write_table(table)), table)


@given(COMMON)
def test_we_read_what_the_library_writes(table: dict[str, object]) -> None:
    """A table is read as the library wrote it."""
    written = encode.field_table(table)  # type: ignore[arg-type]
    assert read_table(written, 0) == (table, len(written))


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"i\xff\xff\xff\xff", 2**32 - 1),
        (b"L\x00\x00\x00\x00\x00\x00\x00\x07", 7),
        (b"f\x3f\xc0\x00\x00", 1.5),
        (b"S\x00\x00\x00\x02\xff\xfe", b"\xff\xfe"),
        (b"T" + struct.pack(">Q", 4_300_000_000_000), dt.datetime.fromtimestamp(4_300_000_000, dt.UTC)),
    ],
)
def test_what_others_write(raw: bytes, value: object) -> None:
    """Every type of the table's format is read."""
    entry = b"\x01n" + raw
    assert read_table(struct.pack(">I", len(entry)) + entry, 0)[0] == {"n": value}


@given(st.binary(max_size=60) | TABLES.map(write_table).flatmap(lambda data: st.binary(max_size=5).map(data.__add__)))
def test_any_bytes(data: bytes) -> None:
    """Any bytes are read as a table or refused with BadTable."""
    try:
        table, end = read_table(data, 0)
    except BadTable:
        return
    assert end <= len(data)
    assert isinstance(table, dict)


@given(TABLES.map(write_table).filter(lambda data: len(data) > 4), st.data())
def test_cut_off(data: bytes, draw: st.DataObject) -> None:
    """A table that is cut off raises BadTable."""
    with pytest.raises(BadTable):
        read_table(data[: draw.draw(st.integers(0, len(data) - 1))], 0)


def test_a_value_beyond_its_table() -> None:
    """A value longer than its table raises BadTable."""
    entry = b"\x01nS" + struct.pack(">I", 9) + b"mine"
    with pytest.raises(BadTable, match="longer than its table"):
        read_table(struct.pack(">I", len(entry)) + entry + b"not mine", 0)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (object(), TypeError),
        (2**63, ValueError),
        ({"x" * 256: 1}, ValueError),
        (Decimal("1e300"), ValueError),
        (Decimal("NaN"), ValueError),
        (Decimal("-Infinity"), ValueError),
        (Decimal(2**31), ValueError),
        (Decimal("1." + "1" * 40), ValueError),
        (math.nan, ValueError),
        ([math.inf], ValueError),
        ("\ud800", ValueError),
        (dt.datetime(1960, 1, 1, tzinfo=dt.UTC), ValueError),
    ],
)
def test_what_cannot_be_written(value: object, error: type[Exception]) -> None:
    """A value that AMQP or RabbitMQ does not have raises an error."""
    with pytest.raises(error):
        write_table({"n": value})


def test_too_deep() -> None:
    """A value nested too deeply is read as bytes, and the others beside it as usual."""
    data = b"\x00\x00\x00\x00"
    for _ in range(5000):
        entry = b"\x01nF" + data
        data = struct.pack(">I", len(entry)) + entry
    deep = b"F" + data
    table = b"\x01aI\0\0\0\x07" + b"\x01b" + deep + b"\x01cV"
    assert read_table(struct.pack(">I", len(table)) + table, 0)[0] == {"a": 7, "b": deep, "c": None}


def test_headers_without_end_cannot_be_written() -> None:
    """Headers that contain themselves raise ValueError."""
    endless: dict[str, object] = {}
    endless["me"] = endless
    with pytest.raises(ValueError, match="nested too deeply"):
        write_table(endless)


def test_names_that_are_not_utf8() -> None:
    """A header's name of any bytes is read and written unchanged."""
    data = struct.pack(">I", 4) + b"\x02\xff\xfeV"
    table, _ = read_table(data, 0)
    assert table == {"\udcff\udcfe": None}
    assert write_table(table) == data
