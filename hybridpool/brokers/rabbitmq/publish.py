"""Publishing with confirmation, on a channel of its own that reopens by itself.

Any number of messages are under way at once: all of a loop tick leave together, and the broker confirms many with one
word. The client library opens the channel and notes its end; messages and confirmations pass it by (see `tap`).
"""

import asyncio
from collections.abc import Sequence

from aiormq import exceptions as foreign
from aiormq.channel import Channel

from hybridpool.brokers.rabbitmq.border import reason
from hybridpool.brokers.rabbitmq.connection import Line
from hybridpool.brokers.rabbitmq.frames import RETURN, read_properties, read_return, write_publish
from hybridpool.brokers.rabbitmq.ladder import Ladder
from hybridpool.brokers.rabbitmq.tap import Ear
from hybridpool.brokers.rabbitmq.topology import Topology
from hybridpool.errors import BrokerError, BrokerUnavailable
from hybridpool.message import Outgoing


class Confirms:
    """One publishing channel: what is under way on it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.is_over = False
        #: tag of the last message sent
        self.last = 0
        #: by tag, which rises: who waits for its confirmation, and where the message went; a message for which nobody
        #: waits is not here
        self._waiting: dict[int, tuple[asyncio.Future[None], Outgoing]] = {}
        self.ear = Ear(self._returned, self._confirmed)

    def wait(self, tag: int, message: Outgoing) -> asyncio.Future[None]:
        """Expect the confirmation of a message."""
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[tag] = confirmed, message
        return confirmed

    def fail(self, error: BaseException | None) -> None:
        """The channel is gone, and with it every confirmation.

        :param error: the client library's; None: closed in good order.
        """
        self.is_over = True
        waiting, self._waiting = self._waiting, {}
        for confirmed, message in waiting.values():
            if not confirmed.done():
                confirmed.set_exception(_lost(error, message))

    def _confirmed(self, tag: int, multiple: bool, is_taken: bool) -> None:
        if not multiple:
            self._end(tag, is_taken)
            return
        for known in list(self._waiting):
            if known > tag:
                break
            self._end(known, is_taken)

    def _end(self, tag: int, is_taken: bool) -> None:
        confirmed, message = self._waiting.pop(tag, (None, None))
        if confirmed is None or message is None or confirmed.done():
            return
        if is_taken:
            confirmed.set_result(None)
        else:
            # a node that is just going, or a queue that is full: it may be taken in a moment
            told = f"publish to {place(message)}: the broker did not take the message"
            confirmed.set_exception(BrokerUnavailable(told))

    def _returned(self, method: bytes, said: bytes, properties: bytes, _: bytes) -> None:
        """No queue takes a mandatory message. Its confirmation follows, and finds nobody."""
        if method != RETURN:
            return
        tag = int(read_properties(properties).message_id or 0)
        confirmed, message = self._waiting.pop(tag, (None, None))
        if confirmed is not None and message is not None and not confirmed.done():
            confirmed.set_exception(BrokerError(f"no queue takes a message for {place(message)}: {read_return(said)}"))


class Publisher:
    """The publishing side of one connection.

    A broker closes the channel on a message for an exchange that does not exist; consumers must not suffer for that,
    so this channel is not theirs, and the next publish opens another.
    """

    def __init__(self, line: Line, topology: Topology) -> None:
        self._line = line
        self._topology = topology
        self.ladder = Ladder(topology)
        self._fanouts: set[str] = set()
        self._current: Confirms | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> Confirms:
        """Return an open channel."""
        if self._current is None or self._current.is_over:
            async with self._opening:
                if self._current is None or self._current.is_over:
                    self._current = await self._fresh()
        return self._current

    async def _fresh(self) -> Confirms:
        channel, tap = await self._line.channel(confirms=True), self._line.tap
        made = Confirms(channel)
        tap.watch(channel.number, made.ear)

        def closed(closing: asyncio.Future[object]) -> None:
            tap.leave(channel.number)
            made.fail(None if closing.cancelled() else closing.exception())

        channel.closing.add_done_callback(closed)
        return made

    async def publish(self, message: Outgoing) -> None:
        """Send the message and wait for its confirmation; many may wait at the same time.

        :raises BrokerUnavailable: if the channel is lost meanwhile.
        :raises BrokerError: if the broker refuses it, or no queue takes it and it is mandatory.
        """
        exchange, routing_key = await self._way(message)
        confirmed = self._send(await self._ready(), message, exchange, routing_key)
        if confirmed is not None:
            await confirmed

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[BrokerError | None]:
        """Send messages, each without waiting for the one before; returns what went wrong with each."""
        sent: list[asyncio.Future[None] | BrokerError | None] = []
        for message in messages:
            try:
                exchange, routing_key = await self._way(message)
                sent.append(self._send(await self._ready(), message, exchange, routing_key))
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
        return [_failure(one) if isinstance(one, asyncio.Future) else one for one in sent]

    async def _way(self, message: Outgoing) -> tuple[str, str]:
        """Return exchange and routing key that lead to where the message shall go, made if need be."""
        if message.delay > 0:
            return await self.ladder.prepare(message.routing_key, message.delay)
        if message.broadcast and message.exchange not in self._fanouts:
            await self._topology.fanout(message.exchange)
            self._fanouts.add(message.exchange)
        return message.exchange, message.routing_key

    async def _ready(self) -> Confirms:
        """Return a channel that takes a message now."""
        if self._line.tap.is_full:
            await self._line.tap.drained()
        current = self._current
        return await self.open() if current is None or current.is_over else current

    def _send(
        self, current: Confirms, message: Outgoing, exchange: str, routing_key: str
    ) -> asyncio.Future[None] | None:
        """Write the message; returns its confirmation, if somebody waits for it.

        :raises BrokerError: if it cannot be written as AMQP; nothing is sent then.
        """
        tag = current.last + 1
        # what comes back is known by its id; the broker has no other word for it
        ours = str(tag) if message.mandatory else None
        try:
            data = write_publish(
                current.channel.number, message, exchange, routing_key, message_id=ours, largest=self._line.largest
            )
        except (TypeError, ValueError) as error:
            raise BrokerError(f"publish to {place(message)}: {error}") from error
        self._line.tap.write(data)
        current.last = tag
        return current.wait(tag, message) if message.is_confirmed else None


def _failure(confirmed: asyncio.Future[None]) -> BrokerError | None:
    error = confirmed.exception()
    if error is None or isinstance(error, BrokerError):
        return error
    raise error


def place(message: Outgoing) -> str:
    """Say where the message goes."""
    return f"{message.exchange}/{message.routing_key}" if message.exchange else message.routing_key


def _lost(error: BaseException | None, message: Outgoing) -> BrokerError:
    told = f"publish to {place(message)}: {reason(error)}"
    if isinstance(error, foreign.ChannelNotFoundEntity | foreign.ChannelAccessRefused) and message.exchange:
        # every message under way hears this; one for the default exchange cannot have caused it
        return BrokerError(told)
    return BrokerUnavailable(told)
