"""Whether a message is run, and if not, why."""

import datetime as dt
from collections.abc import Collection
from typing import Final

import attrs

from hybridpool._message import Delivery, Head
from hybridpool._policy.content import IDENTITY_ENCODINGS, MIN_CHECKED_BYTES, Unreadable, resolve_media_type

#: a message that came back so often is taken for one that brings down workers; RabbitMQ 4 gives up at the same number.
#: A child's death is counted apart, and has a lower limit
RETURNS: Final = 20
#: a message that came back so often only because the connection was lost while it waited here is published again,
#: before the broker counts it out
RENEWED: Final = 10


@attrs.frozen
class Admitted:
    """Run it."""

    #: how its body is to be read, if that is not said by its content type alone
    reading: str | None = None


@attrs.frozen
class Denied:
    """Do not run it; the reason goes into the log and onto the dead letter, the exception to whoever waits."""

    reason: str
    kind: str
    module: str
    argument: str


@attrs.frozen
class TooLate:
    """Its time has passed: whoever sent it did not want it any more."""


@attrs.frozen
class TooEarly:
    """Its time has not come."""

    #: until then
    seconds: float


Admission = Admitted | Denied | TooLate | TooEarly
_ADMITTED = Admitted()
_TOO_LATE = TooLate()


@attrs.frozen(kw_only=True)
class AdmissionRules:
    """What this worker runs."""

    tasks: Collection[str]
    #: content types
    accepts: Collection[str]
    #: bytes
    max_size: int


def admit(gate: AdmissionRules, head: Head, delivery: Delivery, now: dt.datetime) -> Admission:
    """Decide on a message whose head could be read.

    :param now: UTC.
    """
    if head.returned_before >= RETURNS:
        reason = f"it came back {head.returned_before} times without an answer: whatever took it died or was stopped"
        return Denied(reason, "WorkerLostError", "billiard.exceptions", reason)
    if len(delivery.body) > gate.max_size:
        reason = f"message of {len(delivery.body)} bytes is over worker_max_message_size ({gate.max_size})"
        return Denied(reason, "ValueError", "builtins", reason)
    admitted = _ADMITTED
    if (
        delivery.content_type not in gate.accepts
        or delivery.content_encoding not in IDENTITY_ENCODINGS
        or len(delivery.body) > MIN_CHECKED_BYTES
        or "compression" in delivery.headers
    ):
        compression = delivery.headers.get("compression")
        told = resolve_media_type(
            delivery.content_type, delivery.content_encoding, compression, gate.accepts, gate.max_size
        )
        if isinstance(told, Unreadable):
            return Denied(told.reason, "ContentDisallowed", "kombu.exceptions", told.reason)
        admitted = Admitted(told)
    if head.name not in gate.tasks:
        return Denied(f"unknown task {head.name!r}", "NotRegistered", "celery.exceptions", head.name)
    if is_expired(head, now):
        return _TOO_LATE
    if head.eta is not None and head.eta > now:
        return TooEarly((head.eta - now).total_seconds())
    return admitted


def is_expired(head: Head, now: dt.datetime) -> bool:
    """Tell whether the time has passed in which the task was wanted."""
    return head.expires is not None and head.expires <= now
