"""Checks the options and arguments of a call before it is sent.

A message that cannot be run costs a delivery, a dead letter and a search for its sender; an error at the call shows the
line.
"""

import datetime as dt
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from hybridpool._client.call_options import CALL_OPTIONS, CallOptions
from hybridpool._config import celery_names
from hybridpool._config.suggestions import suggest
from hybridpool.errors import CannotSend

#: bytes of an AMQP short string: routing keys, ids, names of headers
MAX_SHORT_TEXT_BYTES: Final = 255
#: bytes of a queue's name: ``.dead`` behind it must still fit
MAX_QUEUE_BYTES: Final = MAX_SHORT_TEXT_BYTES - len(".dead")
#: bytes of the name of a queue with delayed messages: a digit and a dot for each of the 28 delay levels precede it
MAX_DELAYED_QUEUE_BYTES: Final = MAX_SHORT_TEXT_BYTES - 2 * 28
#: seconds; a hundred years
MAX_WAIT_S: Final = 100 * 365 * 86400
#: seconds of a time limit
MAX_LIMIT_S: Final = 1e9
#: bytes of all further headers together, roughly: the headers of a message must fit into one frame of 128 KiB
MAX_HEADERS_BYTES: Final = 64 * 1024
#: nesting of tables and lists in a header
MAX_HEADER_DEPTH: Final = 16


def read_call_options(given: Mapping[str, Any]) -> CallOptions:
    """Check the options of a call.

    :raises CannotSend: if there is no such option, or a value cannot be sent in a message or used by a worker.
    """
    for option, value in given.items():
        check = _CHECKS.get(option)
        if check is None:
            meant = suggest(option, CALL_OPTIONS, celery_names.CALL_OPTIONS, quoted=True)
            raise CannotSend(f"{option!r} is not an option of a call{meant}")
        if value is not None:
            expected = check(value)
            if expected:
                raise CannotSend(f"{option}=… must be {expected}, not {_short_repr(value)}")
    options = CallOptions(**{name: value for name, value in given.items() if value is not None})
    if options.countdown is not None and options.eta is not None:
        raise CannotSend("a call has a countdown or an eta, not both")
    hard, soft = options.time_limit, options.soft_time_limit
    if hard is not None and soft is not None and soft > hard:
        raise CannotSend(f"soft_time_limit={soft!r} must not be above time_limit={hard!r}")
    return options


def check_target(name: object, queue: str, *, is_delayed: bool) -> None:
    """Check the task's name and the queue of a call.

    :param name: of the task.
    :raises CannotSend: if they cannot be sent in a message.
    """
    if not isinstance(name, str) or not name or not _has_utf8_form(name):
        raise CannotSend(f"a task's name must be text, not {_short_repr(name)}")
    if is_delayed and _is_longer(queue, MAX_DELAYED_QUEUE_BYTES):
        raise CannotSend(
            f"{name}: a call with a countdown or an eta needs a queue whose name has at most "
            f"{MAX_DELAYED_QUEUE_BYTES} bytes, not {_short_repr(queue)}"
        )


def check_queue(value: object) -> str:
    """Return what a queue's name must be; empty: the name is valid."""
    if not isinstance(value, str) or not value or not _has_utf8_form(value):
        return "a queue's name"
    if _is_longer(value, MAX_QUEUE_BYTES):
        return f"a queue's name of at most {MAX_QUEUE_BYTES} bytes"
    return "a queue's name; the broker keeps those that begin with amq. for itself" if value.startswith("amq.") else ""


def check_arguments(name: str, args: object, kwargs: object) -> None:
    """Check that arguments are a list and a dict of them.

    :raises CannotSend: if they are something else; a text would be taken for a list of characters.
    """
    # The first check suffices for most calls; the others are slow.
    if type(args) not in _LIST_TYPES and (isinstance(args, str | bytes | bytearray) or not isinstance(args, Sequence)):
        raise CannotSend(f"{name}: the arguments must be a list or tuple, not {_short_repr(args)}")
    if kwargs is None:
        return
    if not isinstance(kwargs, Mapping):
        raise CannotSend(f"{name}: the keyword arguments must be a dict, not {_short_repr(kwargs)}")
    for key in kwargs:
        if not isinstance(key, str):
            raise CannotSend(f"{name}: names of keyword arguments must be text, not {_short_repr(key)}")


class Signature:
    """Which arguments a task takes. For most calls a comparison of their number is enough."""

    __slots__ = ("_bind", "_max_args", "_min_args", "_signature")

    def __init__(self, function: Callable[..., object], *, bind: bool) -> None:
        """:param bind: the function gets the running task as its first argument."""
        self._bind = (None,) if bind else ()
        self._min_args: float = 0
        self._max_args: float = math.inf
        # The decorator's own signature: it may pass further arguments to the function that it wraps.
        try:
            self._signature: inspect.Signature | None = inspect.signature(function, follow_wrapped=False)
        except (ValueError, TypeError):  # some functions in C have no signature
            self._signature = None
            return
        parameters = self._signature.parameters.values()
        positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
        if not any(one.kind is one.VAR_POSITIONAL for one in parameters):
            self._max_args = len(positional) - len(self._bind)
        self._min_args = sum(one.default is one.empty for one in positional) - len(self._bind)
        if any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters):
            self._min_args = math.inf

    def check(self, name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Check arguments.

        :raises CannotSend: if they do not fit.
        """
        if (not kwargs and self._min_args <= len(args) <= self._max_args) or self._signature is None:
            return
        try:
            self._signature.bind(*self._bind, *args, **kwargs)
        except TypeError as error:
            raise CannotSend(f"{name}{self._signature}: the arguments do not fit: {error}") from None


def _number(minimum: float, maximum: float, expected: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
            return expected
        return ""

    return check


def _datetime_or_seconds(value: object) -> str:
    return "" if isinstance(value, dt.datetime) else _seconds(value) and "seconds or a datetime"


def _datetime(value: object) -> str:
    if not isinstance(value, dt.datetime):
        return "a datetime"
    moment = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    try:
        wait = (moment - dt.datetime.now(dt.UTC)).total_seconds()
    except OverflowError:
        wait = math.inf
    return "" if wait <= MAX_WAIT_S else "a datetime within a hundred years"


def _priority(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
        return "a whole number from 0 to 255"
    return ""


def _boolean(value: object) -> str:
    return "" if isinstance(value, bool) else "True or False"


def _id(value: object) -> str:
    is_id = isinstance(value, str) and value and _has_utf8_form(value) and not _is_longer(value, MAX_SHORT_TEXT_BYTES)
    return "" if is_id else f"text of 1 to {MAX_SHORT_TEXT_BYTES} bytes"


def _headers(value: object) -> str:
    if not isinstance(value, Mapping):
        return "a dict of AMQP headers"
    try:
        size = _size(value, MAX_HEADER_DEPTH)
    except _NotEncodable as wrong:
        return f"a dict of AMQP headers, which {wrong}"
    except RecursionError:
        return "a dict of AMQP headers, which refers to itself"
    return "" if size <= MAX_HEADERS_BYTES else f"a dict of AMQP headers of at most {MAX_HEADERS_BYTES} bytes"


class _NotEncodable(Exception):
    """A value that has no form in AMQP; the text completes "headers, which …"."""


def _size(value: object, depth: int) -> int:
    """Return about how many bytes a header's value takes.

    :raises _NotEncodable: if AMQP has no form for it.
    """
    match value:
        case None | bool() | dt.datetime():
            return 9
        case int():
            if not -(2**63) <= value < 2**63:
                raise _NotEncodable(f"cannot hold the number {_short_repr(value)}: it has more than 64 bits")
            return 9
        case float() | Decimal():
            if not math.isfinite(value):
                raise _NotEncodable(f"cannot hold {value!r}")
            return 9
        case str():
            if not _has_utf8_form(value):
                raise _NotEncodable(f"cannot hold {_short_repr(value)}: it has no UTF-8 form")
            return 5 + len(value.encode())
        case bytes() | bytearray():
            return 5 + len(value)
        case Mapping():
            return 5 + sum(_name_size(key) + _size(one, _next_depth(depth)) for key, one in value.items())
        case list() | tuple():
            return 5 + sum(_size(one, _next_depth(depth)) for one in value)
        case _:
            raise _NotEncodable(f"cannot hold {type(value).__qualname__} objects")


def _next_depth(depth: int) -> int:
    if not depth:
        raise _NotEncodable(f"cannot be more than {MAX_HEADER_DEPTH} levels deep")
    return depth - 1


def _name_size(key: object) -> int:
    if not isinstance(key, str) or not _has_utf8_form(key) or _is_longer(key, MAX_SHORT_TEXT_BYTES):
        raise _NotEncodable(f"have names of at most {MAX_SHORT_TEXT_BYTES} bytes, not {_short_repr(key)}")
    return 1 + len(key.encode())


def _has_utf8_form(value: str) -> bool:
    """Tell whether it has a UTF-8 form; half a surrogate pair has none."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_longer(value: str, maximum: int) -> bool:
    return len(value) * 4 > maximum and len(value.encode(errors="replace")) > maximum


def _short_repr(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # whatever a user's repr raises
        text = f"a {type(value).__qualname__}"
    return text if len(text) <= _MAX_REPR_CHARS else f"{text[:_MAX_REPR_CHARS]}…"


_LIST_TYPES: Final = frozenset({tuple, list})
#: characters of a wrong value in an error
_MAX_REPR_CHARS: Final = 60
_seconds: Final = _number(-MAX_WAIT_S, MAX_WAIT_S, "seconds, within a hundred years")
_limit: Final = _number(math.ulp(0.0), MAX_LIMIT_S, "seconds above zero")
_CHECKS: Final[Mapping[str, Callable[[Any], str]]] = {
    "queue": check_queue,
    "expires": _datetime_or_seconds,
    "countdown": _seconds,
    "eta": _datetime,
    "priority": _priority,
    "ignore_result": _boolean,
    "time_limit": _limit,
    "soft_time_limit": _limit,
    "task_id": _id,
    "headers": _headers,
    "confirm": _boolean,
}
