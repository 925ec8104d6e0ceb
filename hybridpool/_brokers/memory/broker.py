"""One connection to a `MemoryServer`. What each call means is said in `brokers.base`."""

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
from hybridpool._message import Delivery, Outgoing, QueueSpec
from hybridpool.errors import BrokerError, BrokerUnavailable
from hybridpool.events import BrokerConnected, BrokerLost, Event, QueueDiffers

URL = "memory://"


def _without_large_bodies(deliver: Deliver, keeps: int, delivery: Delivery) -> None:
    size = len(delivery.body)
    deliver(delivery if size <= keeps else attrs.evolve(delivery, body=b"", missing=size))


class _Once:
    """Announces a differing queue, each once."""

    def __init__(self, announce: Callable[[Event], None]) -> None:
        self._announce = announce
        self._told: set[str] = set()

    def __call__(self, queue: str, reason: str | None) -> None:
        if reason is not None and queue not in self._told:
            self._told.add(queue)
            self._announce(QueueDiffers(queue, reason))


class _OneByOne(ABC):
    """Many messages, one after the other: here they are stored at once."""

    @abstractmethod
    async def publish(self, message: Outgoing) -> None:
        """Store the message."""

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[BrokerError | None]:
        """Store the messages; tells for each what went wrong."""
        told: list[BrokerError | None] = []
        for message in messages:
            try:
                await self.publish(message)
            except BrokerError as error:
                told.append(error)
            else:
                told.append(None)
        return told


class MemoryBroker(_OneByOne):
    """A connection to queues in this process; it is lost only when `MemoryServer.cut` says so."""

    def __init__(self, server: MemoryServer, announce: Callable[[Event], None]) -> None:
        self._server = server
        self._announce = announce
        self._channel: MemoryChannel | None = None
        self._disconnected: Callable[[], None] = lambda: None
        self._queues: dict[str, QueueSpec] = {}
        self._subscriptions: dict[str, tuple[int, Deliver]] = {}
        self._differs = _Once(announce)

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

    async def publish(self, message: Outgoing) -> None:
        """Store the message.

        :raises BrokerUnavailable: if this connection is not entered.
        :raises BrokerError: if it names an exchange, or is mandatory and no queue takes it.
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
        :raises BrokerError: if the queue does not exist.
        """
        channel = await self._open()
        self._server.memory_queue(queue)
        taking = deliver if keeps is None else partial(_without_large_bodies, deliver, keeps)
        channel.consume(queue, prefetch, taking)
        self._subscriptions[queue] = (prefetch, taking)

    async def cancel(self, queue: str) -> None:
        """Stop consuming."""
        channel = await self._open()
        self._subscriptions.pop(queue, None)
        channel.stop(queue)

    def ack(self, delivery: Delivery) -> None:
        """Say that the message is done with; void if its channel is gone."""
        if self._channel is not None and self._channel.number == delivery.channel:
            self._channel.settle(delivery.tag)

    def requeue(self, delivery: Delivery) -> None:
        """Give the message back to its place; void if its channel is gone."""
        if self._channel is not None and self._channel.number == delivery.channel:
            stored = self._channel.settle(delivery.tag)
            if stored is not None:
                self._server.put_back(delivery.queue, stored)

    async def delete(self, queue: str) -> None:
        """Delete the queue with what is in it, and do not declare or consume it again."""
        self._queues.pop(queue, None)
        self._subscriptions.pop(queue, None)
        await checkpoint()
        if self._channel is not None:
            self._channel.stop(queue)
            self._server.delete(queue)

    async def flush(self) -> None:
        """Return: answers take effect at once here."""
        await checkpoint()

    async def answers_read(self) -> None:
        """Return: answers take effect at once here.

        :raises BrokerUnavailable: if this connection is not entered.
        """
        await self._open()

    async def depth(self, queue: str) -> int:
        """Tell how many messages are ready.

        :raises BrokerUnavailable: if this connection is not entered.
        :raises BrokerError: if the queue does not exist.
        """
        await self._open()
        return len(self._server.memory_queue(queue))

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
