"""What a memory connection consumes and has not settled, from one connect to the loss of it."""

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
        """Start consuming, or continue with another prefetch."""

        def receive(consumer: Consumer, stored: Stored) -> None:
            tag = next(self._tags)
            self._unsettled[tag] = (consumer, stored)
            deliver(stored.delivery(queue=queue, tag=tag, channel=self.number))

        self.stop(queue)
        self._consumers[queue] = Consumer(queue, prefetch, receive)
        self._server.add_consumer(self._consumers[queue])

    def stop(self, queue: str) -> None:
        """Stop consuming; what is unsettled stays so."""
        consumer = self._consumers.pop(queue, None)
        if consumer is not None:
            self._server.remove_consumer(consumer)

    def settle(self, tag: int) -> Stored | None:
        """Remove a message from the unsettled ones and return it; None: it is not among them."""
        consumer, stored = self._unsettled.pop(tag, (None, None))
        if consumer is not None:
            consumer.unsettled -= 1
            self._server.dispatch_soon(consumer.queue)
        return stored

    def close(self) -> None:
        """Close: delete private queues, requeue unsettled messages."""
        for queue in tuple(self._consumers):
            self.stop(queue)
        self._server.detach(self)
        for consumer, stored in self._unsettled.values():
            self._server.requeue(consumer.queue, stored)
        self._unsettled.clear()
