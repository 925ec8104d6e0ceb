"""Delayed messages, held by the broker in a chain of queues with a time to live, each twice as long as the next.

The layout is that of Celery's native delayed delivery (kombu, `native_delayed_delivery`), so both use the same queues:
level n is a topic exchange and a queue, ``celery_delayed_n``. A routing key is 28 binary digits and the queue's name.
At each level the digit decides: 1, into the queue, where the message stays 2**n seconds and is dead-lettered to the
next lower level; 0, to the next lower level at once. Below level 0 is ``celery_delayed_delivery``. Up to 8.5 years,
whole seconds.

From there hybridpool's messages reach their queue through one more exchange, which has an alternate exchange: a message
for a queue that was deleted meanwhile ends in ``hybridpool_delayed.dead``. Without a destination it would stay in its
level, and a few dozen such messages stop that level for all others (docs/decisions/0010-delay-in-the-broker.md). A
queue that is full and refuses would have the same effect. So a message whose time has come goes to a queue beside its
target, ``NAME.due``, and waits for room there, where it delays no other queue's messages.

Only the levels that a delay needs are declared, when it is needed.
"""

import asyncio
import hashlib
from typing import Final

from aiormq import exceptions as foreign

from hybridpool._brokers.rabbitmq.aiormq_compat import AmqpChannel
from hybridpool._brokers.rabbitmq.errors import reason
from hybridpool._brokers.rabbitmq.topology import Topology
from hybridpool.errors import QueueNotFound

LEVELS: Final = 28
MAX_DELAY_S: Final = 2**LEVELS - 1
_CELERY_EXCHANGE: Final = "celery_delayed_delivery"
_EXCHANGE: Final = "hybridpool_delayed"
_DEAD_QUEUE: Final = f"{_EXCHANGE}.dead"
#: suffix of the names of queues in which due messages wait for room
_DUE_SUFFIX: Final = ".due"
#: follows the queue's name in the routing key of hybridpool's messages: Celery binds every key that ends with the name
#: to the queue itself, which would get the message a second time
_DUE_KEY: Final = ".hybridpool_due"
#: prefix of the routing key of a message that leaves NAME.due
_ARRIVAL_PREFIX: Final = "hybridpool_arrives."
#: seconds for which a refusal is remembered: each attempt costs a channel, and a line in the broker's log
_REFUSAL_VALID_S: Final = 30.0
#: bytes of a routing key that remain beside the digits, their dots and the suffix
_MAX_NAME_BYTES: Final = 255 - 2 * LEVELS - len(_DUE_KEY)
#: queues whose binding is remembered
_MAX_REMEMBERED_QUEUES: Final = 1000
#: words that are wildcards in a binding's key
_WILDCARDS: Final = frozenset("*#")


class DelayQueues:
    """The delay queues, as far as they are known to exist on one connection."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        #: number of levels, from 0 up, that exist
        self._declared_levels = 0
        #: by queue: the number of the round in which it was bound
        self._bound: dict[str, int] = {}
        #: number of the last round
        self._round = 0
        #: by queue: whether it has a queue for due messages; False: it cannot have one
        self._due: dict[str, bool] = {}
        #: queues that the broker deletes by itself: no queue for due messages may remain of them
        self.temporary: set[str] = set()
        self._refusal: tuple[float, foreign.ChannelAccessRefused] | None = None
        self._lock = asyncio.Lock()

    async def prepare(self, queue: str, delay: int) -> tuple[str, str]:
        """Make sure that the levels for a delay exist and lead to the queue.

        A queue that was deleted and made again has lost its binding, and the broker does not tell. So it is bound for
        each delayed message; of several callers at once, one binds it for all. A caller may use a binding only if it
        was made after its call: one that was made before may have been lost between the two. `asked` is the round at
        the time of the call; the queue is bound again unless a later round did that while the caller waited for the
        lock.

        :param delay: seconds, from 1; more than `MAX_DELAY_S`, 8.5 years, counts as that.
        :returns: exchange and routing key to publish with.
        :raises QueueNotFound: if there is no such queue.
        :raises AMQPError: if the broker refuses for another reason.
        """
        delay = min(delay, MAX_DELAY_S)
        levels = delay.bit_length()
        asked = self._round
        async with self._lock:
            self._raise_recent_refusal()
            try:
                for level in range(self._declared_levels, levels):
                    await self._declare_level(level)
                    self._declared_levels = level + 1
                if self._bound.get(queue, 0) <= asked:
                    self._round = current = self._round + 1
                    await self._bind(queue)
                    if len(self._bound) >= _MAX_REMEMBERED_QUEUES:
                        oldest = next(iter(self._bound))
                        del self._bound[oldest]
                        self._due.pop(oldest, None)
                    self._bound[queue] = current
            except foreign.ChannelAccessRefused as error:
                self._refusal = asyncio.get_running_loop().time(), error
                raise
        return _name(levels - 1), routing_key(queue, delay) + (_DUE_KEY if self._due.get(queue) else "")

    def _raise_recent_refusal(self) -> None:
        """Raise a recent refusal again: the rights of a user do not change with each message."""
        if self._refusal is not None:
            refused_at, error = self._refusal
            if asyncio.get_running_loop().time() - refused_at < _REFUSAL_VALID_S:
                raise foreign.ChannelAccessRefused(*error.args)
            self._refusal = None

    async def _declare_level(self, level: int) -> None:
        try:
            async with self._topology.temporary_channel() as channel:
                await _declare_level_queue(channel, level)
        except foreign.ChannelPreconditionFailed:
            # It exists with other arguments: as a classic queue, which serves as well.
            pass
        async with self._topology.temporary_channel() as channel:
            if level == 0:
                await _declare_exchange(channel)
            below = _name(level - 1) if level else _CELERY_EXCHANGE
            for exchange in (below, _name(level)):
                await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
            await channel.queue_bind(_name(level), _name(level), routing_key=pattern(level, 1))
            await channel.exchange_bind(below, _name(level), routing_key=pattern(level, 0))

    async def _bind(self, queue: str) -> None:
        # Not "#.queue", as Celery has it: that would also match what is meant for "other.queue".
        exactly = "*." * LEVELS + _key_suffix(queue)
        try:
            async with self._topology.temporary_channel() as channel:
                await channel.queue_bind(queue, _EXCHANGE, routing_key=exactly)
                if queue not in self._bound:
                    await channel.exchange_bind(_EXCHANGE, _CELERY_EXCHANGE, routing_key=exactly)
                if queue not in self.temporary:
                    await channel.queue_bind(queue, _EXCHANGE, routing_key=_ARRIVAL_PREFIX + _key_suffix(queue))
            if queue not in self._due:
                self._due[queue] = queue not in self.temporary and await self._declare_due(queue, exactly + _DUE_KEY)
        except foreign.ChannelNotFoundEntity as error:
            raise QueueNotFound(f"no queue takes a message for {queue}: {reason(error)}") from error

    async def _declare_due(self, queue: str, key: str) -> bool:
        """Make the queue in which due messages wait for room; False: the broker refuses, or its name is too long."""
        try:
            async with self._topology.temporary_channel() as channel:
                await channel.queue_declare(
                    f"{queue}{_DUE_SUFFIX}",
                    durable=True,
                    arguments={
                        "x-queue-type": "quorum",
                        "x-dead-letter-strategy": "at-least-once",
                        "x-overflow": "reject-publish",
                        "x-dead-letter-exchange": _EXCHANGE,
                        "x-dead-letter-routing-key": _ARRIVAL_PREFIX + _key_suffix(queue),
                        # each message is dead-lettered at once
                        "x-message-ttl": 0,
                    },
                )
                await channel.queue_bind(f"{queue}{_DUE_SUFFIX}", _EXCHANGE, routing_key=key)
                await channel.exchange_bind(_EXCHANGE, _CELERY_EXCHANGE, routing_key=key)
        except (foreign.ChannelAccessRefused, foreign.ChannelPreconditionFailed, ValueError, TypeError):
            return False
        return True


def routing_key(queue: str, delay: int) -> str:
    """Write a delay and a queue as a routing key."""
    return ".".join([*format(delay, f"0{LEVELS}b"), _key_suffix(queue)])


def _key_suffix(queue: str) -> str:
    """Return the part of a routing key that names a queue: its name, or a hash of it.

    A name may be too long beside the digits; and in a binding the words * and # would match other queues' names.
    """
    raw = queue.encode(errors="surrogateescape")
    if len(raw) <= _MAX_NAME_BYTES and not _WILDCARDS.intersection(queue.split(".")):
        return queue
    return f"hybridpool-{hashlib.sha256(raw).hexdigest()}"


def pattern(level: int, digit: int) -> str:
    """Return the binding key that matches routing keys with this digit for this level."""
    return "*." * (LEVELS - 1 - level) + f"{digit}.#"


async def _declare_level_queue(channel: AmqpChannel, level: int) -> None:
    await channel.queue_declare(
        _name(level),
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            # Otherwise a message that is dead-lettered while the broker restarts could be lost.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": _name(level - 1) if level else _CELERY_EXCHANGE,
            "x-message-ttl": 2**level * 1000,
        },
    )


async def _declare_exchange(channel: AmqpChannel) -> None:
    await channel.queue_declare(_DEAD_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.exchange_declare(_DEAD_QUEUE, exchange_type="fanout", durable=True)
    await channel.queue_bind(_DEAD_QUEUE, _DEAD_QUEUE)
    await channel.exchange_declare(
        _EXCHANGE, exchange_type="topic", durable=True, arguments={"alternate-exchange": _DEAD_QUEUE}
    )


def _name(level: int) -> str:
    return f"celery_delayed_{level}"
