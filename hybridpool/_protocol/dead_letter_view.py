"""A dead letter, as its headers describe it."""

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
    """A message of a dead-letter queue."""

    #: the task's id; for other messages an id made from their content
    id: str
    task: str
    #: the dead-letter queue
    dead: str
    #: the queue it came from, and is sent back to
    queue: str
    reason: str
    worker: str
    when: str
    #: how many times its child died; 0: that is not the reason
    deliveries: int
    exitcode: int | None
    #: bytes
    peak: int | None
    history: tuple[str, ...]
    #: headers of the original message
    headers: Mapping[str, object]
    content_type: str
    #: of the body, in bytes
    size: int


def read_dead_letter(delivery: Delivery) -> StoredDeadLetter:
    """Read a message of a dead-letter queue; of messages that other programs have put there, the known fields."""
    headers = delivery.headers
    own = {name: value for name, value in headers.items() if not is_added_header(name)}
    return StoredDeadLetter(
        id=_text(headers, "id") or _derived_id(delivery, own),
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


def _derived_id(delivery: Delivery, own: Mapping[str, object]) -> str:
    """Return an id that is the same each time, as the broker may reorder headers and update its counts."""
    content = repr((sorted(own.items()), delivery.headers.get(MOMENT), delivery.body))
    return f"~{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _text(headers: Mapping[str, object], name: str) -> str:
    value = headers.get(name)
    return value if isinstance(value, str) else ""


def _number(headers: Mapping[str, object], name: str) -> int | None:
    value = headers.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
