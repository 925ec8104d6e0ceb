"""Publishing with confirmation, on a channel of its own that reopens by itself.

Any number of messages are under way at once: all of a loop tick leave together, and the broker confirms many with one
word. The client library opens the channel and notes its end; messages and confirmations pass it by (see `tap`).
"""

import asyncio
import struct
import sys
from contextlib import suppress
from itertools import takewhile

from aiormq.channel import Channel

from hybridpool._brokers.rabbitmq.amqp.codec import (
    RETURN,
    read_return,
    read_return_tag,
    write_body,
    write_head_frames,
    write_publish,
)
from hybridpool._brokers.rabbitmq.amqp.frame_filter import ChannelReceiver
from hybridpool._brokers.rabbitmq.connection import AmqpConnection
from hybridpool._brokers.rabbitmq.delayed_delivery import DelayQueues
from hybridpool._brokers.rabbitmq.refused_publish import Closing
from hybridpool._brokers.rabbitmq.topology import Topology
from hybridpool._message import Outgoing
from hybridpool.errors import BrokerError, BrokerUnavailable, CannotEncode, MessageTooLarge, QueueFull, QueueNotFound

#: bytes of a large body that are written at once
_PORTION = 512 * 1024
#: what a writer raises for a message that has no form in AMQP
UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError, struct.error)


class Bystander(BrokerUnavailable):
    """The broker closed the channel because it refused another message that was under way; this one may be sent again.

    :param is_settled: it is known which message was refused, and that one is not sent again.
    """

    def __init__(self, message: str, is_settled: bool) -> None:
        super().__init__(message)
        self.is_settled = is_settled


class Confirms:
    """One publishing channel: what is under way on it."""

    def __init__(self, channel: Channel, *, is_for_one: bool = False) -> None:
        """:param is_for_one: one message is sent over it; if the broker closes it, that message is why."""
        self.channel = channel
        self._is_for_one = is_for_one
        self.is_over = False
        #: the broker did not take a message. A channel that has lost the leader of a quorum queue may go on refusing
        #: when there is a new one (RabbitMQ 3.10): only another channel finds it
        self.is_refused = False
        self._is_retiring = False
        self._parting: asyncio.Future[None] | None = None
        #: tag of the last message sent
        self.last = 0
        #: by tag, which rises: who waits for its confirmation, and where the message went; a message for which nobody
        #: waits is not here
        self._waiting: dict[int, tuple[asyncio.Future[None], Outgoing, tuple[str, str]]] = {}
        self.ear = ChannelReceiver(self._returned, self._confirmed)

    @property
    def is_usable(self) -> bool:
        """It takes more messages.

        From the broker's word that it closes the channel until the client library says so some loop ticks pass; what is
        written in them could follow the library's consent, and the broker ends the connection for that.
        """
        return not self.is_over and not self.is_refused and not self.ear.is_closed

    def wait(self, tag: int, message: Outgoing, way: tuple[str, str]) -> asyncio.Future[None]:
        """Expect the confirmation of a message."""
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[tag] = confirmed, message, way
        return confirmed

    def fail(self, error: BaseException | None) -> None:
        """The channel is gone, and with it every confirmation.

        :param error: the client library's; None: closed in good order.
        """
        self.is_over = True
        waiting, self._waiting = self._waiting, {}
        closing = Closing(error)
        refused = [
            closing.is_refusal and (self._is_for_one or closing.is_about(message, *way))
            for _, message, way in waiting.values()
        ]
        is_settled = any(refused)
        for (confirmed, message, _), is_refused in zip(waiting.values(), refused, strict=True):
            if confirmed.done():
                continue
            doing = f"publish to {place(message)}"
            if closing.is_refusal and not is_refused:
                confirmed.set_exception(Bystander(f"{doing}: the channel was closed for another message", is_settled))
            else:
                confirmed.set_exception(closing.refusal(doing))

    def retire(self) -> None:
        """Close it when nobody waits for it any more."""
        self._is_retiring = True
        if not self._waiting and self._parting is None and not self.is_over:
            self._parting = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        with suppress(Exception):
            await self.channel.close()

    def _confirmed(self, tag: int, multiple: bool, is_taken: bool) -> None:
        tags = tuple(takewhile(tag.__ge__, self._waiting)) if multiple else (tag,)
        for known in tags:
            self._end(known, is_taken)
        if self._is_retiring:
            self.retire()

    def _end(self, tag: int, is_taken: bool) -> None:
        waiting = self._waiting.pop(tag, None)
        if waiting is None or waiting[0].done():
            return
        confirmed, message, _ = waiting
        if is_taken:
            confirmed.set_result(None)
        else:
            # a node that is just going, or a queue that is full: it may be taken in a moment
            self.is_refused = True
            confirmed.set_exception(
                QueueFull(f"publish to {place(message)}: the broker did not take the message (is the queue full?)")
            )

    def _returned(self, method: bytes, said: bytes, properties: bytes, _: bytes) -> None:
        """No queue takes a mandatory message. Its confirmation follows, and finds nobody."""
        if method != RETURN:
            return
        tag = read_return_tag(properties)
        waiting = self._waiting.pop(tag, None)
        if waiting is not None and not waiting[0].done():
            confirmed, message, _way = waiting
            told = f"no queue takes a message for {place(message)}: {read_return(said)}"
            confirmed.set_exception(QueueNotFound(told))


class Publisher:
    """The publishing side of one connection.

    A broker closes the channel on a message for an exchange that does not exist; consumers must not suffer for that,
    so this channel is not theirs, and the next publish opens another.
    """

    def __init__(self, line: AmqpConnection, topology: Topology) -> None:
        self._line = line
        self._topology = topology
        self.ladder = DelayQueues(topology)
        self._fanouts: set[str] = set()
        self._current: Confirms | None = None
        self._opening = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._for_one = asyncio.Lock()
        #: bytes: larger ones the broker has refused; to send one costs the channel
        self._max_body = sys.maxsize

    async def open(self) -> Confirms:
        """Return an open channel."""
        current = self._current
        if current is None or not current.is_usable:
            async with self._opening:
                if current is self._current or self._current is None:
                    self._current = await self._fresh()
                    if current is not None:
                        current.retire()
        assert self._current is not None
        return self._current

    async def _fresh(self, *, is_for_one: bool = False) -> Confirms:
        channel = await self._line.channel(confirms=True)
        tap, made = self._line.tap, Confirms(channel, is_for_one=is_for_one)
        tap.watch(channel.number, made.ear)

        def closed(closing: asyncio.Future[object]) -> None:
            tap.leave(channel.number)
            error = None if closing.cancelled() else closing.exception()
            limit = Closing(error).max_body
            if limit is not None:
                self._max_body = limit
            made.fail(error)

        channel.closing.add_done_callback(closed)
        return made

    def way_at_once(self, message: Outgoing) -> tuple[str, str] | None:
        """Return exchange and routing key for a message that can be sent now; None: something must be made first."""
        current = self._current
        if current is None or not current.is_usable or self._line.tap.is_full or message.delay > 0:
            return None
        if message.broadcast and message.exchange not in self._fanouts:
            return None
        return message.exchange, message.routing_key

    async def way(self, message: Outgoing) -> tuple[str, str]:
        """Make what a message needs on its way: steps of the ladder, an exchange, a channel, room to write.

        :raises BrokerError: if the broker refuses.
        """
        exchange, routing_key = message.exchange, message.routing_key
        if message.delay > 0:
            exchange, routing_key = await self.ladder.prepare(routing_key, message.delay)
        elif message.broadcast and exchange not in self._fanouts:
            await self._topology.fanout(exchange)
            self._fanouts.add(exchange)
        if self._line.tap.is_full:
            await self._line.tap.drained()
        await self.open()
        return exchange, routing_key

    def send(
        self, message: Outgoing, way: tuple[str, str], over: Confirms | None = None
    ) -> asyncio.Future[None] | None:
        """Write the message; returns its confirmation, if somebody waits for it.

        :param over: another channel than the one for all.
        :raises BrokerUnavailable: if the channel has been lost.
        :raises BrokerRefused: if it cannot be written as AMQP, or the broker has refused a body of this size; nothing
            is sent then.
        """
        current = over or self._current
        if current is None or current.is_over or current.ear.is_closed:
            raise BrokerUnavailable(f"publish to {place(message)}: closed")
        if len(message.body) > self._max_body:
            self._check_size(message)
        tag = current.last + 1
        # what comes back is known by its id; the broker has no other word for it
        ours = str(tag) if message.mandatory else None
        try:
            data = write_publish(current.channel.number, message, *way, message_id=ours, largest=self._line.largest)
        except UNWRITABLE as error:
            raise CannotEncode(f"publish to {place(message)}: {error}") from error
        self._line.tap.write(data)
        current.last = tag
        return current.wait(tag, message, way) if message.is_confirmed else None

    def _check_size(self, message: Outgoing) -> None:
        if len(message.body) > self._max_body:
            raise MessageTooLarge(
                f"publish to {place(message)}: a body of {len(message.body)} bytes is larger than the broker's "
                f"max_message_size ({self._max_body})"
            )

    async def publish_alone(self, message: Outgoing, way: tuple[str, str]) -> None:
        """Send a message that waits for its confirmation over a channel of its own.

        One message at a time: a refusal is then certainly about it.

        :raises BrokerError: as `send`, and if the broker refuses the message.
        """
        async with self._for_one:
            channel = await self._fresh(is_for_one=True)
            try:
                confirmed = self.send(message, way, channel)
                if confirmed is not None:
                    await confirmed
            finally:
                channel.retire()

    async def send_apart(self, message: Outgoing, way: tuple[str, str]) -> asyncio.Future[None] | None:
        """Write the message in portions, as the socket takes them, so that a large body is not in memory twice.

        Once begun it goes on whatever becomes of the caller: between the frames of a body nothing else may be written
        on a channel, not even that it is closed. In all else as `send`.
        """
        writing = asyncio.ensure_future(self._write_apart(message, way))
        writing.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to look
        return await asyncio.shield(writing)

    async def _write_apart(self, message: Outgoing, way: tuple[str, str]) -> asyncio.Future[None] | None:
        async with self._writing:
            self._check_size(message)
            current = await self.open()
            tag, number, largest = current.last + 1, current.channel.number, self._line.largest
            ours = str(tag) if message.mandatory else None
            try:
                head = write_head_frames(number, message, *way, message_id=ours, largest=largest)
            except UNWRITABLE as error:
                raise CannotEncode(f"publish to {place(message)}: {error}") from error
            current.last = tag
            # waited for by the channel in any case, which is closed only when nobody waits
            confirmed = current.wait(tag, message, way)
            confirmed.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._line.tap.write(head)
            for portion in write_body(number, message.body, largest, _PORTION):
                await self._line.tap.drained()
                if current.is_over or current.ear.is_closed:
                    break
                self._line.tap.write(portion)
        return confirmed if message.is_confirmed else None

    def fail(self, cause: str) -> None:
        """The session is over: nobody may wait any more."""
        if self._current is not None:
            self._current.fail(BrokerUnavailable(cause))


def place(message: Outgoing) -> str:
    """Say where the message goes."""
    return f"{message.exchange}/{message.routing_key}" if message.exchange else message.routing_key


def failure(confirmed: asyncio.Future[None]) -> BrokerError | None:
    """Return what went wrong with a message whose confirmation has come, or will not."""
    error = confirmed.exception()
    if error is None or isinstance(error, BrokerError):
        return error
    raise error
