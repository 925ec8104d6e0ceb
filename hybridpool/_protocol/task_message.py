"""A call → the message a client sends (Celery message protocol 2, `celery.app.amqp.as_task_v2`)."""

import datetime as dt
import functools
import os
import socket
from collections.abc import Mapping, Sequence

import attrs

from hybridpool._ipc import codec
from hybridpool._message import Outgoing, whole_seconds
from hybridpool.errors import CannotSend

#: characters of the arguments' repr, which monitors show
_MAX_REPR_CHARS = 1024


@attrs.define(kw_only=True, eq=False)
class Request:
    """A call of a task, before it is a message."""

    task: str
    id: str
    queue: str
    args: Sequence[object] = ()
    kwargs: Mapping[str, object] = attrs.field(factory=dict)
    #: seconds after which it must not be started any more, or the moment itself
    expires: float | dt.datetime | None = None
    #: the time before which it must not be started
    eta: dt.datetime | None = None
    #: 0–255 for queues declared with x-max-priority; None: none
    priority: int | None = None
    #: further AMQP headers
    headers: Mapping[str, object] = attrs.field(factory=dict)
    ignore_result: bool = False
    #: seconds; None: as the task or the worker says
    time_limit: float | None = None
    soft_time_limit: float | None = None
    root_id: str | None = None
    parent_id: str | None = None
    reply_to: str | None = None
    #: the sender waits until the broker has it
    is_confirmed: bool = True


def to_message(request: Request, now: dt.datetime) -> Outgoing:
    """Write the message.

    :param now: UTC, for an `expires` in seconds.
    :raises CannotSend: if an argument has no JSON form; the message names the argument.
    """
    try:
        body = codec.encode([request.args, request.kwargs, _NO_FOLLOW_UPS])
    except Exception as error:  # noqa: BLE001  # a value's own __json__ may raise anything
        raise _cannot_send(request, error) from None
    return Outgoing(
        body=body,
        routing_key=request.queue,
        headers=_headers(request, now),
        correlation_id=request.id,
        reply_to=request.reply_to,
        priority=request.priority,
        delay=whole_seconds((request.eta - now).total_seconds()) if request.eta else 0,
        mandatory=request.is_confirmed,
        is_confirmed=request.is_confirmed,
    )


def _headers(request: Request, now: dt.datetime) -> dict[str, object]:
    expires = request.expires
    if isinstance(expires, int | float):
        expires = now + dt.timedelta(seconds=expires)
    return {
        **request.headers,
        "lang": "py",
        "task": request.task,
        "id": request.id,
        "shadow": None,
        "eta": request.eta.isoformat() if request.eta else None,
        "expires": expires.isoformat() if expires else None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [request.time_limit, request.soft_time_limit],
        "root_id": request.root_id or request.id,
        "parent_id": request.parent_id,
        "argsrepr": repr(tuple(request.args))[:_MAX_REPR_CHARS],
        "kwargsrepr": repr(dict(request.kwargs))[:_MAX_REPR_CHARS],
        "origin": _origin(os.getpid()),
        "ignore_result": request.ignore_result,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


_NO_FOLLOW_UPS: Mapping[str, object] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def _cannot_send(request: Request, error: Exception) -> CannotSend:
    """Return the error that names the first argument which has no JSON form."""
    named = [*((f"argument {n}", value) for n, value in enumerate(request.args, 1)), *request.kwargs.items()]
    for name, value in named:
        try:
            codec.encode(value)
        except Exception as cause:  # noqa: BLE001  # as above
            return CannotSend(f"{request.task}: {name} cannot be sent: {cause}")
    return CannotSend(f"{request.task}: the arguments cannot be sent: {error}")


@functools.cache
def _origin(pid: int) -> str:
    """Return the sender's name, as Celery's clients have it; cached by pid, as a fork is another sender."""
    return f"gen{pid}@{socket.gethostname()}"
