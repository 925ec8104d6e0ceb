"""Messages that the broker holds back: a ladder of queues with a time to live, each twice as long as the one below.

The layout is that of Celery's native delayed delivery (kombu, `native_delayed_delivery`), so both use one ladder: level
n is a topic exchange and a queue, ``celery_delayed_n``. A routing key is 28 binary digits and the queue's name. At each
level the digit decides: 1, into the queue, where the message stays 2**n seconds and falls to the next level; 0, to the
next level at once. Below the last is ``celery_delayed_delivery``. Up to 8.5 years, whole seconds.

From there our messages reach their queue through one more exchange of our own, which has an alternate: what waited for
a queue that was deleted meanwhile ends in ``hybridpool_delayed.dead``. With nowhere to go it would stay in the ladder,
and a few dozen such messages stop a level for everybody (docs/decisions/0010-delay-in-the-broker.md). A queue that
is full and refuses would do the same. So a message whose time has come leaves the ladder for a queue beside its target,
``NAME.due``, and what waits for room waits there, in nobody's way.

Only the levels that a delay needs are declared, when it is needed.
"""

import asyncio
import hashlib
from typing import Final

from aiormq import exceptions as foreign

from hybridpool._brokers.rabbitmq.amqp.methods import Names
from hybridpool._brokers.rabbitmq.errors import reason
from hybridpool._brokers.rabbitmq.topology import Topology
from hybridpool.errors import QueueNotFound

LEVELS: Final = 28
LONGEST: Final = 2**LEVELS - 1
_END: Final = "celery_delayed_delivery"
_OURS: Final = "hybridpool_delayed"
_DEAD: Final = f"{_OURS}.dead"
#: how the names of queues end in which messages wait whose time has come
_DUE: Final = ".due"
#: what follows the queue's name in the routing key of a message of ours: Celery binds everything that ends with the
#: name to the queue itself, and would have it there a second time
_BY_DUE: Final = ".hybridpool_due"
#: how the routing key of a message begins that leaves NAME.due
_ARRIVES: Final = "hybridpool_arrives."
#: seconds for which a refusal is remembered: each question costs a channel, and a line of the broker's log
_REFUSED_FOR: Final = 30.0
#: bytes of a routing key that the digits, their dots and what follows the name leave
_LONGEST_NAME: Final = 255 - 2 * LEVELS - len(_BY_DUE)
#: queues whose binding is remembered
_MOST: Final = 1000
#: words that match any in a pattern
_WILD: Final = frozenset("*#")


class DelayQueues:
    """The ladder of one connection: what of it is known to be there."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        #: levels from 0 up that exist
        self._built = 0
        #: by queue: the turn in which it was bound
        self._bound: dict[str, int] = {}
        #: counts the times that queues were bound
        self._turn = 0
        #: queues with another one for what is due; False: it may not be had
        self._due: dict[str, bool] = {}
        #: queues that the broker drops by itself: nothing of theirs may stay behind
        self.fleeting: set[str] = set()
        self._refusal: tuple[float, foreign.ChannelAccessRefused] | None = None
        self._lock = asyncio.Lock()

    async def prepare(self, queue: str, delay: int) -> tuple[str, str]:
        """See that a delay can be held and leads to the queue.

        A queue that was deleted and made again has lost its binding, and nobody tells us. So it is bound each time; of
        many who ask at once, one does it for all.

        :param delay: seconds, from 1; what is beyond 8.5 years counts as that.
        :returns: exchange and routing key to publish with.
        :raises QueueNotFound: if there is no such queue.
        :raises AMQPError: if the broker refuses for another reason.
        """
        delay = min(delay, LONGEST)
        levels = delay.bit_length()
        asked = self._turn
        async with self._lock:
            self._look()
            try:
                for level in range(self._built, levels):
                    await self._build(level)
                    self._built = level + 1
                # what was bound in a later turn was bound after we asked
                if self._bound.get(queue, 0) <= asked:
                    self._turn = turn = self._turn + 1
                    await self._bind(queue)
                    if len(self._bound) >= _MOST:
                        oldest = next(iter(self._bound))
                        del self._bound[oldest]
                        self._due.pop(oldest, None)
                    self._bound[queue] = turn
            except foreign.ChannelAccessRefused as error:
                self._refusal = asyncio.get_running_loop().time(), error
                raise
        return _name(levels - 1), routing_key(queue, delay) + (_BY_DUE if self._due.get(queue) else "")

    def _look(self) -> None:
        """Repeat a refusal that is young: the rights of a user do not change with each message."""
        if self._refusal is not None:
            refused_at, error = self._refusal
            if asyncio.get_running_loop().time() - refused_at < _REFUSED_FOR:
                raise foreign.ChannelAccessRefused(*error.args)
            self._refusal = None

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
                if queue not in self.fleeting:
                    await channel.queue_bind(queue, _OURS, routing_key=_ARRIVES + _last_words(queue))
            if queue not in self._due:
                self._due[queue] = queue not in self.fleeting and await self._declare_due(queue, exactly + _BY_DUE)
        except foreign.ChannelNotFoundEntity as error:
            raise QueueNotFound(f"no queue takes a message for {queue}: {reason(error)}") from error

    async def _declare_due(self, queue: str, key: str) -> bool:
        """Make the queue in which what is due waits for room; False: it may not be had, or its name is too long."""
        try:
            async with self._topology.scratch() as channel:
                await channel.queue_declare(
                    f"{queue}{_DUE}",
                    durable=True,
                    arguments={
                        "x-queue-type": "quorum",
                        "x-dead-letter-strategy": "at-least-once",
                        "x-overflow": "reject-publish",
                        "x-dead-letter-exchange": _OURS,
                        "x-dead-letter-routing-key": _ARRIVES + _last_words(queue),
                        # what comes is dead-lettered at once
                        "x-message-ttl": 0,
                    },
                )
                await channel.queue_bind(f"{queue}{_DUE}", _OURS, routing_key=key)
                await channel.exchange_bind(_OURS, _END, routing_key=key)
        except (foreign.ChannelAccessRefused, foreign.ChannelPreconditionFailed, ValueError, TypeError):
            return False
        return True


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
