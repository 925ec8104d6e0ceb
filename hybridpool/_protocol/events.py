"""Celery's events: what workers and clients publish for monitors such as Flower (`celery.events`).

An event of the group "worker" is a JSON object in a message of its own; events of the group "task" are sent by workers
as lists. A client's `task-sent` is one object again.
"""

import datetime as dt
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from hybridpool import events
from hybridpool._message import Outgoing
from hybridpool._policy.lamport_clock import LamportClock

#: events in one message
MAX_EVENTS: Final = 24
#: the routing key of lists of task events
_TASK_KEY: Final = "task.multi"
#: SIGTERM, by which Celery stops a task that is revoked while it runs
_TERMINATED_BY: Final = 15

#: the type of an event and its own fields
Fields = tuple[str, Mapping[str, object]]


class EventWriter:
    """Writes the events of one program."""

    def __init__(self, hostname: str, pid: int, clock: LamportClock) -> None:
        """:param hostname: the node's name."""
        self._hostname = hostname
        self._pid = pid
        self._clock = clock
        #: the second for which `_utcoffset` was found
        self._second = -1
        self._utcoffset = 0.0

    def write(self, kind: str, fields: Mapping[str, object], now: float) -> bytes:
        """Write an event.

        :param kind: its type.
        :param now: seconds since the epoch.
        """
        second = int(now)
        if second != self._second:
            self._second, self._utcoffset = second, -time.localtime(now).tm_gmtoff / 3600
        event = {
            "type": kind,
            "timestamp": now,
            "hostname": self._hostname,
            "utcoffset": self._utcoffset,
            "pid": self._pid,
            "clock": self._clock.forward(),
            **fields,
        }
        try:
            return msgspec.json.encode(event)
        except UnicodeEncodeError:
            # A sender may have put surrogates into its texts; the standard library escapes them.
            return json.dumps(event).encode()

    def message(self, exchange: str, kind: str, event: bytes, *, is_confirmed: bool = False) -> Outgoing:
        """Return the message of one event."""
        return self._outgoing(exchange, kind.replace("-", "."), event, is_confirmed=is_confirmed)

    def task_messages(self, exchange: str, written: Sequence[bytes]) -> list[Outgoing]:
        """Return the messages of task events, each with some of them."""
        return [
            self._outgoing(exchange, _TASK_KEY, b"[" + b",".join(written[at : at + MAX_EVENTS]) + b"]")
            for at in range(0, len(written), MAX_EVENTS)
        ]

    def _outgoing(self, exchange: str, key: str, body: bytes, *, is_confirmed: bool = False) -> Outgoing:
        return Outgoing(
            body=body,
            exchange=exchange,
            routing_key=key,
            headers={"hostname": self._hostname},
            persistent=False,
            is_confirmed=is_confirmed,
        )


def worker_fields(version: str, *, interval: float, active: int, processed: int) -> dict[str, object]:
    """Return the fields of `worker-online`, `worker-heartbeat` and `worker-offline`.

    :param version: of this library.
    :param interval: seconds between heartbeats; a monitor takes twice as long without one for a lost worker.
    :param active: tasks that run.
    :param processed: tasks that have begun since the start.
    """
    return {
        "freq": interval,
        "active": active,
        "processed": processed,
        "loadavg": [round(one, 2) for one in os.getloadavg()],
        "sw_ident": "hybridpool",
        "sw_ver": version,
        "sw_sys": platform.system(),
    }


def received_fields(task: events.TaskRef) -> Fields:
    """Return `task-received`."""
    return "task-received", {
        "uuid": task.id,
        "name": task.name,
        "args": task.args,
        "kwargs": task.kwargs,
        "root_id": task.root_id,
        "parent_id": task.parent_id,
        "retries": task.retries,
        "eta": _moment(task.eta),
        "expires": _moment(task.expires),
    }


def started_fields(task: events.TaskRef) -> Fields:
    """Return `task-started`."""
    return "task-started", {"uuid": task.id}


def revoked_fields(task: events.TaskRef, *, signum: int | None, expired: bool = False) -> Fields:
    """Return `task-revoked`.

    :param signum: the signal by which it is stopped while it runs; None: it does not run.
    """
    fields = {"uuid": task.id, "terminated": signum is not None, "signum": signum, "expired": expired}
    return "task-revoked", fields


def outcome_fields(event: events.Event) -> Sequence[Fields]:
    """Return what Celery's workers send when a task has ended so; nothing for other events."""
    match event:
        case events.TaskSucceeded(task=task, runtime=runtime, text=text):
            return (("task-succeeded", {"uuid": task.id, "result": text, "runtime": runtime}),)
        case events.TaskFailed(task=task, text=text, traceback=traceback, is_rejected=is_rejected):
            rejected = (_rejected(task, requeue=False),) if is_rejected else ()
            return (*rejected, _failed(task, text, traceback))
        case events.TaskRetried(task=task, text=text, traceback=traceback):
            return (("task-retried", {"uuid": task.id, "exception": text or "None", "traceback": traceback}),)
        case events.TaskRejected(task=task, reason=reason, requeue=requeue, was_acknowledged=was_acknowledged):
            ends = () if requeue else (_failed(task, f"reject requeue=False: {reason}", ""),)
            return ends if was_acknowledged else (*ends, _rejected(task, requeue=requeue))
        case events.TaskLost(task=task, comes_again=True):
            return (_rejected(task, requeue=True),)
        case events.TaskLost(task=task, cause=cause):
            story = f"Worker exited prematurely: {cause}."
            return (_failed(task, f"WorkerLostError({story!r})", f"WorkerLostError: {story}"),)
        case events.TaskTimedOut(task=task, limit=limit, comes_again=comes_again):
            late = _failed(task, f"TimeLimitExceeded({limit!r})", f"TimeLimitExceeded: {limit!r}")
            return (late, _rejected(task, requeue=True)) if comes_again else (late,)
        case events.TaskRevoked(task=task, child=child):
            return (revoked_fields(task, signum=_TERMINATED_BY if child else None),)
        case events.TaskExpired(task=task):
            return (revoked_fields(task, signum=None, expired=True),)
        case events.TaskRefused(task=task, reason=reason, kind=kind):
            return (("task-failed", {"uuid": task.id, "exception": f"{kind}({reason!r})"}),)
        case _:
            return ()


def sent_event(message: Outgoing, clock: LamportClock, exchange: str, now: float) -> Outgoing:
    """Return the message with `task-sent`, for a task message that has been published.

    Its sender is the one that the header "origin" names: a child, where its parent publishes.
    """
    headers: Mapping[str, Any] = message.headers
    origin = str(headers.get("origin") or "gen@localhost")
    pid = origin.partition("@")[0].removeprefix("gen")
    fields = {
        "uuid": headers.get("id"),
        "name": headers.get("task"),
        "root_id": headers.get("root_id"),
        "parent_id": headers.get("parent_id"),
        "args": headers.get("argsrepr"),
        "kwargs": headers.get("kwargsrepr"),
        "retries": headers.get("retries"),
        "eta": headers.get("eta"),
        "expires": headers.get("expires"),
        "queue": message.routing_key,
        "exchange": message.exchange,
        "routing_key": message.routing_key,
    }
    writer = EventWriter(origin, int(pid) if pid.isdecimal() else 0, clock)
    return writer.message(exchange, "task-sent", writer.write("task-sent", fields, now))


def _moment(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _failed(task: events.TaskRef, exception: str, traceback: str) -> Fields:
    return "task-failed", {"uuid": task.id, "exception": exception, "traceback": traceback}


def _rejected(task: events.TaskRef, *, requeue: bool) -> Fields:
    return "task-rejected", {"uuid": task.id, "requeue": requeue}
