"""A pair of connections in use, from their opening until one fails or both are closed."""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import anyio

from hybridpool._brokers.rabbitmq.acks import AckBatcher
from hybridpool._brokers.rabbitmq.aiormq_compat import AmqpChannel
from hybridpool._brokers.rabbitmq.connection import CLOSE_STEP_S, AmqpConnection
from hybridpool._brokers.rabbitmq.consume import Consumer
from hybridpool._brokers.rabbitmq.errors import reason, translated
from hybridpool._brokers.rabbitmq.publish import ClosedForAnother, Publisher, failure
from hybridpool._brokers.rabbitmq.topology import Topology
from hybridpool._message import Outgoing, QueueSpec
from hybridpool.errors import BrokerError, BrokerUnavailable

T = TypeVar("T")
#: bytes; a larger body is written in portions
_LARGE_BODY_BYTES = 1024 * 1024
#: times that messages are sent together before each is sent alone
_JOINT_ATTEMPTS = 3


class Session:
    """A pair of connections with their channels.

    If one fails, both end: a worker that can only consume, or only publish, would look healthy and be of no use.
    """

    def __init__(
        self,
        number: int,
        consuming: AmqpConnection,
        publishing: AmqpConnection,
        channel: AmqpChannel,
        differs: Callable[[str, str], None],
    ) -> None:
        """Take over open connections and a channel of the first; `open` is the way to make one.

        :param number: counts the sessions of a broker; deliveries carry it as their channel.
        :param consuming: declarations go over it too, so they are answered while publishing is blocked, and a private
            queue belongs to the connection that consumes it.
        :param publishing: for publishing only.
        """
        self.number = number
        self.acks = AckBatcher(channel.number, consuming.frames)
        self.consumer = Consumer(channel, consuming.frames, number, self.acks, self._on_cancelled)
        self.topology = Topology(consuming, differs, publishing)
        self.publisher = Publisher(publishing, self.topology)
        #: for messages that could delay others or close their channel: large bodies, and exchanges that callers name
        self.isolated_publisher = Publisher(publishing, self.topology)
        self.isolated_publisher.delay_queues = self.publisher.delay_queues
        #: why it failed; None while it works
        self.cause: str | None = None
        self._connections = (consuming, publishing)
        self._channel = channel
        self._woken = anyio.Event()
        self._cancelled: list[str] = []
        self._scopes: set[anyio.CancelScope] = set()
        consuming.closing.add_done_callback(
            lambda done: self.fail(consuming.silence or _close_reason("connection", done))
        )
        publishing.closing.add_done_callback(
            lambda done: self.fail(publishing.silence or _close_reason("publishing connection", done))
        )
        channel.closing.add_done_callback(lambda done: self.fail(consuming.silence or _close_reason("channel", done)))

    @classmethod
    async def open(
        cls, number: int, consuming: AmqpConnection, publishing: AmqpConnection, differs: Callable[[str, str], None]
    ) -> "Session":
        """Open the channels on fresh connections; both are closed if that fails."""
        try:
            session = cls(number, consuming, publishing, await consuming.channel(confirms=False), differs)
            await session.publisher.open()
        except BaseException:
            await _close(consuming, publishing)
            raise
        return session

    @contextmanager
    def guard(self, doing: str) -> Generator[None]:
        """Do something over the connections; if one fails meanwhile, the block ends at once.

        The client library never wakes some waiters when a connection breaks (those of a full write queue); this does.

        :raises BrokerUnavailable: if the connection fails.
        :raises BrokerError: if the broker refuses.
        """
        self._check_connections()
        if self.cause is not None:
            raise BrokerUnavailable(f"{doing}: {self.cause}")
        scope = anyio.CancelScope()
        self._scopes.add(scope)
        try:
            with scope, translated(doing):
                yield
        except asyncio.CancelledError as error:
            # Two cancellations may come in the same loop tick when a connection breaks: the scope's, by `fail`, and one
            # that the client library raises by itself. anyio then takes neither for the scope's. The caller has not
            # been cancelled, so it gets an error in place of the cancellation.
            task = asyncio.current_task()
            if not scope.cancel_called or task is None or task.cancelling():
                raise
            raise BrokerUnavailable(f"{doing}: {self.cause}") from error
        finally:
            self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise BrokerUnavailable(f"{doing}: {self.cause}")

    async def publish(self, message: Outgoing) -> None:
        """Send a message and wait for its confirmation; see the port."""
        if message.raw and message.mandatory:
            # Nothing may be written into it by which it is known when it comes back.
            await run_to_end(self._publish_alone(message))
            return
        try:
            confirmed = await self._sent(message)
            if confirmed is not None:
                await confirmed
            else:
                # a caller that sends one after the other would never let the loop write them
                await asyncio.sleep(0)
        except ClosedForAnother:
            await self._publish_alone(message)

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[BrokerError | None]:
        """Send messages, each without waiting for the one before; see the port."""
        told = await self._publish_all(messages)
        for again in range(_JOINT_ATTEMPTS):
            left = [at for at, error in enumerate(told) if isinstance(error, ClosedForAnother)]
            if not left:
                break
            # it is known which message was refused: the others will not close the channel again
            if again + 1 < _JOINT_ATTEMPTS and all(_is_settled(told[at]) for at in left):
                outcome = await self._publish_all([messages[at] for at in left])
            else:
                outcome = [await self._publish_alone_caught(messages[at]) for at in left]
            for at, error in zip(left, outcome, strict=True):
                told[at] = error
        return told

    async def _publish_all(self, messages: Sequence[Outgoing]) -> list[BrokerError | None]:
        sent: list[asyncio.Future[None] | BrokerError | None] = []
        for message in messages:
            try:
                sent.append(await self._sent(message))
            except BrokerError as error:
                sent.append(error)
        waiting = [one for one in sent if isinstance(one, asyncio.Future)]
        try:
            if waiting:
                await asyncio.wait(waiting)
        except asyncio.CancelledError:
            for one in waiting:
                one.cancel()  # the caller is gone, so their outcome is not read
            raise
        return [failure(one) if isinstance(one, asyncio.Future) else one for one in sent]

    async def _publish_alone(self, message: Outgoing) -> None:
        """Send a message alone, whose channel was closed for it or for another one: a refusal is about it then."""
        with self.guard("publish"):
            await self.publisher.publish_alone(message, await self.publisher.route(message))

    async def _publish_alone_caught(self, message: Outgoing) -> BrokerError | None:
        try:
            await self._publish_alone(message)
        except BrokerError as error:
            return error
        return None

    async def _sent(self, message: Outgoing) -> asyncio.Future[None] | None:
        """Send a message. Where nothing must be prepared, no guard is taken, which is slow: `fail` fails its future."""
        self._check_connections()
        if self.cause is not None:
            raise BrokerUnavailable(f"publish: {self.cause}")
        if len(message.body) > _LARGE_BODY_BYTES or (message.exchange and not message.broadcast):
            if len(message.body) <= _LARGE_BODY_BYTES and not self.isolated_publisher.is_writing:
                isolated_route = self.isolated_publisher.route_now(message)
                if isolated_route is not None:
                    return self.isolated_publisher.send(message, isolated_route)
            return await run_to_end(self._send_isolated(message))
        route = self.publisher.route_now(message)
        if route is None:
            route = await run_to_end(self._prepare_route(message))
        return self.publisher.send(message, route)

    async def _send_isolated(self, message: Outgoing) -> asyncio.Future[None] | None:
        with self.guard("publish"):
            return await self.isolated_publisher.send_in_portions(message, await self.isolated_publisher.route(message))

    async def _prepare_route(self, message: Outgoing) -> tuple[str, str]:
        with self.guard("publish"):
            return await self.publisher.route(message)

    async def is_classic(self, queue: QueueSpec) -> bool:
        """Tell whether it is a classic queue, declared as told; see `Topology.is_classic`."""
        with self.guard(f"kind of {queue.name}"):
            return await self.topology.is_classic(queue)

    async def purge(self, queue: str) -> int:
        """Delete the messages that are ready; see the port."""
        with self.guard(f"purge {queue}"):
            return await self.topology.purge(queue)

    async def depth(self, queue: str) -> int:
        """Tell how many messages are ready; see the port."""
        with self.guard(f"depth of {queue}"):
            return await self.topology.depth(queue)

    def _check_connections(self) -> None:
        """Note the end of a connection at once: its callbacks run some loop ticks later."""
        for connection in self._connections:
            if connection.closing.done() and self.cause is None:
                self.fail(connection.silence or _close_reason("connection", connection.closing))

    def fail(self, cause: str) -> None:
        """Note that the session is over, and end all blocks in a `guard`. The first cause is kept."""
        if self.cause is None:
            self.cause = cause
            self.acks.stop()
            self.publisher.fail(cause)
            self.isolated_publisher.fail(cause)
            for scope in self._scopes:
                scope.cancel()
            self._woken.set()

    async def answers_read(self) -> None:
        """Wait until the broker has read what is settled so far.

        :raises BrokerUnavailable: if the connection is lost meanwhile.
        """
        with self.guard("acknowledge"):
            await self.acks.flush()
            await self._channel.round_trip()

    async def next_cancelled(self) -> list[str]:
        """Wait until the broker ends consumers; return their queues, or none if the session has failed (`cause`)."""
        await self._woken.wait()
        queues, self._cancelled = self._cancelled, []
        if self.cause is None:
            self._woken = anyio.Event()
        return queues

    async def close(self) -> None:
        """Write what is settled, close channel and connections; takes four times `CLOSE_STEP_S` at most."""
        with anyio.CancelScope(shield=True):
            if self.cause is None:
                with anyio.move_on_after(CLOSE_STEP_S), suppress(Exception):
                    await self.acks.flush()
                self.fail("closed")
                # the broker answers this when it has read the acks
                with anyio.move_on_after(CLOSE_STEP_S), suppress(Exception):
                    await self._channel.close()
            await _close(*self._connections)

    def _on_cancelled(self, queue: str) -> None:
        self._cancelled.append(queue)
        self._woken.set()


def _is_settled(error: BrokerError | None) -> bool:
    return isinstance(error, ClosedForAnother) and error.is_settled


async def run_to_end(step: Coroutine[object, object, T]) -> T:
    """Let the step run to its end even if the caller is cancelled meanwhile.

    The client library closes a channel whose request is cancelled: that ends every consumer of the channel, or the
    whole connection, if the broker has not opened that channel yet.
    """
    task = asyncio.ensure_future(step)
    # the exception counts as retrieved, because the caller may have been cancelled
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


async def _close(*connections: AmqpConnection) -> None:
    # both at the same time: a broker that answers neither takes the time of one
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as group:
            for connection in connections:
                group.start_soon(connection.close, CLOSE_STEP_S)


def _close_reason(what: str, closing: asyncio.Future[object]) -> str:
    error = None if closing.cancelled() else closing.exception()
    return f"{what} closed" if reason(error) == "closed" else reason(error)
