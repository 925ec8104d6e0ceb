"""Messages that the broker holds back: a ladder of queues with a time to live, each twice as long as the one below.

The layout is that of Celery's native delayed delivery (kombu, `native_delayed_delivery`), so both use one ladder: level
n is a topic exchange and a queue, ``celery_delayed_n``. A routing key is 28 binary digits and the queue's name. At each
level the digit decides: 1, into the queue, where the message stays 2**n seconds and falls to the next level; 0, to the
next level at once. Below the last is ``celery_delayed_delivery``. Up to 8.5 years, whole seconds.

From there our messages reach their queue through one more exchange of our own, which has an alternate: what waited for
a queue that was deleted meanwhile ends in ``hybridpool_delayed.dead``. With nowhere to go it would stay in the ladder,
and a few dozen such messages stop a level for everybody (docs/decisions/0010-delay-in-the-broker.md).

Only the levels that a delay needs are declared, when it is needed.
"""

import asyncio
import hashlib
from typing import Final

from aiormq import exceptions as foreign

from hybridpool.brokers.rabbitmq.border import reason
from hybridpool.brokers.rabbitmq.methods import Names
from hybridpool.brokers.rabbitmq.topology import Topology
from hybridpool.errors import BrokerError

LEVELS: Final = 28
LONGEST: Final = 2**LEVELS - 1
_END: Final = "celery_delayed_delivery"
_OURS: Final = "hybridpool_delayed"
_DEAD: Final = f"{_OURS}.dead"
#: bytes of a routing key that the digits and their dots leave
_LONGEST_NAME: Final = 255 - 2 * LEVELS
#: queues whose binding is remembered
_MOST: Final = 1000
#: words that match any in a pattern
_WILD: Final = frozenset("*#")


class Ladder:
    """The ladder of one connection: what of it is known to be there."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        #: levels from 0 up that exist
        self._built = 0
        #: by queue: the turn in which it was bound
        self._bound: dict[str, int] = {}
        #: counts the times that queues were bound
        self._turn = 0
        self._lock = asyncio.Lock()

    async def prepare(self, queue: str, delay: int) -> tuple[str, str]:
        """See that a delay can be held and leads to the queue.

        A queue that was deleted and made again has lost its binding, and nobody tells us. So it is bound each time; of
        many who ask at once, one does it for all.

        :param delay: seconds, from 1; what is beyond 8.5 years counts as that.
        :returns: exchange and routing key to publish with.
        :raises BrokerError: if there is no such queue.
        """
        delay = min(delay, LONGEST)
        levels = delay.bit_length()
        asked = self._turn
        async with self._lock:
            for level in range(self._built, levels):
                await self._build(level)
                self._built = level + 1
            # what was bound in a later turn was bound after we asked
            if self._bound.get(queue, 0) <= asked:
                self._turn = turn = self._turn + 1
                await self._bind(queue)
                if len(self._bound) >= _MOST:
                    del self._bound[next(iter(self._bound))]
                self._bound[queue] = turn
        return _name(levels - 1), routing_key(queue, delay)

    async def _build(self, level: int) -> None:
        try:
            async with self._topology.scratch() as channel:
                await _declare_queue(channel, level)
        except foreign.ChannelPreconditionFailed:
            # It is there with other arguments: of the other kind, which serves as well.
            pass
        async with self._topology.scratch() as channel:
            if level == 0:
                await _declare_exit(channel)
            below = _name(level - 1) if level else _END
            for exchange in (below, _name(level)):
                await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
            await channel.queue_bind(_name(level), _name(level), routing_key=pattern(level, 1))
            await channel.exchange_bind(below, _name(level), routing_key=pattern(level, 0))

    async def _bind(self, queue: str) -> None:
        # Not "#.queue", as Celery has it: that would also match what is meant for "other.queue".
        exactly = "*." * LEVELS + _last_words(queue)
        try:
            async with self._topology.scratch() as channel:
                await channel.queue_bind(queue, _OURS, routing_key=exactly)
                if queue not in self._bound:
                    await channel.exchange_bind(_OURS, _END, routing_key=exactly)
        except foreign.ChannelNotFoundEntity as error:
            raise BrokerError(f"no queue takes a message for {queue}: {reason(error)}") from error


def routing_key(queue: str, delay: int) -> str:
    """Write a delay and a queue as a routing key."""
    return ".".join([*format(delay, f"0{LEVELS}b"), _last_words(queue)])


def _last_words(queue: str) -> str:
    """Return what stands for a queue in a routing key: its name, or what is made of it.

    A name may be too long beside the digits; and in a pattern the words * and # would match other queues' names.
    """
    raw = queue.encode(errors="surrogateescape")
    if len(raw) <= _LONGEST_NAME and not _WILD.intersection(queue.split(".")):
        return queue
    return f"hybridpool-{hashlib.sha256(raw).hexdigest()}"


def pattern(level: int, digit: int) -> str:
    """Write which routing keys have this digit for this level."""
    return "*." * (LEVELS - 1 - level) + f"{digit}.#"


async def _declare_queue(channel: Names, level: int) -> None:
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


async def _declare_exit(channel: Names) -> None:
    await channel.queue_declare(_DEAD, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.exchange_declare(_DEAD, exchange_type="fanout", durable=True)
    await channel.queue_bind(_DEAD, _DEAD)
    await channel.exchange_declare(_OURS, exchange_type="topic", durable=True, arguments={"alternate-exchange": _DEAD})


def _name(level: int) -> str:
    return f"celery_delayed_{level}"
