"""The server of the memory broker: exchanges, queues, and the connections that consume them."""

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal

import attrs

from hybridpool._brokers.memory.exchange import MemoryExchange
from hybridpool._brokers.memory.queue import MemoryQueue, Stored
from hybridpool._message import ExchangeType, Outgoing, QueueSpec
from hybridpool.errors import AccessRefused, BrokerError, CannotEncode, MessageTooLarge, QueueFull, QueueNotFound

#: seconds after which a due message is offered again to a full queue
_RETRY_FULL_QUEUE_S = 0.05
#: arguments of a queue that say where rejected messages go, as RabbitMQ names them
DEAD_LETTER_EXCHANGE = "x-dead-letter-exchange"
DEAD_LETTER_KEY = "x-dead-letter-routing-key"
#: of a name in AMQP
_MAX_NAME_BYTES = 255


@attrs.define(eq=False)
class Consumer:
    """One subscription of one connection."""

    queue: str
    #: 0: no limit
    prefetch: int
    receive: Callable[["Consumer", Stored], None]
    #: the loop on which it receives
    loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop)
    unsettled: int = 0

    @property
    def has_room(self) -> bool:
        """Whether it may get another message."""
        return self.prefetch == 0 or self.unsettled < self.prefetch


class MemoryServer:
    """Queues that live in this process; any number of connections may share one server.

    The connections may be on several event loops: an embedded worker is on the program's loop, and sync code sends from
    a background loop. Messages are dispatched on one of them, and each consumer receives on its own.
    """

    def __init__(self, *, max_message_size: int | None = None) -> None:
        """Make a server without queues.

        :param max_message_size: bytes of a body; None: any number.
        """
        self._max_message_size = max_message_size
        #: rights that all connections lack: "configure" or "write", and a queue's name
        self._forbidden: set[tuple[str, str]] = set()
        #: the loop on which messages are dispatched
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queues: dict[str, MemoryQueue] = {}
        self._exchanges: dict[str, MemoryExchange] = {}
        self._consumers: dict[str, list[Consumer]] = {}
        #: queues whose messages are dispatched on the next tick
        self._due: set[str] = set()
        #: by connection: the function that breaks it
        self._cuts: dict[object, Callable[[], None]] = {}

    def cut(self) -> None:
        """Break every connection, as a restart would: unsettled messages are requeued, all reconnect at once."""
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
        """Add a connection."""
        self._dispatch_loop()
        self._cuts[owner] = cut

    def detach(self, owner: object) -> None:
        """Remove a connection and its private queues."""
        self._cuts.pop(owner, None)
        for name in [name for name, queue in self._queues.items() if queue.owner is owner]:
            self.delete(name)

    def declare(self, spec: QueueSpec, owner: object) -> str | None:
        """Make the queue exist; return how it differs from ``spec``, if it does.

        :raises BrokerError: if it is private to another connection.
        :raises AccessRefused: if it does not exist, and the right to make it is taken away.
        """
        for binding in spec.bindings:
            self.declare_exchange(binding.exchange, binding.type)
        differs = self._declare_queue(spec, owner)
        for binding in spec.bindings:
            self._exchanges[binding.exchange].bind(spec.name, binding)
        return differs

    def declare_exchange(self, exchange: str, type: ExchangeType) -> None:
        """Make an exchange exist; one of another type is used as it is."""
        self._exchanges.setdefault(exchange, MemoryExchange(type))

    def _declare_queue(self, spec: QueueSpec, owner: object) -> str | None:
        queue = self._queues.get(spec.name)
        if queue is None and ("configure", spec.name) in self._forbidden:
            raise AccessRefused(f"declare {spec.name}: ACCESS_REFUSED")
        if queue is None:
            self._queues[spec.name] = MemoryQueue(spec, owner if spec.private else None)
            return None
        if queue.owner is not None and queue.owner is not owner:
            raise BrokerError(f"declare {spec.name}: the queue is private to another connection")
        return None if queue.spec == spec else f"it exists as {queue.spec}"

    def delete(self, queue: str) -> None:
        """Delete a queue with its messages, bindings and consumers."""
        self._queues.pop(queue, None)
        for exchange in self._exchanges.values():
            exchange.unbind(queue)
        self._consumers.pop(queue, None)

    def queue(self, name: str) -> MemoryQueue:
        """Return a queue.

        :raises QueueNotFound: if there is no such queue.
        """
        try:
            return self._queues[name]
        except KeyError:
            raise QueueNotFound(f"queue {name!r} does not exist") from None

    def put(self, message: Outgoing) -> None:
        """Store a message in the queues that its exchange chooses.

        :raises BrokerRefused: as RabbitMQ would: if the exchange does not exist, the message is too large or has no
            form in AMQP, if the right to write to the queue is taken away, or it is mandatory and no queue takes it.
        :raises QueueFull: if a queue takes no more.
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
        if not message.exchange and ("write", message.routing_key) in self._forbidden:
            raise AccessRefused(f"publish to {where}: ACCESS_REFUSED")
        names = self._route(message)
        queues = {name: self._queues[name] for name in names if name in self._queues}
        if not queues and message.mandatory:
            raise QueueNotFound(f"no queue takes a message for {where}: NO_ROUTE")
        if queues and message.delay > 0:
            # The sender's loop may end before the time has come.
            self._on_dispatch_loop(lambda: self._dispatch_loop().call_later(message.delay, self._put_delayed, message))
            return
        is_full = False
        for name, queue in queues.items():
            # a queue that has room keeps the message, also where another one refuses it
            if queue.is_full:
                is_full = True
            else:
                queue.put(message)
                self.dispatch_soon(name)
        if is_full:
            raise QueueFull(f"publish to {where}: the broker did not take the message (is the queue full?)")

    def _route(self, message: Outgoing) -> list[str]:
        """Return the names of the queues that a message is for; the default exchange names one that may not exist.

        :raises QueueNotFound: if its exchange does not exist.
        """
        if not message.exchange:
            return [message.routing_key]
        if message.broadcast:
            self.declare_exchange(message.exchange, "fanout")
        exchange = self._exchanges.get(message.exchange)
        if exchange is None:
            raise QueueNotFound(f"publish to {message.exchange}: there is no such exchange")
        return exchange.queues(message.routing_key)

    def _put_delayed(self, message: Outgoing) -> None:
        """Store a message whose time has come, as soon as there is room for it."""
        queue = self._queues.get(message.routing_key)
        if queue is not None and queue.is_full:
            asyncio.get_running_loop().call_later(_RETRY_FULL_QUEUE_S, self._put_delayed, message)
        elif queue is not None:
            queue.put(message)
            self.dispatch_soon(message.routing_key)

    def requeue(self, name: str, stored: Stored) -> None:
        """Return a message to its old position, if its queue still exists."""
        queue = self._queues.get(name)
        if queue is not None:
            queue.requeue(stored)
            self.dispatch_soon(name)

    def reject(self, name: str, stored: Stored) -> None:
        """Dead-letter a message if its queue is declared so; otherwise it is gone."""
        queue = self._queues.get(name)
        exchange = None if queue is None else queue.spec.arguments.get(DEAD_LETTER_EXCHANGE)
        if queue is None or not isinstance(exchange, str):
            return
        key = queue.spec.arguments.get(DEAD_LETTER_KEY, stored.message.routing_key)
        # RabbitMQ drops a dead letter that no queue takes, or whose exchange does not exist.
        with suppress(BrokerError):
            self.put(
                attrs.evolve(
                    stored.message,
                    exchange=exchange,
                    routing_key=str(key),
                    expiration=None,
                    delay=0,
                    broadcast=False,
                    mandatory=False,
                )
            )

    def add_consumer(self, consumer: Consumer) -> None:
        """Start to give a consumer messages."""
        self._consumers.setdefault(consumer.queue, []).append(consumer)
        self.dispatch_soon(consumer.queue)

    def remove_consumer(self, consumer: Consumer) -> None:
        """Stop to give a consumer messages."""
        consumers = self._consumers.get(consumer.queue, [])
        if consumer in consumers:
            consumers.remove(consumer)

    def dispatch_soon(self, queue: str) -> None:
        """Dispatch messages of a queue on the next loop tick."""
        if queue not in self._due:
            self._due.add(queue)
            self._on_dispatch_loop(lambda: self._dispatch(queue))

    def _dispatch_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _on_dispatch_loop(self, call: Callable[[], object]) -> None:
        """Call it on the next tick of the loop on which messages are dispatched."""
        loop = self._dispatch_loop()
        if loop is asyncio.get_running_loop():
            loop.call_soon(call)
        else:
            loop.call_soon_threadsafe(call)

    def _dispatch(self, name: str) -> None:
        self._due.discard(name)
        while (queue := self._queues.get(name)) is not None:
            consumers = self._consumers.get(name, [])
            taker = next((consumer for consumer in consumers if consumer.has_room), None)
            stored = queue.take() if taker is not None else None
            if taker is None or stored is None:
                return
            consumers.remove(taker)  # round robin: a consumer that got one goes to the end
            consumers.append(taker)
            taker.unsettled += 1
            if taker.loop is self._loop:
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
