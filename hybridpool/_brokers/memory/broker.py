"""One connection to a `MemoryServer`. `_brokers.base` says what each call means."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import attrs
from anyio.lowlevel import checkpoint

from hybridpool._brokers.base import Deliver
from hybridpool._brokers.memory.channel import MemoryChannel
from hybridpool._brokers.memory.server import MemoryServer
from hybridpool._message import Delivery, ExchangeType, Outgoing, QueueSpec
from hybridpool.errors import BrokerError, BrokerUnavailable
from hybridpool.events import BrokerConnected, BrokerLost, Event, QueueDiffers

URL = "memory://"


def _without_large_bodies(deliver: Deliver, keeps: int, delivery: Delivery) -> None:
    size = len(delivery.body)
    deliver(delivery if size <= keeps else attrs.evolve(delivery, body=b"", missing=size))


class _DiffersOnce:
    """Announces each queue that differs from its declaration, once."""

    def __init__(self, announce: Callable[[Event], None]) -> None:
        self._announce = announce
        self._announced: set[str] = set()

    def __call__(self, queue: str, reason: str | None) -> None:
        if reason is not None and queue not in self._announced:
            self._announced.add(queue)
            self._announce(QueueDiffers(queue, reason))


class _PublishesInTurn(ABC):
    """Publishes many messages one after the other; each is stored at once."""

    @abstractmethod
    async def publish(self, message: Outgoing) -> None:
        """Store the message."""

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[BrokerError | None]:
        """Store the messages; return the error of each."""
        errors: list[BrokerError | None] = []
        for message in messages:
            try:
                await self.publish(message)
            except BrokerError as error:
                errors.append(error)
            else:
                errors.append(None)
        return errors


class MemoryBroker(_PublishesInTurn):
    """A connection to queues in this process; it is lost only by `MemoryServer.cut`."""

    def __init__(self, server: MemoryServer, announce: Callable[[Event], None]) -> None:
        self._server = server
        self._announce = announce
        self._channel: MemoryChannel | None = None
        self._disconnected: Callable[[], None] = lambda: None
        self._queues: dict[str, QueueSpec] = {}
        self._subscriptions: dict[str, tuple[int, Deliver]] = {}
        self._differs = _DiffersOnce(announce)

    def on_disconnect(self, call: Callable[[], None]) -> None:
        """Set the one callback for a connection that is cut."""
        self._disconnected = call

    async def __aenter__(self) -> Self:
        self._attach(1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    async def connected(self, timeout: float | None) -> None:  # noqa: ARG002  the port's
        """Return: a server is always there.

        :raises BrokerUnavailable: if this connection is not entered.
        """
        await self._open()

    async def declare(self, queue: QueueSpec) -> None:
        """Make the queue exist.

        :raises BrokerUnavailable: if this connection is not entered.
        :raises BrokerError: if it is private to another connection.
        """
        self._differs(queue.name, self._server.declare(queue, await self._open()))
        self._queues[queue.name] = queue

    async def declare_exchange(
        self,
        exchange: str,
        type: ExchangeType = "topic",
        *,
        durable: bool = True,  # noqa: ARG002  the port's
    ) -> None:
        """Make the exchange exist, as long as the server does.

        :raises BrokerUnavailable: if this connection is not entered.
        """
        await self._open()
        self._server.declare_exchange(exchange, type)

    async def publish(self, message: Outgoing) -> None:
        """Store the message.

        :raises BrokerUnavailable: if this connection is not entered.
        :raises BrokerError: if its exchange does not exist, or it is mandatory and no queue takes it.
        """
        await self._open()
        self._server.put(message)

    async def consume(
        self,
        queue: str,
        prefetch: int,
        deliver: Deliver,
        *,
        keeps: int | None = None,
        alone_above: int | None = None,  # noqa: ARG002  the port's
    ) -> None:
        """Start consuming; on a queue already consumed, change its prefetch.

        Messages are in memory here anyway, so none comes alone.

        :raises BrokerUnavailable: if this connection is not entered.
        :raises QueueNotFound: if the queue does not exist.
        """
        channel = await self._open()
        self._server.queue(queue)
        receiver = deliver if keeps is None else partial(_without_large_bodies, deliver, keeps)
        channel.consume(queue, prefetch, receiver)
        self._subscriptions[queue] = (prefetch, receiver)

    async def cancel(self, queue: str) -> None:
        """Stop consuming."""
        channel = await self._open()
        self._subscriptions.pop(queue, None)
        channel.stop(queue)

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge the message; no effect if its channel is closed."""
        if self._channel is not None and self._channel.number == delivery.channel:
            self._channel.settle(delivery.tag)

    def requeue(self, delivery: Delivery) -> None:
        """Return the message to its position; no effect if its channel is closed."""
        if self._channel is not None and self._channel.number == delivery.channel:
            stored = self._channel.settle(delivery.tag)
            if stored is not None:
                self._server.requeue(delivery.queue, stored)

    def reject(self, delivery: Delivery) -> None:
        """Drop or dead-letter the message; no effect if its channel is closed."""
        if self._channel is not None and self._channel.number == delivery.channel:
            stored = self._channel.settle(delivery.tag)
            if stored is not None:
                self._server.reject(delivery.queue, stored)

    async def delete(self, queue: str) -> None:
        """Delete the queue with what is in it, and do not declare or consume it again."""
        self._queues.pop(queue, None)
        self._subscriptions.pop(queue, None)
        await checkpoint()
        if self._channel is not None:
            self._channel.stop(queue)
            self._server.delete(queue)

    async def flush(self) -> None:
        """Return: what settles a message takes effect at once."""
        await checkpoint()

    async def answers_read(self) -> None:
        """Return: what settles a message takes effect at once.

        :raises BrokerUnavailable: if this connection is not entered.
        """
        await self._open()

    async def requeues_in_place(self, queue: QueueSpec) -> bool:  # noqa: ARG002  the port's
        """Return True: all queues here do.

        :raises BrokerUnavailable: if this connection is not entered.
        """
        await self._open()
        return True

    async def purge(self, queue: str) -> int:
        """Delete the messages that are ready.

        :raises BrokerUnavailable: if this connection is not entered.
        :raises QueueNotFound: if the queue does not exist.
        """
        await self._open()
        return self._server.queue(queue).purge()

    async def depth(self, queue: str) -> int:
        """Tell how many messages are ready.

        :raises BrokerUnavailable: if this connection is not entered.
        :raises QueueNotFound: if the queue does not exist.
        """
        await self._open()
        return len(self._server.queue(queue))

    async def _open(self) -> MemoryChannel:
        await checkpoint()
        if self._channel is None:
            raise BrokerUnavailable(f"no connection to {URL}: closed")
        return self._channel

    def _attach(self, number: int) -> None:
        channel = self._channel = MemoryChannel(self._server, number)

        def cut() -> None:
            channel.close()
            self._disconnected()
            self._announce(BrokerLost(URL, "connection cut", 0.0))
            self._attach(number + 1)

        self._server.attach(channel, cut)
        for spec in self._queues.values():
            self._differs(spec.name, self._server.declare(spec, channel))
        for queue, (prefetch, deliver) in self._subscriptions.items():
            channel.consume(queue, prefetch, deliver)
        self._announce(BrokerConnected(URL))
