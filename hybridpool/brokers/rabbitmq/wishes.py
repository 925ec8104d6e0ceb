"""What there must be at the broker: queues and consumers, remembered, and brought about on each new session."""

import asyncio
from contextlib import suppress

from hybridpool.brokers.rabbitmq.consume import Subscription
from hybridpool.brokers.rabbitmq.ladder import LONGEST
from hybridpool.brokers.rabbitmq.session import Session
from hybridpool.errors import BrokerUnavailable
from hybridpool.message import QueueSpec


class Wishes:
    """Declared queues and wanted consumers.

    A wish made while there is no session, or whose session breaks meanwhile, is granted by the next one. Wishes and
    session are brought together under one lock, so that none is missed or granted twice.
    """

    def __init__(self) -> None:
        #: the session on which every wish is granted; None while there is none
        self.session: Session | None = None
        self._queues: dict[str, QueueSpec] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._lock = asyncio.Lock()

    async def restore(self, session: Session) -> None:
        """Grant every wish on a new session and take it as the current one.

        :raises BrokerError: if one cannot be granted.
        """
        async with self._lock:
            with session.guard("restore"):
                for spec in self._queues.values():
                    await session.topology.declare(spec)
                # before the first delivery: whoever gets one may want to publish
                self.session = session
                for wish in self._subscriptions.values():
                    await _consume(session, wish)
                # last, because it takes a while, and is there already as a rule
                for spec in self._queues.values():
                    if spec.is_target:
                        await session.publisher.ladder.prepare(spec.name, LONGEST)

    async def renew(self, session: Session, queue: str) -> None:
        """Grant the wish for a consumer again, whose queue was deleted.

        :raises BrokerError: if that cannot be done.
        """
        async with self._lock:
            wish = self._subscriptions.get(queue)
            if wish is None or queue in session.consumer:
                return
            with session.guard(f"consume {queue} again"):
                if queue in self._queues:
                    await session.topology.declare(self._queues[queue])
                await _consume(session, wish)

    async def declare(self, spec: QueueSpec) -> None:
        """Wish for a queue.

        :raises BrokerError: if the broker refuses.
        """
        async with self._lock:
            if self.session is not None:
                with suppress(BrokerUnavailable), self.session.guard(f"declare {spec.name}"):
                    await self.session.topology.declare(spec)
                    if spec.is_target:
                        await self.session.publisher.ladder.prepare(spec.name, LONGEST)
            self._queues[spec.name] = spec

    async def consume(self, wish: Subscription) -> None:
        """Wish for a consumer, or for another prefetch of one.

        :raises BrokerError: if the queue does not exist or the broker refuses.
        """
        async with self._lock:
            if self.session is not None:
                with suppress(BrokerUnavailable), self.session.guard(f"consume {wish.queue}"):
                    await _consume(self.session, wish)
            self._subscriptions[wish.queue] = wish

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
            self._queues.pop(queue, None)
            self._subscriptions.pop(queue, None)
            if self.session is not None:
                with suppress(BrokerUnavailable), self.session.guard(f"delete {queue}"):
                    await self.session.consumer.stop(queue)
                    await self.session.topology.delete(queue)


async def _consume(session: Session, wish: Subscription) -> None:
    if wish.queue not in session.consumer:
        # asked first, because consuming what does not exist costs the channel, and with it every other consumer
        await session.topology.depth(wish.queue)
    await session.consumer.start(wish)
