"""Messages that the broker holds back: a ladder of queues with a time to live, each twice as long as the one below.

The layout is that of Celery's native delayed delivery (kombu, `native_delayed_delivery`), so both use one ladder: level
n is a topic exchange and a queue, ``celery_delayed_n``. A routing key is 28 binary digits and the queue's name. At each
level the digit decides: 1, into the queue, where the message stays 2**n seconds and falls to the next level; 0, to the
next level at once. Below the last, ``celery_delayed_delivery`` hands it to the queue. Up to 8.5 years, whole seconds.

Only the levels that a delay needs are declared, when it is needed.
"""

import asyncio
from typing import Final

from aiormq import exceptions as foreign
from aiormq.channel import Channel

from hybridpool.brokers.rabbitmq.topology import Topology

LEVELS: Final = 28
LONGEST: Final = 2**LEVELS - 1
_END: Final = "celery_delayed_delivery"


class Ladder:
    """The ladder of one connection: what of it is known to be there."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        #: levels from 0 up that exist
        self._built = 0
        self._bound: set[str] = set()
        self._lock = asyncio.Lock()

    async def prepare(self, queue: str, delay: int) -> tuple[str, str]:
        """See that a delay can be held and leads to the queue.

        :param delay: seconds, from 1; what is beyond 8.5 years counts as that.
        :returns: exchange and routing key to publish with.
        """
        delay = min(delay, LONGEST)
        levels = delay.bit_length()
        if levels > self._built or queue not in self._bound:
            async with self._lock:
                for level in range(self._built, levels):
                    await self._build(level)
                    self._built = level + 1
                if queue not in self._bound:
                    await self._bind(queue)
                    self._bound.add(queue)
        return _name(levels - 1), routing_key(queue, delay)

    async def _build(self, level: int) -> None:
        try:
            async with self._topology.scratch() as channel:
                await _declare_queue(channel, level)
        except foreign.ChannelPreconditionFailed:
            # It is there with other arguments: of the other kind, which serves as well.
            pass
        async with self._topology.scratch() as channel:
            below = _name(level - 1) if level else _END
            for exchange in (below, _name(level)):
                await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
            await channel.queue_bind(_name(level), _name(level), routing_key=_pattern(level, 1))
            await channel.exchange_bind(below, _name(level), routing_key=_pattern(level, 0))

    async def _bind(self, queue: str) -> None:
        async with self._topology.scratch() as channel:
            await channel.queue_bind(queue, _END, routing_key=f"#.{queue}")


def routing_key(queue: str, delay: int) -> str:
    """Write a delay and a queue as a routing key."""
    return ".".join([*format(delay, f"0{LEVELS}b"), queue])


async def _declare_queue(channel: Channel, level: int) -> None:
    await channel.queue_declare(
        _name(level),
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            # Else a message that falls while the broker restarts could be lost.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": _name(level - 1) if level else _END,
            "x-message-ttl": 2**level * 1000,
        },
    )


def _name(level: int) -> str:
    return f"celery_delayed_{level}"


def _pattern(level: int, digit: int) -> str:
    return "*." * (LEVELS - 1 - level) + f"{digit}.#"
