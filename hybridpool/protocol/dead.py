"""What is written on a message that goes round again or to a dead-letter queue."""

import datetime as dt
from collections.abc import Mapping

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


def _again(delivery: Delivery, queue: str, more: Mapping[str, object]) -> Outgoing:
    return Outgoing(
        body=delivery.body,
        routing_key=queue,
        headers={**delivery.headers, **more},
        content_type=delivery.content_type or "application/octet-stream",
        content_encoding=delivery.content_encoding or "binary",
        correlation_id=delivery.correlation_id,
        reply_to=delivery.reply_to,
        priority=delivery.priority,
        mandatory=True,
    )
