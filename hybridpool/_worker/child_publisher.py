"""Publishes what tasks send: the parent does it for its children, so no child holds a connection to the broker.

A message of our own apps is for a queue, which is declared first. One of another library's app is published as its
child wrote it (`EnqueueRaw`); what it goes to is declared when the child says so (`Declare`), once for all children.

Both wait for a connection that is lost: for broker_connection_timeout, as a client does; those of another library's app
for as long as its settings let it try (`patience`), and for 30 s at least. Such a message is mostly sent at the end of
a task, which goes on meanwhile: where it is said to have failed the task's own code cannot catch it any more.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from types import MappingProxyType
from typing import Final, TypeVar, cast

import attrs
import msgspec
from anyio.abc import TaskGroup

from hybridpool._brokers.base import Broker
from hybridpool._config import Settings
from hybridpool._ipc.frames import Declare, Enqueue, EnqueueAnswer, EnqueueRaw
from hybridpool._message import Binding, ExchangeType, Outgoing, QueueSpec, unpack
from hybridpool._policy import backoff
from hybridpool._protocol.queues import task_queue
from hybridpool.errors import BrokerUnavailable, HybridpoolError, QueueNotFound

V = TypeVar("V")
#: queues that are known to be declared; fewer than the broker's adapter remembers
MAX_DECLARED: Final = 500
#: seconds for which another library's app waits for a connection, at least: in most cases a node is back by then
MIN_PATIENCE_S: Final = 30.0


class ChildPublisher:
    """Publishes for children."""

    def __init__(
        self,
        broker: Broker,
        tasks: TaskGroup,
        settings: Settings,
        queues: Mapping[str, QueueSpec] = MappingProxyType({}),
        consumed: Collection[str] = (),
        patience: float | None = 0.0,
    ) -> None:
        """Publish over a broker.

        :param tasks: where what waits for the broker runs.
        :param queues: how the app of another library declares its queues, by name.
        :param consumed: queues that the worker consumes, so that they are declared.
        :param patience: seconds for which the app of another library tries to publish; None: for ever.
        """
        #: what apps of another library have declared: queues by name, exchanges with type and durability
        self._queues = dict(queues)
        self._exchanges: dict[str, tuple[ExchangeType, bool]] = {}
        self._is_declared: set[str] = set(consumed)
        self._broker = broker
        self._tasks = tasks
        self._settings = settings
        self._patience = patience
        self._declared: set[str] = set()
        #: awaited with each message that was published; None: no listener wants that
        self.tell_sent: Callable[[Outgoing], Coroutine[object, object, None]] | None = None

    def publish(self, frame: Enqueue, answer: Callable[[EnqueueAnswer], None]) -> None:
        """Publish a message, and answer once the broker has confirmed it, or with the error."""
        self._tasks.start_soon(self._publish, frame, answer)

    async def _publish(self, frame: Enqueue, answer: Callable[[EnqueueAnswer], None]) -> None:
        try:
            message: Outgoing | None = None
            match frame:
                case EnqueueRaw():
                    raw = _raw(frame)
                    await self._wait_out(lambda: self._broker.publish(raw))
                case Declare():
                    await self._wait_out(lambda: self._declare_for_app(frame))
                case _:
                    message = await self._deliver(unpack(frame.message))
        except HybridpoolError as error:
            answer(EnqueueAnswer(frame.ticket, str(error), type(error).__name__))
        except Exception as error:  # noqa: BLE001  # the worker goes on, whatever a task's code has made of the message
            answer(EnqueueAnswer(frame.ticket, f"not published: {type(error).__name__}: {error}"))
        else:
            answer(EnqueueAnswer(frame.ticket, None))
            if self.tell_sent is not None and message is not None:
                await self.tell_sent(message)

    async def _deliver(self, message: Outgoing) -> Outgoing:
        """Publish, over connections that break: with as many attempts as a client makes (`_client.connection`).

        :returns: the message, with its queue.
        :raises BrokerError: if the broker refuses, or there is none within broker_connection_timeout.
        """
        if not message.exchange and not message.routing_key:
            message = attrs.evolve(message, routing_key=self._settings.task_default_queue)
        is_made_again = bool(message.exchange)
        for attempt in range(1, backoff.ATTEMPTS + 1):
            await self._broker.connected(self._settings.broker_connection_timeout)
            try:
                await self._declare(message)
                await self._broker.publish(message)
            except QueueNotFound:
                if is_made_again:
                    raise
                # deleted since it was declared
                is_made_again = True
                self._declared.discard(message.routing_key)
            except BrokerUnavailable:
                if attempt == backoff.ATTEMPTS:
                    raise
                await asyncio.sleep(backoff.pause(attempt))
            else:
                break
        return message

    async def _declare(self, message: Outgoing) -> None:
        if not message.exchange and message.routing_key not in self._declared:
            await self._broker.declare(task_queue(message.routing_key, self._settings))
            if len(self._declared) >= MAX_DECLARED:
                self._declared.clear()
            self._declared.add(message.routing_key)

    async def _wait_out(self, act: Callable[[], Coroutine[object, object, None]]) -> None:
        """Do what an app of another library wants, over connections that break.

        :raises BrokerError: if the broker refuses, or there is none for longer than the app would try.
        """
        now = asyncio.get_running_loop().time
        end = None if self._patience is None else now() + max(self._patience, MIN_PATIENCE_S)
        attempt = 1
        while True:
            try:
                await self._broker.connected(None if end is None else max(0.0, end - now()))
                await act()
            except BrokerUnavailable:
                if attempt >= backoff.ATTEMPTS and end is not None and now() >= end:
                    raise
                await asyncio.sleep(backoff.pause(attempt))
                attempt += 1
            else:
                return

    async def _declare_for_app(self, frame: Declare) -> None:
        """Declare what an app of another library wants to publish to; what is known to be declared costs nothing.

        :raises BrokerError: if the broker refuses, or there is no connection.
        """
        if not frame.queue:
            wanted = cast("ExchangeType", frame.exchange_type), frame.durable
            if self._exchanges.get(frame.exchange) != wanted:
                await self._broker.declare_exchange(frame.exchange, wanted[0], durable=wanted[1])
                _keep(self._exchanges, frame.exchange, wanted)
            return
        spec = self._queues.get(frame.queue)
        is_declared = spec is not None and frame.queue in self._is_declared
        if spec is None:
            arguments = msgspec.msgpack.decode(frame.arguments)
            spec = QueueSpec(name=frame.queue, kind=arguments.pop("x-queue-type", "classic"), arguments=arguments)
        if frame.exchange and not any(
            (one.exchange, one.routing_key) == (frame.exchange, frame.routing_key) for one in spec.bindings
        ):
            kind, durable = self._exchanges.get(frame.exchange, ("direct", True))
            binding = Binding(exchange=frame.exchange, type=kind, routing_key=frame.routing_key, durable=durable)
            spec, is_declared = attrs.evolve(spec, bindings=(*spec.bindings, binding)), False
        if not is_declared:
            await self._broker.declare(spec)
            _keep(self._queues, frame.queue, spec)
            self._is_declared.add(frame.queue)


def _keep(known: dict[str, V], name: str, value: V) -> None:
    """Remember a declaration; of too many the oldest is forgotten, and made again."""
    known.pop(name, None)
    known[name] = value
    if len(known) > MAX_DECLARED:
        del known[next(iter(known))]


def _raw(frame: EnqueueRaw) -> Outgoing:
    return Outgoing(
        body=frame.message,
        routing_key=frame.routing_key,
        exchange=frame.exchange,
        mandatory=frame.mandatory,
        raw=frame.properties,
    )
