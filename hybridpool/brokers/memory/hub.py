"""The server's side of the memory broker: queues, and which connection consumes them."""

import asyncio
from collections.abc import Callable

import attrs

from hybridpool.brokers.memory.shelf import Shelf, Stored
from hybridpool.errors import BrokerError
from hybridpool.message import Outgoing, QueueSpec


@attrs.define(eq=False)
class Consumer:
    """One subscription of one connection."""

    queue: str
    #: 0: no limit
    prefetch: int
    receive: Callable[["Consumer", Stored], None]
    unsettled: int = 0

    @property
    def has_room(self) -> bool:
        """Whether it may be given another message."""
        return self.prefetch == 0 or self.unsettled < self.prefetch


class MemoryHub:
    """Queues that live in this process; any number of connections may share one hub."""

    def __init__(self) -> None:
        self._shelves: dict[str, Shelf] = {}
        self._consumers: dict[str, list[Consumer]] = {}
        self._due: set[str] = set()
        #: by connection: how to break it
        self._cuts: dict[object, Callable[[], None]] = {}

    def cut(self) -> None:
        """Break every connection, as a broker's restart would: unsettled messages go back, all reconnect at once."""
        for break_it in tuple(self._cuts.values()):
            break_it()

    def attach(self, owner: object, cut: Callable[[], None]) -> None:
        """Note a connection."""
        self._cuts[owner] = cut

    def detach(self, owner: object) -> None:
        """Forget a connection; its private queues go with it."""
        self._cuts.pop(owner, None)
        for name in [name for name, shelf in self._shelves.items() if shelf.owner is owner]:
            self.delete(name)

    def declare(self, spec: QueueSpec, owner: object) -> str | None:
        """Make the queue exist; return how it differs from ``spec``, if it does.

        :raises BrokerError: if it is private to another connection.
        """
        shelf = self._shelves.get(spec.name)
        if shelf is None:
            self._shelves[spec.name] = Shelf(spec, owner if spec.private else None)
            return None
        if shelf.owner is not None and shelf.owner is not owner:
            raise BrokerError(f"declare {spec.name}: the queue is private to another connection")
        return None if shelf.spec == spec else f"it exists as {shelf.spec}"

    def delete(self, queue: str) -> None:
        """Drop a queue with its messages and consumers."""
        self._shelves.pop(queue, None)
        self._consumers.pop(queue, None)

    def shelf(self, queue: str) -> Shelf:
        """Return the queue's messages.

        :raises BrokerError: if there is no such queue.
        """
        try:
            return self._shelves[queue]
        except KeyError:
            raise BrokerError(f"queue {queue!r} does not exist") from None

    def put(self, message: Outgoing) -> None:
        """Store a message.

        :raises BrokerError: if it names an exchange (there is none here), or is mandatory and no queue takes it.
        """
        if message.broadcast:
            self._spread(message)
            return
        if message.exchange:
            raise BrokerError(f"publish to {message.exchange}/{message.routing_key}: there are no exchanges here")
        shelf = self._shelves.get(message.routing_key)
        if shelf is not None and message.delay > 0:
            asyncio.get_running_loop().call_later(
                message.delay, self.put, attrs.evolve(message, delay=0, mandatory=False)
            )
        elif shelf is not None:
            shelf.put(message)
            self.wake(message.routing_key)
        elif message.mandatory:
            raise BrokerError(f"no queue takes a message for {message.routing_key}: NO_ROUTE")

    def _spread(self, message: Outgoing) -> None:
        for name, shelf in self._shelves.items():
            if shelf.spec.fanout == message.exchange:
                shelf.put(message)
                self.wake(name)

    def put_back(self, queue: str, stored: Stored) -> None:
        """Return a message to its old place, if its queue still exists."""
        shelf = self._shelves.get(queue)
        if shelf is not None:
            shelf.put_back(stored)
            self.wake(queue)

    def add(self, consumer: Consumer) -> None:
        """Let it have messages."""
        self._consumers.setdefault(consumer.queue, []).append(consumer)
        self.wake(consumer.queue)

    def remove(self, consumer: Consumer) -> None:
        """Give it nothing more."""
        consumers = self._consumers.get(consumer.queue, [])
        if consumer in consumers:
            consumers.remove(consumer)

    def wake(self, queue: str) -> None:
        """Hand messages out on the next tick."""
        if queue not in self._due:
            self._due.add(queue)
            asyncio.get_running_loop().call_soon(self._hand_out, queue)

    def _hand_out(self, queue: str) -> None:
        self._due.discard(queue)
        while (shelf := self._shelves.get(queue)) is not None:
            consumers = self._consumers.get(queue, [])
            taker = next((consumer for consumer in consumers if consumer.has_room), None)
            stored = shelf.take() if taker is not None else None
            if taker is None or stored is None:
                return
            consumers.remove(taker)  # round robin: who was served goes to the end
            consumers.append(taker)
            taker.unsettled += 1
            taker.receive(taker, stored)
