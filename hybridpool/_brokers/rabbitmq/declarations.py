"""The desired state at the broker: exchanges, queues and consumers, restored on each new session."""

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Final

import attrs

from hybridpool._brokers.rabbitmq.consume import Subscription
from hybridpool._brokers.rabbitmq.delayed_delivery import MAX_DELAY_S
from hybridpool._brokers.rabbitmq.errors import translated
from hybridpool._brokers.rabbitmq.session import Session
from hybridpool._message import Outgoing, QueueSpec
from hybridpool.errors import BrokerError, BrokerUnavailable

log = logging.getLogger(__name__)
#: queues that are not consumed, and exchanges, whose declaration is remembered; the oldest is forgotten first
MAX_REMEMBERED_QUEUES: Final = 1000


class Declarations:
    """Declared exchanges and queues, and subscriptions.

    After a reconnect the queues that are consumed are declared at once; the others, which this process has only sent
    to, when it sends to them again: there may be any number of them, and most of them still exist at the broker.

    A declaration that is made while there is no session, or whose session fails meanwhile, is done by the next one.
    One lock covers both the change of the desired state and the request to the broker. Without it a declaration could
    be missed: `restore` has read the state before it was added, and `declare` has seen no session, because `restore`
    sets it later. It could also be done twice: added before `restore` reads the state, and sent by `declare` on the new
    session as well; for a consumer that means two consumers on one queue.
    """

    def __init__(self) -> None:
        #: the session on which the desired state is restored; None while there is none
        self.session: Session | None = None
        #: by name: type, and whether it is durable
        self._exchanges: dict[str, tuple[str, bool]] = {}
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
        """Restore the desired state on a new session and make it the current one.

        A queue that is refused is left out and noted in `refused`, so that it does not delay all others.

        :param step: called after each request, of which there may be many.
        :param is_first: no session was restored before: then a refusal is an error, and the program's start fails.
        :raises BrokerError: if the connection is lost, or the broker refuses something to the first session.
        """
        async with self._lock:
            with session.guard("restore"):
                for spec in self._queues.values():
                    self._note(spec, session)
                self.refused = set()
                wanted = [spec for name, spec in self._queues.items() if name in self._subscriptions]
                self.stale = self._queues.keys() - self._subscriptions.keys()
                for exchange, (kind, durable) in self._exchanges.items():
                    with self._refusable(exchange, is_strict=is_first, is_queue=False):
                        await session.topology.declare_exchange(exchange, kind, durable=durable)
                    step()
                for spec in wanted:
                    with self._refusable(spec.name, is_strict=is_first and spec.expires is None):
                        await session.topology.declare(_named(spec, session))
                    step()
                # before the first delivery, whose receiver may publish
                self.session = session
                for queue, subscription in self._subscriptions.items():
                    if queue not in self.refused:
                        with self._refusable(queue, is_strict=is_first):
                            await self._consume(session, subscription)
                    step()
                # last, because it takes a while, and mostly exists already
                for spec in wanted:
                    if spec.is_target and spec.name not in self.refused:
                        with self._refusable(spec.name, is_strict=is_first):
                            await session.publisher.delay_queues.prepare(spec.name, MAX_DELAY_S)
                        step()

    @contextmanager
    def _refusable(self, name: str, *, is_strict: bool, is_queue: bool = True) -> Generator[None]:
        """Continue without what the broker refuses: its node may be down, or a right was withdrawn.

        :raises BrokerError: if the connection is lost, or a refusal is an error.
        """
        try:
            with translated(f"restore {name}"):
                yield
        except BrokerUnavailable:
            raise
        except BrokerError as error:
            if is_strict:
                raise
            if is_queue:
                self.leave_out(name, error)
            else:
                log.warning("exchange %s is not declared: %s", name, error)

    def leave_out(self, queue: str, error: BrokerError) -> None:
        """Note that the broker refuses a queue: it is tried again later, and the others are consumed meanwhile."""
        self.refused.add(queue)
        log.warning("queue %s is not consumed for now, and is tried again: %s", queue, error)

    async def freshen(self, message: Outgoing) -> None:
        """Declare the queue of a message, if that was last done in an earlier session.

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
        """Declare and consume a queue again whose consumer the broker has ended or refused.

        :raises BrokerError: if that cannot be done.
        """
        async with self._lock:
            subscription = self._subscriptions.get(queue)
            if subscription is None or queue in session.consumer:
                self.refused.discard(queue)
                return
            with session.guard(f"consume {queue} again"):
                if queue in self._queues:
                    await session.topology.declare(_named(self._queues[queue], session))
                await self._consume(session, subscription)
            self.refused.discard(queue)

    async def declare(self, spec: QueueSpec) -> None:
        """Add a queue, or replace its declaration.

        :raises BrokerError: if the broker refuses.
        """
        async with self._lock:
            if self.session is not None:
                with suppress(BrokerUnavailable), self.session.guard(f"declare {spec.name}"):
                    self._note(spec, self.session)
                    await self.session.topology.declare(_named(spec, self.session))
                    if spec.is_target:
                        await self.session.publisher.delay_queues.prepare(spec.name, MAX_DELAY_S)
                    self.stale.discard(spec.name)
            self._remember(spec)

    def _remember(self, spec: QueueSpec) -> None:
        self._queues.pop(spec.name, None)
        self._queues[spec.name] = spec
        if self.session is None:
            # declared by the next session, or with the first message
            self.stale.add(spec.name)
        if len(self._queues) - len(self._subscriptions) > MAX_REMEMBERED_QUEUES:
            oldest = next((name for name in self._queues if name not in self._subscriptions), spec.name)
            del self._queues[oldest]
            self.stale.discard(oldest)

    @staticmethod
    def _note(spec: QueueSpec, session: Session) -> None:
        if spec.expires is not None or spec.private:
            session.publisher.delay_queues.temporary.add(spec.name)

    async def declare_exchange(self, exchange: str, type: str, *, durable: bool) -> None:
        """Add an exchange, or replace its declaration.

        :raises BrokerError: if the broker refuses.
        """
        async with self._lock:
            if self.session is not None:
                with suppress(BrokerUnavailable), self.session.guard(f"declare exchange {exchange}"):
                    await self.session.topology.declare_exchange(exchange, type, durable=durable)
            self._exchanges.pop(exchange, None)
            self._exchanges[exchange] = type, durable
            if len(self._exchanges) > MAX_REMEMBERED_QUEUES:
                del self._exchanges[next(iter(self._exchanges))]

    async def consume(self, subscription: Subscription) -> None:
        """Add a consumer, or change its prefetch.

        If the broker has ended or refused the consumer, the change takes effect when that is tried again.

        :raises BrokerError: if the queue does not exist or the broker refuses.
        """
        async with self._lock:
            if self.session is not None and not self._is_refused(subscription.queue, self.session):
                with suppress(BrokerUnavailable), self.session.guard(f"consume {subscription.queue}"):
                    await self._consume(self.session, subscription)
            self._subscriptions[subscription.queue] = subscription

    def _is_refused(self, queue: str, session: Session) -> bool:
        """Tell whether there is a subscription whose consumer the broker has ended or refused; see `renew`."""
        return queue in self._subscriptions and queue not in session.consumer

    async def cancel(self, queue: str) -> None:
        """Remove a consumer."""
        async with self._lock:
            self._subscriptions.pop(queue, None)
            if self.session is not None:
                with suppress(BrokerUnavailable), self.session.guard(f"cancel {queue}"):
                    await self.session.consumer.stop(queue)

    async def delete(self, queue: str) -> None:
        """Remove a queue and its consumer, and delete it if there is a session.

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

    async def _consume(self, session: Session, subscription: Subscription) -> None:
        spec = self._queues.get(subscription.queue)
        if spec is not None:
            subscription = attrs.evolve(subscription, alias=_named(spec, session).name)
        if subscription.queue not in session.consumer:
            # Asked first: to consume a queue that does not exist closes the channel, and ends all its consumers.
            await session.topology.depth(subscription.alias or subscription.queue)
        await session.consumer.start(subscription)


def _named(spec: QueueSpec, session: Session) -> QueueSpec:
    """Give a private queue with bindings a new name in each session: it is reached through its exchanges only.

    The old one may still be locked, for a connection whose loss the broker has not noticed yet (RabbitMQ 4.3 keeps it
    so while its node is down).
    """
    return attrs.evolve(spec, name=f"{spec.name}.{session.number}") if spec.private and spec.bindings else spec
