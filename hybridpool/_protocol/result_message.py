"""An outcome → result meta, and back (Celery, `celery.backends.base`).

The parent never decodes a value: the bytes from the child are put into the meta as they are. Exceptions are sent as
type name, module and arguments; the reader looks the type up among the modules that it has already imported, and never
imports one because a message names it (CVE-2021-23727).
"""

import builtins
import datetime as dt
import sys
from typing import Any, assert_never

import attrs
import msgspec

from hybridpool import errors
from hybridpool._child.rendering import annotate
from hybridpool._ipc import codec
from hybridpool._message import Head
from hybridpool._outcome import (
    Cancelled,
    Ignored,
    Lost,
    Outcome,
    Raised,
    Refused,
    Rejected,
    Retrying,
    Returned,
    TimedOut,
)

#: the name of a dead child's error for Celery's clients; our client reads it as ChildLost
_LOST = ("WorkerLostError", "billiard.exceptions")
_REJECTED = ("Reject", "celery.exceptions")


#: our errors → their names for Celery's clients
_CELERY_NAMES = {
    (errors.SoftTimeLimitExceeded.__name__, errors.__name__): ("SoftTimeLimitExceeded", "billiard.exceptions"),
    (errors.RetriesExhausted.__name__, errors.__name__): ("MaxRetriesExceededError", "celery.exceptions"),
}


class _Failure(msgspec.Struct):
    exc_type: str
    exc_message: msgspec.Raw
    exc_module: str


class _Status(msgspec.Struct):
    status: str


#: states after which another follows (Celery, UNREADY_STATES)
_UNREADY = frozenset({"PENDING", "RECEIVED", "STARTED", "REJECTED", "RETRY"})


class _Meta(msgspec.Struct):
    status: str
    result: msgspec.Raw | _Failure
    traceback: str | None
    children: list[object]
    date_done: str
    task_id: str
    parent_id: str | None = None
    group_id: str | None = None


@attrs.frozen
class Expired:
    """The task was not run, because its time had passed."""


@attrs.frozen
class Revoked:
    """The task was not run, because it was revoked."""


def write_meta(head: Head, outcome: Outcome | Expired | Revoked, now: dt.datetime) -> bytes:
    """Write the result meta, as JSON.

    :param now: UTC.
    """
    traceback: str | None = None
    status, result = "FAILURE", _failed(outcome)
    match outcome:
        case Returned(value=value):
            status, result = "SUCCESS", msgspec.Raw(value)
        case Raised():
            traceback = outcome.traceback
        case Refused():
            traceback = outcome.reason
        case Retrying():
            status, traceback = "RETRY", outcome.traceback
        case Cancelled() | Expired() | Revoked():
            status = "REVOKED"
        case Ignored():
            status = "IGNORED"
        case Rejected() | Lost() | TimedOut():
            pass
        case _:
            assert_never(outcome)
    meta = _Meta(status, result, traceback, [], now.isoformat(), head.id, head.parent_id, head.group)
    return msgspec.json.encode(meta)


def _failed(outcome: Outcome | Expired | Revoked) -> msgspec.Raw | _Failure:
    """Return the exception of an outcome without a value; null if there is none."""
    match outcome:
        case Retrying(kind=errors.Retry.__name__, module=errors.__name__):
            # The task asked for another attempt and gave no reason, so there is none for Celery's clients.
            return msgspec.Raw(b"null")
        case Raised() | Refused() | Retrying():
            return _failure(outcome)
        case Rejected(reason=reason):
            kind, module = _REJECTED
            return _Failure(kind, _arguments(reason, False), module)
        case Lost(cause=cause):
            kind, module = _LOST
            return _Failure(kind, _arguments(f"Worker exited prematurely: {cause}."), module)
        case TimedOut(limit=limit):
            return _Failure("TimeLimitExceeded", _arguments(limit), "billiard.exceptions")
        case Cancelled() | Expired() | Revoked():
            why = {Cancelled: "terminated", Expired: "expired", Revoked: "revoked"}[type(outcome)]
            return _Failure("TaskRevokedError", _arguments(why), "celery.exceptions")
        case Returned() | Ignored():
            return msgspec.Raw(b"null")
        case _:
            assert_never(outcome)


def _arguments(*values: object) -> msgspec.Raw:
    return msgspec.Raw(codec.encode(values))


def _failure(outcome: Raised | Refused | Retrying) -> _Failure:
    kind, module = _CELERY_NAMES.get((outcome.kind, outcome.module), (outcome.kind, outcome.module))
    return _Failure(kind, msgspec.Raw(outcome.arguments), module)


def is_final(meta: bytes) -> bool:
    """Tell whether a meta holds a result: a Celery worker also sends STARTED and RETRY. A malformed one is final."""
    try:
        return msgspec.json.decode(meta, type=_Status).status not in _UNREADY
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return True


def read_meta(meta: bytes) -> object:
    """Return the value, or raise what the task raised.

    :raises TaskFailed: if the exception's type is not known here.
    :raises ResultError: if the meta cannot be read.
    """
    try:
        document = codec.decode(meta)
        status, result = document["status"], document["result"]
    except (ValueError, KeyError, TypeError) as error:
        raise errors.ResultError(f"the result cannot be read: {error}") from error
    if status == "SUCCESS":
        return result
    if not isinstance(result, dict):
        raise errors.ResultError(f"the result cannot be read: state {status!r} without an exception")
    raise _rebuild(result, document.get("traceback"))


def _rebuild(result: Any, traceback: str | None) -> BaseException:
    """Make the exception again, with the child's traceback as a note."""
    kind, module = str(result.get("exc_type")), str(result.get("exc_module"))
    message = result.get("exc_message")
    arguments = tuple(message) if isinstance(message, list) else (message,)
    # Also if the reader has imported Celery, so that the result does not depend on that.
    error = None if (kind, module) == _REJECTED else _rebuild_type(kind, module, arguments)
    if error is None:
        error = errors.TaskFailed(f"{module}.{kind}" if module else kind, arguments, traceback or "")
    if traceback and not annotate(error, f"\nIn the child:\n{traceback}"):
        return errors.TaskFailed(f"{module}.{kind}" if module else kind, arguments, traceback)
    return error


def _rebuild_type(kind: str, module: str, arguments: tuple[object, ...]) -> BaseException | None:
    if (kind, module) == _LOST:
        return errors.ChildLost(str(arguments[0]) if arguments else "")
    if (kind, module) == ("TimeLimitExceeded", "billiard.exceptions"):
        return errors.TimeLimitExceeded(f"over its hard time limit of {arguments[0] if arguments else '?'} s")
    if (kind, module) == ("SoftTimeLimitExceeded", "billiard.exceptions"):
        return errors.TimeLimitExceeded("over its soft time limit")
    if (kind, module) == ("TaskRevokedError", "celery.exceptions"):
        return errors.TaskRevoked(*arguments)
    if (kind, module) == ("MaxRetriesExceededError", "celery.exceptions"):
        return errors.RetriesExhausted(str(arguments[0]) if arguments else "")
    if (kind, module) == ("NotRegistered", "celery.exceptions"):
        return errors.NotRegistered(f"the worker knows no task {arguments[0] if arguments else ''!r}")
    found: object = builtins if module == "builtins" else sys.modules.get(module)
    for part in kind.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return None
    try:
        return found(*arguments)
    except Exception:  # noqa: BLE001  # user code, on our way to raise another exception
        # A constructor that takes other things than `args`: name, arguments and traceback are reported instead.
        return None
