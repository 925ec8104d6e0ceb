"""Whether another worker on this broker has this worker's name.

Both work: they share the queues as any two workers do. But remote control orders to that name reach both, and monitors
take them for one worker. So the log says it once, at the start. Each worker answers `ping`, Celery's and this one too.
"""

import logging
import uuid
from typing import Final

import anyio
import msgspec

from hybridpool._brokers.base import Broker
from hybridpool._message import Delivery, Outgoing, QueueSpec
from hybridpool._protocol import remote_control
from hybridpool.errors import BrokerError

log = logging.getLogger(__name__)
#: seconds in which a worker of the same name has to answer
ANSWERS_WITHIN_S: Final = 2.0


async def warn_of_duplicate_name(broker: Broker, node: str, ready: anyio.Event) -> None:
    """Log one line if another worker has the name.

    :param ready: is set when this worker can answer itself.
    """
    await ready.wait()
    queue = f"{uuid.uuid4()}.reply.{remote_control.EXCHANGE}"
    answers, has_two = 0, anyio.Event()

    def count(delivery: Delivery) -> None:
        nonlocal answers
        broker.ack(delivery)
        answers += 1
        # One answer is this worker's own.
        if answers == 2:
            has_two.set()

    try:
        await broker.declare(QueueSpec(name=queue, private=True))
        await broker.consume(queue, 0, count)
        await broker.publish(_ping(node, queue))
        with anyio.move_on_after(ANSWERS_WITHIN_S):
            await has_two.wait()
            log.warning("another worker is named %s too; give each a name of its own with --hostname", node)
        await broker.delete(queue)
    except BrokerError as error:
        log.debug("whether another worker has this one's name is not known: %s", error)


def _ping(node: str, reply_to: str) -> Outgoing:
    order = {
        "method": "ping",
        "arguments": {},
        "destination": [node],
        "reply_to": {"exchange": "", "routing_key": reply_to},
        "ticket": str(uuid.uuid4()),
    }
    body = msgspec.json.encode(order)
    return Outgoing(body=body, exchange=remote_control.EXCHANGE, routing_key="", broadcast=True, persistent=False)
