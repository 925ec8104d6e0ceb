"""Decides whether a message is run, and if not, why."""

import datetime as dt
from collections.abc import Collection
from typing import Final

import attrs

from hybridpool._message import Delivery, Head
from hybridpool._policy.content import IDENTITY_ENCODINGS, MIN_CHECKED_BYTES, Unreadable, resolve_media_type

#: a message that came back so often is refused: it seems to bring down workers. RabbitMQ 4 drops one at this number.
#: Deaths of children are counted apart, and have a lower limit
MAX_RETURNS: Final = 20
#: a message that came back so often only because the connection was lost while it waited here is published again,
#: before the broker drops it
RENEW_AFTER_RETURNS: Final = 10


@attrs.frozen
class Admitted:
    """Run it."""

    #: how its body is to be read, if its content type alone does not say that
    reading: str | None = None


@attrs.frozen
class Denied:
    """Do not run it; log and dead letter get the reason, the client gets the exception."""

    reason: str
    kind: str
    module: str
    argument: str


@attrs.frozen
class TooLate:
    """It has expired: its sender does not want it run any more."""


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
    #: bodies are decoded by an app of another library: encoding and compression are its affair
    are_bodies_opaque: bool = False


def admit(rules: AdmissionRules, head: Head, delivery: Delivery, now: dt.datetime) -> Admission:
    """Decide on a message whose head could be read.

    :param now: UTC.
    """
    if head.returned_before >= MAX_RETURNS:
        reason = f"it came back {head.returned_before} times without an answer: whatever took it died or was stopped"
        return Denied(reason, "WorkerLostError", "billiard.exceptions", reason)
    if len(delivery.body) > rules.max_size:
        reason = f"message of {len(delivery.body)} bytes is over worker_max_message_size ({rules.max_size})"
        return Denied(reason, "ValueError", "builtins", reason)
    admitted = _ADMITTED
    if (
        delivery.content_type not in rules.accepts
        or delivery.content_encoding not in IDENTITY_ENCODINGS
        or len(delivery.body) > MIN_CHECKED_BYTES
        or "compression" in delivery.headers
    ):
        if rules.are_bodies_opaque and delivery.content_type in rules.accepts:
            return _admit_by_time(rules, head, now)
        compression = delivery.headers.get("compression")
        told = resolve_media_type(
            delivery.content_type, delivery.content_encoding, compression, rules.accepts, rules.max_size
        )
        if isinstance(told, Unreadable):
            return Denied(told.reason, "ContentDisallowed", "kombu.exceptions", told.reason)
        admitted = Admitted(told)
    return _admit_by_time(rules, head, now, admitted)


def _admit_by_time(rules: AdmissionRules, head: Head, now: dt.datetime, admitted: Admitted = _ADMITTED) -> Admission:
    if head.name not in rules.tasks:
        return Denied(f"unknown task {head.name!r}", "NotRegistered", "celery.exceptions", head.name)
    if is_expired(head, now):
        return _TOO_LATE
    if head.eta is not None and head.eta > now:
        return TooEarly((head.eta - now).total_seconds())
    return admitted


def is_expired(head: Head, now: dt.datetime) -> bool:
    """Tell whether the time has passed in which the task was wanted."""
    return head.expires is not None and head.expires <= now
