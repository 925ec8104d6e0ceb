"""Field tables: the headers of a message as AMQP writes them (0-9-1, with RabbitMQ's table of types), both ways.

Written here because headers are read for every message that comes in, and were the slowest part of that: the client
library takes three times as long. What a value becomes is what the library makes of it too.
"""

import datetime as dt
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, cast

#: unpack a value of fixed size, with that size, by the letter of its type
_FIXED: Final[dict[int, tuple[Callable[[bytes, int], tuple[int | float, ...]], int]]] = {
    ord(letter): (struct.Struct(form).unpack_from, struct.calcsize(form))
    for letter, form in {
        "b": ">b",
        "B": ">B",
        "s": ">h",
        "u": ">H",
        "I": ">i",
        "i": ">I",
        "l": ">q",
        "L": ">q",
        "f": ">f",
        "d": ">d",
    }.items()
}
_LENGTH = struct.Struct(">I")
_INT, _LONG, _DOUBLE, _MOMENT = (struct.Struct(form) for form in (">ci", ">cq", ">cd", ">cQ"))
_TEXT, _NONE, _TRUTH = ord("S"), ord("V"), ord("t")
#: types of values that begin with their length: text, bytes, arrays, tables
_SIZED: Final = frozenset(b"SxAF")
#: bytes that values of other types take
_BARE: Final = {ord("V"): 0, ord("t"): 1, ord("T"): 8, ord("D"): 5}
#: seconds above this are milliseconds: what some clients write, and the library takes for that
_MAX_SECONDS: Final = 0xFFFFFFFF


class BadTable(ValueError):
    """Bytes that are not a field table."""


def read_table(data: bytes, at: int) -> tuple[dict[str, object], int]:
    """Read a table.

    A value that cannot be read, because it is nested too deeply or has odd names in it, costs nothing but itself: it is
    read as the bytes that it is made of.

    :returns: the table, and where it ends.
    :raises BadTable: if it is not a field table.
    """
    try:
        return _table(data, at)
    except _UNREADABLE:
        found = {name: read_field(field) for name, field in entries(data, at)}
        return found, at + 4 + _LENGTH.unpack_from(data, at)[0]


#: what reading raises for bytes that are not what they should be
_UNREADABLE = (IndexError, struct.error, ValueError, ArithmeticError, OSError, RecursionError)


def entries(data: bytes, at: int) -> list[tuple[str, bytes]]:
    """Return the fields of a table as bytes, their types included, without reading them; nested ones stay closed.

    A name that is not UTF-8 has its odd bytes as lone surrogates (`surrogateescape`), so it can be written as it was.

    :raises BadTable: if it is not a field table.
    """
    found: list[tuple[str, bytes]] = []
    try:
        end = at + 4 + _LENGTH.unpack_from(data, at)[0]
        if end > len(data):
            raise BadTable("a table is longer than what holds it")
        at += 4
        while at < end:
            start = at + 1 + data[at]
            stop = _end_of_field(data, start)
            if stop > end:
                raise BadTable("a value is longer than its table")
            found.append((decode_text(data[at + 1 : start]), data[start:stop]))
            at = stop
    except (IndexError, struct.error) as error:
        raise BadTable(f"not a field table: {error}") from error
    return found


def decode_text(raw: bytes) -> str:
    """Read text that may be any bytes; `encode_text` gives them back.

    The handler is named only for odd bytes: naming it takes as long as the reading.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode(errors="surrogateescape")


def encode_text(text: str) -> bytes:
    """Write text.

    :raises ValueError: if it has no form in bytes: other lone surrogates than those of `decode_text`.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogateescape")


def _end_of_field(data: bytes, at: int) -> int:
    """Return where a field ends that begins with its type."""
    kind = data[at]
    if kind in _FIXED:
        return at + 1 + _FIXED[kind][1]
    if kind in _SIZED:
        size: int = _LENGTH.unpack_from(data, at + 1)[0]
        return at + 5 + size
    if kind in _BARE:
        return at + 1 + _BARE[kind]
    raise BadTable(f"a value has the unknown type {chr(kind)!r}")


def read_field(field: bytes) -> object:
    """Read a field that begins with its type; one that cannot be read is returned as it is."""
    try:
        return _value(field, 1, field[0])[0]
    except _UNREADABLE:
        return field


def _table(data: bytes, at: int) -> tuple[dict[str, object], int]:
    (size,) = _LENGTH.unpack_from(data, at)
    at += 4
    end = at + size
    if end > len(data):
        raise BadTable("a table is longer than what holds it")
    found: dict[str, object] = {}
    while at < end:
        stop = at + 1 + data[at]
        name = data[at + 1 : stop].decode()
        kind = data[stop]
        at = stop + 1
        # the two commonest here, without another call
        if kind == _TEXT:
            begin = at + 4
            at = begin + _LENGTH.unpack_from(data, at)[0]
            try:
                found[name] = data[begin:at].decode()
            except UnicodeDecodeError:
                found[name] = data[begin:at]
        elif kind == _NONE:
            found[name] = None
        else:
            found[name], at = _value(data, at, kind)
    if at != end:
        raise BadTable("a value is longer than its table")
    return found, end


def _value(data: bytes, at: int, kind: int) -> tuple[object, int]:
    if kind in _FIXED:
        unpack, size = _FIXED[kind]
        return unpack(data, at)[0], at + size
    if kind == _TRUTH:
        return data[at] != 0, at + 1
    if kind == _NONE:
        return None, at
    if kind == ord("F"):
        return _table(data, at)
    if kind == ord("T"):
        return _read_moment(int.from_bytes(data[at : at + 8])), at + 8
    if kind == ord("D"):
        return Decimal(int.from_bytes(data[at + 1 : at + 5], signed=True)).scaleb(-data[at]), at + 5
    if kind not in b"SxA":
        raise BadTable(f"a value has the unknown type {chr(kind)!r}")
    stop = at + 4 + _LENGTH.unpack_from(data, at)[0]
    if kind == ord("A"):
        return _array(data, at + 4, stop), stop
    return (_text(data, at + 4, stop) if kind == _TEXT else bytearray(data[at + 4 : stop])), stop


def _read_moment(seconds: int) -> dt.datetime | int:
    try:
        return dt.datetime.fromtimestamp(seconds / 1000 if seconds > _MAX_SECONDS else seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return seconds  # beyond the year 9999


def _text(data: bytes, at: int, stop: int) -> str | bytes:
    """AMQP calls it text and lets it hold anything."""
    raw = data[at:stop]
    if len(raw) != stop - at:
        raise BadTable("a text is longer than what holds it")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _array(data: bytes, at: int, end: int) -> list[object]:
    found: list[object] = []
    while at < end:
        value, at = _value(data, at + 1, data[at])
        found.append(value)
    if at != end:
        raise BadTable("a value is longer than its array")
    return found


def write_table(table: Mapping[str, object]) -> bytes:
    """Write a table.

    :raises TypeError: if a value has no type in AMQP.
    :raises ValueError: if a name or a number is too long, or a table holds itself.
    """
    parts = [b""]
    try:
        # a name may be anything: the sender of a message has written it
        for name, value in cast(Mapping[object, object], table).items():
            if not isinstance(name, str):
                raise TypeError(f"the name of a header is a {type(name).__name__}, not text")
            try:
                raw = name.encode()
            except UnicodeEncodeError:
                raw = encode_text(name)
            if len(raw) > 255:
                raise ValueError(f"the header name {name[:40]!r}… is longer than 255 bytes")
            parts.append(len(raw).to_bytes() + raw + _written(value))
    except RecursionError as error:
        raise ValueError("the headers are nested too deeply") from error
    body = b"".join(parts)
    return _LENGTH.pack(len(body)) + body


def join_entries(fields: Sequence[bytes]) -> bytes:
    """Make a table of what `write_entry` returns."""
    body = b"".join(fields)
    return _LENGTH.pack(len(body)) + body


def write_entry(name: str, value: object) -> bytes:
    """Write one field with its name; as `write_table`."""
    return write_table({name: value})[_LENGTH.size :]


def raw_entry(name: str, field: bytes) -> bytes:
    """Write the name before a field that is bytes already."""
    raw = encode_text(name)
    return len(raw).to_bytes() + raw + field


def _written(value: object) -> bytes:
    if value is None:
        return b"V"
    write = _WRITERS.get(type(value)) or next(
        (known for kind, known in _WRITERS.items() if isinstance(value, kind)), None
    )
    if write is None:
        raise TypeError(f"a {type(value).__name__} cannot be in a header")
    return write(value)


def _string(value: str) -> bytes:
    raw = value.encode()
    return b"S" + _LENGTH.pack(len(raw)) + raw


def _array_of(value: Sequence[object]) -> bytes:
    body = b"".join([_written(one) for one in value])
    return b"A" + _LENGTH.pack(len(body)) + body


def _moment(value: dt.datetime) -> bytes:
    seconds = int((value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp())
    if seconds < 0:
        raise ValueError(f"the time {value} is before 1970, and cannot be in a header")
    return _MOMENT.pack(b"T", seconds)


def _number(value: int) -> bytes:
    if -0x80000000 <= value <= 0x7FFFFFFF:
        return _INT.pack(b"I", value)
    if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        return _LONG.pack(b"l", value)
    raise ValueError("a number beyond 64 bits cannot be in a header")


def _double(value: float) -> bytes:
    # RabbitMQ cannot read these (Erlang has no such numbers), and closes the connection
    if not math.isfinite(value):
        raise ValueError(f"the number {value} cannot be in a header: AMQP has finite numbers only")
    return _DOUBLE.pack(b"d", value)


def _decimal(value: Decimal) -> bytes:
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and -255 <= exponent <= 9:
        scale = max(0, -exponent)
        digits = int(value.scaleb(scale))
        if -0x80000000 <= digits <= 0x7FFFFFFF:
            return struct.pack(">cBi", b"D", scale, digits)
    raise ValueError(f"the number {value} cannot be in a header: AMQP has decimals of 32 bits")


#: by type; the first of which a value is an instance, if its own type is not here
_WRITERS: Final[dict[type, Callable[[Any], bytes]]] = {
    str: _string,
    bool: lambda value: b"t\1" if value else b"t\0",
    int: _number,
    float: _double,
    dict: lambda value: b"F" + write_table(value),
    list: _array_of,
    tuple: _array_of,
    dt.datetime: _moment,
    Decimal: _decimal,
    bytes: lambda value: b"x" + _LENGTH.pack(len(value)) + value,
    bytearray: lambda value: b"x" + _LENGTH.pack(len(value)) + value,
    Mapping: lambda value: b"F" + write_table(value),
}
