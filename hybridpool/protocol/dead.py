"""What is written on a message that goes round again, at once or later, or to a dead-letter queue."""

import datetime as dt
from collections.abc import Mapping

import attrs

from hybridpool.child.codec import JSON
from hybridpool.message import Delivery, Outgoing
from hybridpool.protocol.head import LOST_BEFORE

#: why a message is in a dead-letter queue
REASON = "x-hybridpool-reason"
#: the queue it came from
ORIGIN = "x-hybridpool-queue"
#: the worker that refused it
WORKER = "x-hybridpool-worker"
#: when, ISO 8601, UTC
MOMENT = "x-hybridpool-time"

#: what RabbitMQ notes on its own dead-lettering: kept, it would stop the next one for a loop, and grow for ever
_OF_THE_BROKER = frozenset(
    {
        "x-death",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
    }
)

#: characters; an AMQP header table must fit into one frame
_REASON_LIMIT = 2000


def dead_queue(queue: str) -> str:
    """Return the name of a queue's dead-letter queue."""
    return f"{queue}.dead"


def dead_letter(delivery: Delivery, reason: str, worker: str, now: dt.datetime) -> Outgoing:
    """Write the message again for the dead-letter queue, body untouched, with its story in the headers."""
    story = {REASON: reason[:_REASON_LIMIT], ORIGIN: delivery.queue, WORKER: worker, MOMENT: now.isoformat()}
    return _again(delivery, dead_queue(delivery.queue), story)


def once_more(delivery: Delivery, lost: int) -> Outgoing:
    """Write the message again for its own queue, with the number of times its child has died."""
    return _again(delivery, delivery.queue, {LOST_BEFORE: lost})


def next_attempt(delivery: Delivery, retries: int, wait: float, now: dt.datetime, body: bytes | None) -> Outgoing:
    """Write the message again for its next attempt: the same id, one more retry.

    :param retries: attempts before that one.
    :param wait: seconds until then.
    :param body: another body; None: the same.
    """
    eta = (now + dt.timedelta(seconds=wait)).isoformat() if wait else None
    message = _again(delivery, delivery.queue, {"retries": retries, "eta": eta, LOST_BEFORE: 0})
    if body is not None:
        message = attrs.evolve(message, body=body, content_type=JSON, content_encoding="utf-8")
    return attrs.evolve(message, delay=int(wait))


def later(delivery: Delivery, wait: float) -> Outgoing:
    """Write the message again for its own queue, to be there when its time has come."""
    return attrs.evolve(_again(delivery, delivery.queue, {}), delay=int(wait))


def _again(delivery: Delivery, queue: str, more: Mapping[str, object]) -> Outgoing:
    return Outgoing(
        body=delivery.body,
        routing_key=queue,
        headers={**{name: value for name, value in delivery.headers.items() if name not in _OF_THE_BROKER}, **more},
        content_type=delivery.content_type or "application/octet-stream",
        content_encoding=delivery.content_encoding or "binary",
        correlation_id=delivery.correlation_id,
        reply_to=delivery.reply_to,
        priority=delivery.priority,
        mandatory=True,
    )
