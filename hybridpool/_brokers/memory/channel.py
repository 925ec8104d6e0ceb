"""One life of a memory connection: what it consumes and has not settled. A reconnect makes another."""

from itertools import count

from hybridpool._brokers.base import Deliver
from hybridpool._brokers.memory.queue import Stored
from hybridpool._brokers.memory.server import Consumer, MemoryServer


class MemoryChannel:
    """Consumers and unsettled deliveries."""

    def __init__(self, server: MemoryServer, number: int) -> None:
        self.number = number
        self._server = server
        self._tags = count(1)
        self._consumers: dict[str, Consumer] = {}
        self._unsettled: dict[int, tuple[Consumer, Stored]] = {}

    def consume(self, queue: str, prefetch: int, deliver: Deliver) -> None:
        """Start consuming, or go on with another prefetch."""

        def receive(consumer: Consumer, stored: Stored) -> None:
            tag = next(self._tags)
            self._unsettled[tag] = (consumer, stored)
            deliver(stored.delivery(queue=queue, tag=tag, channel=self.number))

        self.stop(queue)
        self._consumers[queue] = Consumer(queue, prefetch, receive)
        self._server.add(self._consumers[queue])

    def stop(self, queue: str) -> None:
        """Stop consuming; what is unsettled stays so."""
        consumer = self._consumers.pop(queue, None)
        if consumer is not None:
            self._server.remove(consumer)

    def settle(self, tag: int) -> Stored | None:
        """Take a message off the unsettled ones; None if it is not among them."""
        consumer, stored = self._unsettled.pop(tag, (None, None))
        if consumer is not None:
            consumer.unsettled -= 1
            self._server.wake(consumer.queue)
        return stored

    def close(self) -> None:
        """End: private queues go, unsettled messages go back."""
        for queue in tuple(self._consumers):
            self.stop(queue)
        self._server.detach(self)
        for consumer, stored in self._unsettled.values():
            self._server.put_back(consumer.queue, stored)
        self._unsettled.clear()
