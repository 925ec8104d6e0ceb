"""Messages that are written again: for a dead-letter queue, or for another attempt at once or later."""

import datetime as dt
from collections.abc import Mapping

import attrs

from hybridpool._ipc.codec import JSON
from hybridpool._message import Delivery, Outgoing, whole_seconds
from hybridpool._outcome import Lost
from hybridpool._protocol.chord_message import with_chord
from hybridpool._protocol.task_headers import LOST_BEFORE

#: why a message is in a dead-letter queue
REASON = "x-hybridpool-reason"
#: the queue it came from
ORIGIN = "x-hybridpool-queue"
#: the worker that refused it
WORKER = "x-hybridpool-worker"
#: when, ISO 8601, UTC
MOMENT = "x-hybridpool-time"
#: how many times a child died in it
DELIVERIES = "x-hybridpool-deliveries"
#: how its last child ended, as subprocess gives it: negative for a signal
EXIT = "x-hybridpool-exitcode"
#: bytes of memory that its last child had resident at most
PEAK = "x-hybridpool-peak"
#: the last deaths of its children, one text each
HISTORY = "x-hybridpool-history"
#: it came before its time, and monitors were told that it was received
POSTPONED = "x-hybridpool-postponed"
#: the prefix of our headers
HEADER_PREFIX = "x-hybridpool-"
#: the suffix of dead-letter queues
DEAD = ".dead"

#: headers of RabbitMQ's own dead-lettering: they would make the next one look like a loop, and grow
_BROKER_HEADERS = frozenset(
    {
        "x-death",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
        # of quorum queues: how often it was delivered
        "x-delivery-count",
        "x-acquired-count",
        # ours: marks a message that is returned if no queue takes it
        "x-hybridpool-return",
        # ours: written again where it holds
        POSTPONED,
    }
)
#: headers that make RabbitMQ copy a message to further queues, which it has done already; kept under other names
_RENAMED_HEADERS = {"CC": "x-hybridpool-cc", "BCC": "x-hybridpool-bcc"}
#: how the body is compressed (Celery)
COMPRESSION = "compression"
#: headers that only repeat the body, or are not needed to run the message
_EXPENDABLE = frozenset({"argsrepr", "kwargsrepr", HISTORY})

#: headers that are needed to identify a dead letter, to run it when it is sent back, and to judge it
_NEEDED = frozenset(
    {
        *("task", "id", "root_id", "parent_id", "group", "retries", "eta", "expires", "timelimit", "lang"),
        *("ignore_result", REASON, ORIGIN, WORKER, MOMENT, DELIVERIES, EXIT, PEAK, HISTORY, LOST_BEFORE),
    }
)

#: the headers of a message must fit into one frame; the broker client drops `expendable` ones if they do not
_MAX_REASON_CHARS = 2000
_MAX_NOTE_CHARS = 200
_MAX_NOTES = 10


def dead_queue(queue: str) -> str:
    """Return the name of a queue's dead-letter queue."""
    return f"{queue}{DEAD}"


def write_dead_letter(
    delivery: Delivery, reason: str, worker: str, now: dt.datetime, lost: Lost | None = None, deliveries: int = 1
) -> Outgoing:
    """Write the message again for the dead-letter queue, body unchanged, with what happened to it in the headers.

    :param lost: how its last child ended, if that is the reason.
    :param deliveries: how many times its child died, the last time included.
    """
    added: dict[str, object] = {
        REASON: reason[:_MAX_REASON_CHARS],
        ORIGIN: delivery.queue,
        WORKER: worker,
        MOMENT: now.isoformat(),
    }
    if lost is not None:
        added |= {DELIVERIES: deliveries, **_history(delivery, lost, worker, now)}
        if lost.exitcode is not None:
            added[EXIT] = lost.exitcode
        if lost.peak:
            added[PEAK] = lost.peak
    letter = _copy(delivery, dead_queue(delivery.queue), added)
    return attrs.evolve(letter, expendable=frozenset(letter.headers))


def write_redelivery(
    delivery: Delivery, times: int, lost: Lost | None = None, worker: str = "", now: dt.datetime | None = None
) -> Outgoing:
    """Write the message again for its own queue, with the number of times its child has died.

    :param lost: the last of these deaths; None: there is another reason for the redelivery.
    """
    more = {} if lost is None or now is None else _history(delivery, lost, worker, now)
    return _copy(delivery, delivery.queue, {LOST_BEFORE: times, **more})


def _history(delivery: Delivery, lost: Lost, worker: str, now: dt.datetime) -> Mapping[str, object]:
    """Return the history with one more death; other workers may have written the earlier ones."""
    note = f"{now.isoformat()} {worker} {lost.child or '-'}: {lost.cause}"
    return {HISTORY: [*notes(delivery.headers), note[:_MAX_NOTE_CHARS]][-_MAX_NOTES:]}


def notes(headers: Mapping[str, object]) -> list[str]:
    """Read the history; a sender may have written any value there."""
    found = headers.get(HISTORY)
    return [note[:_MAX_NOTE_CHARS] for note in found if isinstance(note, str)] if isinstance(found, list) else []


def write_retry(delivery: Delivery, retries: int, wait: float, now: dt.datetime, body: bytes | None) -> Outgoing:
    """Write the message again for its next attempt: the same id, one more retry.

    :param retries: attempts before that one.
    :param wait: seconds until then.
    :param body: another body; None: the same.
    """
    eta = (now + dt.timedelta(seconds=wait)).isoformat() if wait else None
    message = _copy(delivery, delivery.queue, {"retries": retries, "eta": eta, LOST_BEFORE: 0})
    if body is not None:
        body = with_chord(delivery, body)
        headers = {name: value for name, value in message.headers.items() if name != COMPRESSION}
        message = attrs.evolve(
            message, body=body, headers=headers, content_type=JSON, content_encoding="utf-8", has_new_body=True
        )
    return attrs.evolve(message, delay=whole_seconds(wait))


def write_delayed(delivery: Delivery, wait: float) -> Outgoing:
    """Write the message again for its own queue, to arrive after a delay."""
    return attrs.evolve(_copy(delivery, delivery.queue, {POSTPONED: True}), delay=whole_seconds(wait))


def was_postponed(headers: Mapping[str, object]) -> bool:
    """Tell whether a message came before its time once, as `write_delayed` notes."""
    return POSTPONED in headers


def _copy(delivery: Delivery, queue: str, more: Mapping[str, object]) -> Outgoing:
    """Write the message again, with further headers; what its sender wrote stays byte for byte."""
    theirs = {name: value for name, value in delivery.headers.items() if name not in _BROKER_HEADERS}
    copies = {ours: theirs.pop(name) for name, ours in _RENAMED_HEADERS.items() if name in theirs}
    return Outgoing(
        body=delivery.body,
        routing_key=queue,
        headers={**theirs, **copies, **more},
        content_type=delivery.content_type or "application/octet-stream",
        content_encoding=delivery.content_encoding or "binary",
        correlation_id=delivery.correlation_id,
        reply_to=delivery.reply_to,
        priority=delivery.priority,
        mandatory=True,
        original=delivery.properties,
        kept=frozenset(theirs.keys() - more.keys()),
        expendable=_EXPENDABLE,
    )


def strip_headers(letter: Outgoing) -> Outgoing:
    """Drop the headers of a dead letter that are not needed or too long.

    The reason tells how many were dropped.
    """
    kept = {name: value for name, value in letter.headers.items() if name in _NEEDED and _is_short(value)}
    suffix = f" [left out: {len(letter.headers) - len(kept)} headers that cannot be written again]"
    reason = str(letter.headers.get(REASON, ""))[: _MAX_REASON_CHARS - len(suffix)]
    return attrs.evolve(letter, headers={**kept, REASON: reason + suffix})


def _is_short(value: object) -> bool:
    match value:
        case None | bool() | float():
            return True
        case int():
            return abs(value) < 2**63
        case str():
            return len(value) <= _MAX_REASON_CHARS
        case [*items]:
            return len(items) <= _MAX_NOTES and all(isinstance(item, str | int | float | None) for item in items)
        case _:
            return False


def copy_message(delivery: Delivery, queue: str) -> Outgoing:
    """Write the message again without changes."""
    return _copy(delivery, queue, {})


def restore_message(delivery: Delivery, queue: str, now: dt.datetime) -> Outgoing:
    """Write a dead letter again as the original message, with its count of retries and deliveries reset.

    An `expires` that has passed is dropped: with it a worker would not run the message.
    """
    message = copy_message(delivery, queue)
    headers = {name: value for name, value in message.headers.items() if not is_added_header(name)}
    changed: dict[str, object] = {}
    if "retries" in headers:
        changed["retries"] = 0
    if _is_past(headers.get("expires"), now):
        changed["expires"] = None
    return attrs.evolve(message, headers={**headers, **changed}, kept=message.kept - changed.keys())


def is_added_header(name: str) -> bool:
    """Tell whether a header was written by a worker or the broker, and not by the sender."""
    return name.startswith(HEADER_PREFIX) or name in _BROKER_HEADERS


def _is_past(value: object, now: dt.datetime) -> bool:
    try:
        moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return False
    return isinstance(moment, dt.datetime) and (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)) < now
