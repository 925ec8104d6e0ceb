"""The server's side of the memory broker: queues, and which connection consumes them."""

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal

import attrs

from hybridpool._brokers.memory.queue import MemoryQueue, Stored
from hybridpool._message import Outgoing, QueueSpec
from hybridpool.errors import AccessRefused, BrokerError, CannotEncode, MessageTooLarge, QueueFull, QueueNotFound

#: seconds after which a full queue is looked at again for what is due
_LOOK_AGAIN_S = 0.05
#: bytes of a name in AMQP
_MAX_NAME_BYTES = 255


@attrs.define(eq=False)
class Consumer:
    """One subscription of one connection."""

    queue: str
    #: 0: no limit
    prefetch: int
    receive: Callable[["Consumer", Stored], None]
    #: on which it receives
    loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop)
    unsettled: int = 0

    @property
    def has_room(self) -> bool:
        """Whether it may be given another message."""
        return self.prefetch == 0 or self.unsettled < self.prefetch


class MemoryServer:
    """Queues that live in this process; any number of connections may share one server.

    They may be on several event loops: an embedded worker is on the program's, what sync code sends comes from the
    background one. Messages are handed out on one of them, and each consumer receives on its own.
    """

    def __init__(self, *, max_message_size: int | None = None) -> None:
        """Make an empty server.

        :param max_message_size: bytes of a body; None: any number.
        """
        self._max_message_size = max_message_size
        #: what no connection may do: "configure" or "write", and a queue's name
        self._forbidden: set[tuple[str, str]] = set()
        #: on which messages are handed out
        self._home: asyncio.AbstractEventLoop | None = None
        self._shelves: dict[str, MemoryQueue] = {}
        self._consumers: dict[str, list[Consumer]] = {}
        self._due: set[str] = set()
        #: by connection: how to break it
        self._cuts: dict[object, Callable[[], None]] = {}

    def cut(self) -> None:
        """Break every connection, as a broker's restart would: unsettled messages go back, all reconnect at once."""
        for break_it in tuple(self._cuts.values()):
            break_it()

    def forbid(self, what: str, queue: str) -> None:
        """Take a right from all connections, as the rights of a user would.

        :param what: "configure": make the queue; "write": publish to it.
        """
        self._forbidden.add((what, queue))

    def allow(self, what: str, queue: str) -> None:
        """Give the right back."""
        self._forbidden.discard((what, queue))

    def attach(self, owner: object, cut: Callable[[], None]) -> None:
        """Note a connection."""
        self._home_loop()
        self._cuts[owner] = cut

    def detach(self, owner: object) -> None:
        """Forget a connection; its private queues go with it."""
        self._cuts.pop(owner, None)
        for name in [name for name, memory_queue in self._shelves.items() if memory_queue.owner is owner]:
            self.delete(name)

    def declare(self, spec: QueueSpec, owner: object) -> str | None:
        """Make the queue exist; return how it differs from ``spec``, if it does.

        :raises BrokerError: if it is private to another connection.
        :raises AccessRefused: if it is missing, and nobody may make it.
        """
        memory_queue = self._shelves.get(spec.name)
        if memory_queue is None and ("configure", spec.name) in self._forbidden:
            raise AccessRefused(f"declare {spec.name}: ACCESS_REFUSED")
        if memory_queue is None:
            self._shelves[spec.name] = MemoryQueue(spec, owner if spec.private else None)
            return None
        if memory_queue.owner is not None and memory_queue.owner is not owner:
            raise BrokerError(f"declare {spec.name}: the queue is private to another connection")
        return None if memory_queue.spec == spec else f"it exists as {memory_queue.spec}"

    def delete(self, queue: str) -> None:
        """Drop a queue with its messages and consumers."""
        self._shelves.pop(queue, None)
        self._consumers.pop(queue, None)

    def memory_queue(self, queue: str) -> MemoryQueue:
        """Return the queue's messages.

        :raises QueueNotFound: if there is no such queue.
        """
        try:
            return self._shelves[queue]
        except KeyError:
            raise QueueNotFound(f"queue {queue!r} does not exist") from None

    def put(self, message: Outgoing) -> None:
        """Store a message.

        :raises BrokerRefused: as RabbitMQ would: if the message names an exchange (there is none here), is too large or
            has no form in AMQP, if it may not be written, or is mandatory and no queue takes it.
        :raises QueueFull: if the queue takes no more.
        """
        where = f"{message.exchange}/{message.routing_key}" if message.exchange else message.routing_key
        fault = unwritable(message)
        if fault is not None:
            raise CannotEncode(f"publish to {where}: {fault}")
        if self._max_message_size is not None and len(message.body) > self._max_message_size:
            raise MessageTooLarge(
                f"publish to {where}: message size {len(message.body)} is larger than configured max size "
                f"{self._max_message_size}"
            )
        if message.broadcast:
            self._spread(message)
            return
        if message.exchange:
            raise QueueNotFound(f"publish to {where}: there are no exchanges here")
        if ("write", message.routing_key) in self._forbidden:
            raise AccessRefused(f"publish to {where}: ACCESS_REFUSED")
        memory_queue = self._shelves.get(message.routing_key)
        if memory_queue is not None and message.delay > 0:
            # The sender's loop may end before the time has come.
            self._on_home(lambda: self._home_loop().call_later(message.delay, self._put_late, message))
        elif memory_queue is not None and memory_queue.is_full:
            raise QueueFull(f"publish to {where}: the broker did not take the message (is the queue full?)")
        elif memory_queue is not None:
            memory_queue.put(message)
            self.wake(message.routing_key)
        elif message.mandatory:
            raise QueueNotFound(f"no queue takes a message for {message.routing_key}: NO_ROUTE")

    def _put_late(self, message: Outgoing) -> None:
        """Store a message whose time has come, as soon as there is room for it."""
        memory_queue = self._shelves.get(message.routing_key)
        if memory_queue is not None and memory_queue.is_full:
            asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._put_late, message)
        elif memory_queue is not None:
            memory_queue.put(message)
            self.wake(message.routing_key)

    def _spread(self, message: Outgoing) -> None:
        for name, memory_queue in self._shelves.items():
            if memory_queue.spec.fanout == message.exchange:
                memory_queue.put(message)
                self.wake(name)

    def put_back(self, queue: str, stored: Stored) -> None:
        """Return a message to its old place, if its queue still exists."""
        memory_queue = self._shelves.get(queue)
        if memory_queue is not None:
            memory_queue.put_back(stored)
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
            self._on_home(lambda: self._hand_out(queue))

    def _home_loop(self) -> asyncio.AbstractEventLoop:
        if self._home is None or self._home.is_closed():
            self._home = asyncio.get_running_loop()
        return self._home

    def _on_home(self, do: Callable[[], object]) -> None:
        """Do it on the next tick of the loop on which messages are handed out."""
        home = self._home_loop()
        if home is asyncio.get_running_loop():
            home.call_soon(do)
        else:
            home.call_soon_threadsafe(do)

    def _hand_out(self, queue: str) -> None:
        self._due.discard(queue)
        while (memory_queue := self._shelves.get(queue)) is not None:
            consumers = self._consumers.get(queue, [])
            taker = next((consumer for consumer in consumers if consumer.has_room), None)
            stored = memory_queue.take() if taker is not None else None
            if taker is None or stored is None:
                return
            consumers.remove(taker)  # round robin: who was served goes to the end
            consumers.append(taker)
            taker.unsettled += 1
            if taker.loop is self._home:
                taker.receive(taker, stored)
            else:
                taker.loop.call_soon_threadsafe(taker.receive, taker, stored)


def unwritable(message: Outgoing) -> str | None:
    """Say why a message has no form in AMQP; None: it has one."""
    texts = (message.routing_key, message.correlation_id, message.reply_to, message.content_type)
    for text in (text for text in texts if text is not None):
        try:
            if len(text.encode()) > _MAX_NAME_BYTES:
                return f"{text[:40]!r}… is longer than {_MAX_NAME_BYTES} bytes"
        except UnicodeEncodeError as error:
            return str(error)
    return next(
        (f"header {name!r} has no form" for name, value in message.headers.items() if not _has_form(value)), None
    )


def _has_form(value: object) -> bool:
    match value:
        case None | bool() | float() | str() | bytes() | bytearray() | Decimal() | dt.datetime():
            return True
        case int():
            return -(2**63) <= value < 2**63
        case Mapping():
            return all(map(_has_form, value.values()))
        case list() | tuple():
            return all(map(_has_form, value))
        case _:
            return False
