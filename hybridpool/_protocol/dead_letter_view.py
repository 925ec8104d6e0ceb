"""A dead letter, as its headers tell it."""

import hashlib
from collections.abc import Mapping

import attrs

from hybridpool._message import Delivery
from hybridpool._protocol.dead_letter import (
    DEAD,
    DELIVERIES,
    EXIT,
    MOMENT,
    ORIGIN,
    PEAK,
    REASON,
    WORKER,
    is_added_header,
    notes,
)


@attrs.frozen(kw_only=True)
class StoredDeadLetter:
    """What a dead-letter queue holds, as far as its headers tell."""

    #: the task's; for what is no task message one that is made of its bytes
    id: str
    task: str
    #: where it lies
    dead: str
    #: where it came from, and goes back to
    queue: str
    reason: str
    worker: str
    when: str
    #: how many times its child died; 0: it is not here for that
    deliveries: int
    exitcode: int | None
    #: bytes
    peak: int | None
    history: tuple[str, ...]
    #: those of the message itself
    headers: Mapping[str, object]
    content_type: str
    #: of the body, in bytes
    size: int


def read_dead_letter(delivery: Delivery) -> StoredDeadLetter:
    """Read what lies in a dead-letter queue; what others have put there is read too, as far as it goes."""
    headers = delivery.headers
    own = {name: value for name, value in headers.items() if not is_added_header(name)}
    return StoredDeadLetter(
        id=_text(headers, "id") or _made_of(delivery, own),
        task=_text(headers, "task"),
        dead=delivery.queue,
        queue=_text(headers, ORIGIN) or _text(headers, "x-first-death-queue") or delivery.queue.removesuffix(DEAD),
        reason=_text(headers, REASON) or _text(headers, "x-first-death-reason"),
        worker=_text(headers, WORKER),
        when=_text(headers, MOMENT),
        deliveries=_number(headers, DELIVERIES) or 0,
        exitcode=_number(headers, EXIT),
        peak=_number(headers, PEAK),
        history=tuple(notes(headers)),
        headers=own,
        content_type=delivery.content_type or "",
        size=len(delivery.body),
    )


def _made_of(delivery: Delivery, own: Mapping[str, object]) -> str:
    """Return the same ID each time; the broker may put headers into another order, and counts in its own."""
    seen = repr((sorted(own.items()), delivery.headers.get(MOMENT), delivery.body))
    return f"~{hashlib.sha256(seen.encode()).hexdigest()[:12]}"


def _text(headers: Mapping[str, object], name: str) -> str:
    value = headers.get(name)
    return value if isinstance(value, str) else ""


def _number(headers: Mapping[str, object], name: str) -> int | None:
    value = headers.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
