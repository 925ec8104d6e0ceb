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

#: names used by the setting accept_content
CONTENT_TYPES: Final[Mapping[str, str]] = {"json": JSON, "pickle": PICKLE}

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
    """Decode by content type. Whether pickle is allowed at all was decided by the parent (accept_content).

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
        case _:
            raise ValueError(f"no decoder for content type {content_type!r}")


def _rebuild(mapping: dict[str, Any]) -> object:
    if mapping.keys() != {"__type__", "__value__"}:
        return mapping
    kind = mapping["__type__"]
    decoder = _DECODERS.get(kind) if isinstance(kind, str) else None
    if decoder is None:
        raise ValueError(f"unknown typed value {kind!r}")
    return decoder(mapping["__value__"])


def _unusual(value: object) -> object:
    # datetime stands before date, because it is one.
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
    # Django's lazy texts (translations), as kombu sends them. Who has one has loaded this.
    lazy = getattr(sys.modules.get("django.utils.functional"), "Promise", None)
    if isinstance(lazy, type) and isinstance(value, lazy):
        return str(value)
    raise TypeError(f"{type(value).__qualname__} has no JSON form")


def _typed(kind: str, value: object) -> dict[str, object]:
    return {"__type__": kind, "__value__": value}


_encoder = json.JSONEncoder(default=_unusual, separators=(",", ":"))
