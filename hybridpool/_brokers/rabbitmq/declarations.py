"""What there must be at the broker: queues and consumers, remembered, and brought about on each new session."""

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Final

import attrs

from hybridpool._brokers.rabbitmq.consume import Subscription
from hybridpool._brokers.rabbitmq.delayed_delivery import LONGEST
from hybridpool._brokers.rabbitmq.errors import translated
from hybridpool._brokers.rabbitmq.session import Session
from hybridpool._message import Outgoing, QueueSpec
from hybridpool.errors import BrokerError, BrokerUnavailable

log = logging.getLogger(__name__)
#: queues that are not consumed and whose declaration is remembered; the one declared longest ago goes first
MOST: Final = 1000


class Declarations:
    """Declared queues and wanted consumers.

    After a reconnect the queues that are consumed are declared at once; the others, which this process has only sent
    to, when it sends to them again: there may be any number of them, and a broker has most of them still.

    What is declared while there is no session, or whose session breaks meanwhile, is done by the next one. Declarations
    and session are brought together under one lock, so that none is missed or granted twice.
    """

    def __init__(self) -> None:
        #: the session on which every wish is granted; None while there is none
        self.session: Session | None = None
        self._queues: dict[str, QueueSpec] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._lock = asyncio.Lock()
        #: queues that were declared in an earlier session, and not in this one
        self.stale: set[str] = set()
        #: queues that should be consumed, and that the broker has refused to this session
        self.refused: set[str] = set()

    async def restore(
        self, session: Session, step: Callable[[], None] = lambda: None, *, is_first: bool = False
    ) -> None:
        """Grant every wish on a new session and take it as the current one.

        A queue that is refused is left out and stands in `refused`, so that it does not keep all others waiting.

        :param step: called after each step, of which there may be many.
        :param is_first: no session was restored before: then a refusal is an error, and the program's start fails.
        :raises BrokerError: if the connection is lost, or a wish is refused to the first session.
        """
        async with self._lock:
            with session.guard("restore"):
                for spec in self._queues.values():
                    self._note(spec, session)
                self.refused = set()
                wanted = [spec for name, spec in self._queues.items() if name in self._subscriptions]
                self.stale = self._queues.keys() - self._subscriptions.keys()
                for spec in wanted:
                    with self._refusable(spec.name, is_strict=is_first and spec.expires is None):
                        await session.topology.declare(_named(spec, session))
                    step()
                # before the first delivery: whoever gets one may want to publish
                self.session = session
                for queue, wish in self._subscriptions.items():
                    if queue not in self.refused:
                        with self._refusable(queue, is_strict=is_first):
                            await self._consume(session, wish)
                    step()
                # last, because it takes a while, and is there already as a rule
                for spec in wanted:
                    if spec.is_target and spec.name not in self.refused:
                        with self._refusable(spec.name, is_strict=is_first):
                            await session.publisher.ladder.prepare(spec.name, LONGEST)
                        step()

    @contextmanager
    def _refusable(self, queue: str, *, is_strict: bool) -> Generator[None]:
        """Go on without a queue that the broker refuses: it may be on a node that is away, or a right was taken away.

        :raises BrokerError: if the connection is lost, or a refusal is an error.
        """
        try:
            with translated(f"restore {queue}"):
                yield
        except BrokerUnavailable:
            raise
        except BrokerError as error:
            if is_strict:
                raise
            self.leave_out(queue, error)

    def leave_out(self, queue: str, error: BrokerError) -> None:
        """Note that the broker refuses a queue: it is asked again later, and the others are consumed meanwhile."""
        self.refused.add(queue)
        log.warning("queue %s is not consumed for now, and is tried again: %s", queue, error)

    async def freshen(self, message: Outgoing) -> None:
        """Before a message is sent: declare its queue, if that was last done in an earlier session.

        :raises BrokerError: if the broker refuses.
        """
        queue = message.routing_key
        if message.exchange or queue not in self.stale:
            return
        async with self._lock:
            spec = self._queues.get(queue)
            if spec is not None and self.session is not None and queue in self.stale:
                with self.session.guard(f"declare {queue}"):
                    await self.session.topology.declare(_named(spec, self.session))
            self.stale.discard(queue)

    async def renew(self, session: Session, queue: str) -> None:
        """Grant the wish for a consumer again, whose queue was deleted.

        :raises BrokerError: if that cannot be done.
        """
        async with self._lock:
            wish = self._subscriptions.get(queue)
            if wish is None or queue in session.consumer:
                self.refused.discard(queue)
                return
            with session.guard(f"consume {queue} again"):
                if queue in self._queues:
                    await session.topology.declare(_named(self._queues[queue], session))
                await self._consume(session, wish)
            self.refused.discard(queue)

    async def declare(self, spec: QueueSpec) -> None:
        """Wish for a queue.

        :raises BrokerError: if the broker refuses.
        """
        async with self._lock:
            if self.session is not None:
                with suppress(BrokerUnavailable), self.session.guard(f"declare {spec.name}"):
                    self._note(spec, self.session)
                    await self.session.topology.declare(_named(spec, self.session))
                    if spec.is_target:
                        await self.session.publisher.ladder.prepare(spec.name, LONGEST)
                    self.stale.discard(spec.name)
            self._remember(spec)

    def _remember(self, spec: QueueSpec) -> None:
        self._queues.pop(spec.name, None)
        self._queues[spec.name] = spec
        if self.session is None:
            # declared by the next session, or with the first message
            self.stale.add(spec.name)
        if len(self._queues) - len(self._subscriptions) > MOST:
            oldest = next((name for name in self._queues if name not in self._subscriptions), spec.name)
            del self._queues[oldest]
            self.stale.discard(oldest)

    @staticmethod
    def _note(spec: QueueSpec, session: Session) -> None:
        if spec.expires is not None or spec.private:
            session.publisher.ladder.fleeting.add(spec.name)

    async def consume(self, wish: Subscription) -> None:
        """Wish for a consumer, or for another prefetch of one.

        Where the broker has ended or refused the consumer, the wish is granted when that is tried again.

        :raises BrokerError: if the queue does not exist or the broker refuses.
        """
        async with self._lock:
            if self.session is not None and not self._is_without(wish.queue, self.session):
                with suppress(BrokerUnavailable), self.session.guard(f"consume {wish.queue}"):
                    await self._consume(self.session, wish)
            self._subscriptions[wish.queue] = wish

    def _is_without(self, queue: str, session: Session) -> bool:
        """Tell whether a consumer is wished for already, and the broker has ended or refused it; see `renew`."""
        return queue in self._subscriptions and queue not in session.consumer

    async def cancel(self, queue: str) -> None:
        """Drop the wish for a consumer."""
        async with self._lock:
            self._subscriptions.pop(queue, None)
            if self.session is not None:
                with suppress(BrokerUnavailable), self.session.guard(f"cancel {queue}"):
                    await self.session.consumer.stop(queue)

    async def delete(self, queue: str) -> None:
        """Drop every wish for a queue, and the queue itself if there is a session.

        :raises BrokerError: if the broker refuses, because it belongs to another connection or user.
        """
        async with self._lock:
            spec = self._queues.pop(queue, None)
            self.stale.discard(queue)
            self._subscriptions.pop(queue, None)
            name = queue if spec is None or self.session is None else _named(spec, self.session).name
            if self.session is not None:
                with suppress(BrokerUnavailable), self.session.guard(f"delete {queue}"):
                    await self.session.consumer.stop(queue)
                    await self.session.topology.delete(name)

    async def _consume(self, session: Session, wish: Subscription) -> None:
        spec = self._queues.get(wish.queue)
        if spec is not None:
            wish = attrs.evolve(wish, alias=_named(spec, session).name)
        if wish.queue not in session.consumer:
            # asked first, because consuming what does not exist costs the channel, and with it every other consumer
            await session.topology.depth(wish.alias or wish.queue)
        await session.consumer.start(wish)


def _named(spec: QueueSpec, session: Session) -> QueueSpec:
    """Give a private queue that nobody calls by its name, but only reaches by its exchange, a new one in each session.

    The old one may be locked still, for a connection that the broker has not missed yet (RabbitMQ 4.3 keeps it so while
    the node is away that had it).
    """
    return attrs.evolve(spec, name=f"{spec.name}.{session.number}") if spec.private and spec.fanout else spec
