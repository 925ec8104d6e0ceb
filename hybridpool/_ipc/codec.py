"""Values ⇄ bytes, in the JSON dialect of Celery clients.

Types that JSON does not have travel as ``{"__type__": …, "__value__": …}`` (kombu 5.3 and later, `kombu.utils.json`):
datetime, date, time, decimal, uuid, bytes (UTF-8 text) and base64 (other bytes).
"""

import base64
import datetime as dt
import json
import pickle
import sys
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

JSON: Final = "application/json"
PICKLE: Final = "application/x-python-serialize"

#: parameter of a content type: the parent counts the message as a part of its chord
CHORD_IS_COUNTED: Final = "chord=counted"

#: names used by the setting accept_content
CONTENT_TYPES: Final[Mapping[str, str]] = {"json": JSON, "pickle": PICKLE}

#: bytes of memory that a short list, or a small object, takes at least, with the reference to it
_LIST_BYTES: Final = 72
_OBJECT_BYTES: Final = 200
#: memory that lists and objects may take, as a multiple of the bytes that a message may have. Texts and numbers never
#: take more than 13 times the size of their JSON
_MAX_MEMORY_FACTOR: Final = 16
#: bytes of memory that decompressing one body may take
_MAX_LZMA_MEMORY_BYTES: Final = 128 * 1024 * 1024

#: the versions that `uuid.UUID(version=…)`, which Celery's clients call, takes
_UUID_VERSIONS: Final = range(1, 6)

_DECODERS: Final[Mapping[str, Callable[[Any], object]]] = {
    "datetime": dt.datetime.fromisoformat,
    "date": lambda value: dt.datetime.fromisoformat(value).date(),
    "time": dt.time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda value: uuid.UUID(hex=value["hex"]),
    "bytes": lambda value: value.encode(),
    "base64": base64.b64decode,
}


def encode(value: object) -> bytes:
    """Encode a value as JSON.

    :raises TypeError: if the value, or something in it, has no JSON form.
    :raises ValueError: if it refers to itself, or is nested too deeply.
    """
    try:
        return _encoder.encode(value).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def decode(data: bytes | str) -> Any:
    """Decode JSON.

    :raises ValueError: if it is not JSON, not UTF-8, or a typed value in it cannot be rebuilt.
    """
    try:
        # Decoded here and strictly: json itself would guess at UTF-16, and let lone surrogates through.
        text = data if isinstance(data, str) else data.decode()
        return json.loads(text, object_hook=_rebuild)
    except (TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def decode_as(content_type: str, data: bytes) -> Any:
    """Decode by content type. The parent has checked that the content type is allowed (accept_content).

    :raises ValueError: if the bytes are not of that type or the type is unknown.
    """
    match content_type:
        case "application/json":
            return decode(data)
        case "application/x-python-serialize":
            try:
                return pickle.loads(data)
            except Exception as error:
                raise ValueError(f"{type(error).__name__}: {error}") from error
        case _ if ";" in content_type:
            return decode_as(*_unpack(content_type, data))
        case _:
            raise ValueError(f"no decoder for content type {content_type!r}")


def _unpack(content_type: str, data: bytes) -> tuple[str, bytes]:
    """Return a media type without parameters, and bytes of that type in UTF-8.

    :raises ValueError: if the bytes are not what the parameters say, or too many.
    """
    media, *pairs = content_type.split(";")
    parameters = dict(parameter.split("=", 1) for parameter in pairs)
    limit = int(parameters["limit"])
    if "compression" in parameters:
        data = _decompressed(parameters["compression"], data, limit)
    if media == JSON and "charset" in parameters:
        data = data.decode(parameters["charset"]).encode()
    if media == JSON:
        _check_memory(data, limit)
    return media, data


def _decompressed(kind: str, data: bytes, limit: int) -> bytes:
    """:raises ValueError: if the bytes are not compressed that way, end too soon, or become too large."""
    try:
        if kind == "gzip":
            import zlib

            inflating = zlib.decompressobj(wbits=47)  # with the head of gzip, or of zlib
            found, is_whole = inflating.decompress(data, limit + 1), inflating.eof
        elif kind == "bz2":
            import bz2

            unpacking = bz2.BZ2Decompressor()
            found, is_whole = unpacking.decompress(data, limit + 1), unpacking.eof
        else:
            import lzma

            other = lzma.LZMADecompressor(memlimit=_MAX_LZMA_MEMORY_BYTES)
            found, is_whole = other.decompress(data, limit + 1), other.eof
    except Exception as error:
        raise ValueError(f"it is not compressed with {kind}: {error}") from error
    if len(found) > limit:
        raise ValueError(f"decompressed it is over worker_max_message_size ({limit})")
    if not is_whole:
        raise ValueError(f"what is compressed with {kind} ends too soon")
    return found


def _check_memory(data: bytes, limit: int) -> None:
    """Refuse JSON whose lists and objects, above all empty ones, would take many times its size in memory.

    :raises ValueError: if its lists and objects would take 16 times as much memory as a message may have bytes.
    """
    lists, objects = data.count(b"["), data.count(b"{")
    if lists * _LIST_BYTES + objects * _OBJECT_BYTES > limit * _MAX_MEMORY_FACTOR:
        raise ValueError(
            f"its {lists} lists and {objects} objects would take more memory than {_MAX_MEMORY_FACTOR} times "
            f"worker_max_message_size ({limit})"
        )


def _rebuild(mapping: dict[str, Any]) -> object:
    if mapping.keys() != {"__type__", "__value__"}:
        return mapping
    kind = mapping["__type__"]
    decoder = _DECODERS.get(kind) if isinstance(kind, str) else None
    if decoder is None:
        raise ValueError(f"unknown typed value {kind!r}")
    return decoder(mapping["__value__"])


def _to_json_form(value: object) -> object:
    # datetime comes before date, as it is a subclass.
    match value:
        case dt.datetime():
            return _typed("datetime", value.isoformat())
        case dt.date():
            return _typed("date", value.isoformat())
        case dt.time():
            return _typed("time", value.isoformat())
        case Decimal():
            return _typed("decimal", str(value))
        case uuid.UUID():
            return _typed(
                "uuid", {"hex": value.hex, "version": value.version if value.version in _UUID_VERSIONS else None}
            )
        case bytes():
            try:
                return _typed("bytes", value.decode())
            except UnicodeDecodeError:
                return _typed("base64", base64.b64encode(value).decode())
        case _:
            pass
    own_form = getattr(value, "__json__", None)
    if callable(own_form):
        return own_form()
    # Django's lazy texts (translations), as kombu sends them. A program that has one has loaded this module.
    lazy = getattr(sys.modules.get("django.utils.functional"), "Promise", None)
    if isinstance(lazy, type) and isinstance(value, lazy):
        return str(value)
    raise TypeError(f"{type(value).__qualname__} has no JSON form")


def _typed(kind: str, value: object) -> dict[str, object]:
    return {"__type__": kind, "__value__": value}


_encoder = json.JSONEncoder(default=_to_json_form, separators=(",", ":"))
