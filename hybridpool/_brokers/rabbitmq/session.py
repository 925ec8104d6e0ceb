"""A pair of connections in use, from their opening until one fails or both are closed; nothing of it outlives it."""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import anyio
from aiormq.channel import Channel

from hybridpool._brokers.rabbitmq.acks import AckBatcher
from hybridpool._brokers.rabbitmq.connection import STEP, AmqpConnection
from hybridpool._brokers.rabbitmq.consume import Consumer
from hybridpool._brokers.rabbitmq.errors import reason, translated
from hybridpool._brokers.rabbitmq.publish import Bystander, Publisher, failure
from hybridpool._brokers.rabbitmq.topology import Topology
from hybridpool._message import Outgoing
from hybridpool.errors import BrokerError, BrokerUnavailable

T = TypeVar("T")
#: bytes; a larger body is written in portions
_BULKY = 1024 * 1024
#: times that messages are sent together before each is sent alone
_TOGETHER = 3


class Session:
    """What is done over two connections. They live and die together: half of it would only look well."""

    def __init__(
        self,
        number: int,
        consuming: AmqpConnection,
        line: AmqpConnection,
        channel: Channel,
        differs: Callable[[str, str], None],
    ) -> None:
        """Take over open connections and a channel of the first; `open` is the way to make one.

        :param number: counts the sessions of a broker; deliveries carry it as their channel.
        :param consuming: also what questions and declarations go over, so they are answered while publishing waits,
            and a private queue belongs to the connection that consumes it.
        :param line: for what is published, and nothing else.
        """
        self.number = number
        self.answers = AckBatcher(channel.number, consuming.tap)
        self.consumer = Consumer(channel, consuming.tap, number, self.answers, self._on_cancelled)
        self.topology = Topology(consuming, differs, line)
        self.publisher = Publisher(line, self.topology)
        #: for what must not cost or delay other messages: large bodies, and exchanges that others name
        self.aside = Publisher(line, self.topology)
        self.aside.ladder = self.publisher.ladder
        #: why it failed; None while it works
        self.cause: str | None = None
        self._lines = (consuming, line)
        self._channel = channel
        self._woken = anyio.Event()
        self._cancelled: list[str] = []
        self._scopes: set[anyio.CancelScope] = set()
        consuming.closing.add_done_callback(lambda done: self.fail(consuming.silence or _told("connection", done)))
        line.closing.add_done_callback(lambda done: self.fail(line.silence or _told("publishing connection", done)))
        channel.closing.add_done_callback(lambda done: self.fail(consuming.silence or _told("channel", done)))

    @classmethod
    async def open(
        cls, number: int, consuming: AmqpConnection, line: AmqpConnection, differs: Callable[[str, str], None]
    ) -> "Session":
        """Open the channels on fresh connections; both are closed if that fails."""
        try:
            session = cls(number, consuming, line, await consuming.channel(confirms=False), differs)
            await session.publisher.open()
        except BaseException:
            await _close(consuming, line)
            raise
        return session

    @contextmanager
    def guard(self, doing: str) -> Generator[None]:
        """Do something over the connections; if one fails meanwhile, the block ends at once.

        The client library leaves some waiters behind when a connection breaks (a full write queue); this does not.

        :raises BrokerUnavailable: if the connection fails.
        :raises BrokerError: if the broker refuses.
        """
        self._look()
        if self.cause is not None:
            raise BrokerUnavailable(f"{doing}: {self.cause}")
        scope = anyio.CancelScope()
        self._scopes.add(scope)
        try:
            with scope, translated(doing):
                yield
        except asyncio.CancelledError as error:
            # The client library raises one of its own when the connection breaks, at the same moment as our scope ends
            # the block: then it is not taken for the scope's, and nobody has cancelled the caller.
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
        try:
            confirmed = await self._sent(message)
            if confirmed is not None:
                await confirmed
            else:
                # whoever sends one after the other would never let the loop write them
                await asyncio.sleep(0)
        except Bystander:
            await self._publish_alone(message)

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[BrokerError | None]:
        """Send messages, each without waiting for the one before; see the port."""
        told = await self._publish_all(messages)
        for again in range(_TOGETHER):
            left = [at for at, error in enumerate(told) if isinstance(error, Bystander)]
            if not left:
                break
            # which message was refused is known: the others are no danger to each other
            if again + 1 < _TOGETHER and all(_is_settled(told[at]) for at in left):
                outcome = await self._publish_all([messages[at] for at in left])
            else:
                outcome = [await self._told(messages[at]) for at in left]
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
                one.cancel()  # nobody is left to hear what became of them
            raise
        return [failure(one) if isinstance(one, asyncio.Future) else one for one in sent]

    async def _publish_alone(self, message: Outgoing) -> None:
        """Send a message whose channel was closed for another one, or for this one: alone, a refusal is about it."""
        with self.guard("publish"):
            await self.publisher.publish_alone(message, await self.publisher.way(message))

    async def _told(self, message: Outgoing) -> BrokerError | None:
        try:
            await self._publish_alone(message)
        except BrokerError as error:
            return error
        return None

    async def _sent(self, message: Outgoing) -> asyncio.Future[None] | None:
        """Send a message; one for which all is there takes no guard, which is dear: `fail` ends who waits for it."""
        self._look()
        if self.cause is not None:
            raise BrokerUnavailable(f"publish: {self.cause}")
        if len(message.body) > _BULKY or (message.exchange and not message.broadcast):
            return await whole(self._sent_apart(message))
        way = self.publisher.way_at_once(message)
        if way is None:
            way = await whole(self._way(message))
        return self.publisher.send(message, way)

    async def _sent_apart(self, message: Outgoing) -> asyncio.Future[None] | None:
        with self.guard("publish"):
            return await self.aside.send_apart(message, await self.aside.way(message))

    async def _way(self, message: Outgoing) -> tuple[str, str]:
        with self.guard("publish"):
            return await self.publisher.way(message)

    async def depth(self, queue: str) -> int:
        """Tell how many messages are ready; see the port."""
        with self.guard(f"depth of {queue}"):
            return await self.topology.depth(queue)

    def _look(self) -> None:
        """Hear of a connection's end in the same moment, and not when the loop comes to its callbacks."""
        for line in self._lines:
            if line.closing.done() and self.cause is None:
                self.fail(line.silence or _told("connection", line.closing))

    def fail(self, cause: str) -> None:
        """Note that it is over; whoever waits in a `guard` hears it at once. The first cause counts."""
        if self.cause is None:
            self.cause = cause
            self.answers.stop()
            self.publisher.fail(cause)
            self.aside.fail(cause)
            for scope in self._scopes:
                scope.cancel()
            self._woken.set()

    async def answers_read(self) -> None:
        """Wait until the broker has read what is settled so far.

        `channel.flow` is the one request that changes nothing; `basic.qos` would be the next consumer's.

        :raises BrokerUnavailable: if the connection is lost meanwhile.
        """
        with self.guard("acknowledge"):
            await self.answers.flush()
            await self._channel.flow(active=True)

    async def news(self) -> list[str]:
        """Wait for something to do: return the queues whose consumers the broker ended; on failure see `cause`."""
        await self._woken.wait()
        queues, self._cancelled = self._cancelled, []
        if self.cause is None:
            self._woken = anyio.Event()
        return queues

    async def close(self) -> None:
        """Write what is settled, close channel and connections; never takes longer than four steps."""
        with anyio.CancelScope(shield=True):
            if self.cause is None:
                with anyio.move_on_after(STEP), suppress(Exception):
                    await self.answers.flush()
                self.fail("closed")
                # the broker answers this when it has seen the acks
                with anyio.move_on_after(STEP), suppress(Exception):
                    await self._channel.close()
            await _close(*self._lines)

    def _on_cancelled(self, queue: str) -> None:
        self._cancelled.append(queue)
        self._woken.set()


def _is_settled(error: BrokerError | None) -> bool:
    return isinstance(error, Bystander) and error.is_settled


async def whole(step: Coroutine[object, object, T]) -> T:
    """Let the step run to its end even if the caller is cancelled meanwhile.

    The client library answers a cancelled request by closing the channel: with it goes every consumer of the channel,
    or the whole connection, if the broker has not opened that channel yet.
    """
    task = asyncio.ensure_future(step)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to look
    return await asyncio.shield(task)


async def _close(*lines: AmqpConnection) -> None:
    # at the same time: a broker that answers neither costs the time of one
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as group:
            for line in lines:
                group.start_soon(line.close, STEP)


def _told(what: str, closing: asyncio.Future[object]) -> str:
    error = None if closing.cancelled() else closing.exception()
    return f"{what} closed" if reason(error) == "closed" else reason(error)
