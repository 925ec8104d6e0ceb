"""Publishing with confirmation, on a channel of its own that reopens by itself.

Any number of messages are under way at once: all of a loop tick leave together, and one `basic.ack` of the broker may
confirm many. The client library opens the channel and notes its end; messages and confirmations pass it by (see
`amqp.frame_filter`).
"""

import asyncio
import struct
import sys
from contextlib import suppress
from itertools import takewhile

from hybridpool._brokers.rabbitmq.aiormq_compat import AmqpChannel
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
from hybridpool._brokers.rabbitmq.refused_publish import ChannelClose
from hybridpool._brokers.rabbitmq.topology import Topology
from hybridpool._message import Outgoing
from hybridpool.errors import BrokerError, BrokerUnavailable, CannotEncode, MessageTooLarge, QueueFull, QueueNotFound

#: bytes of a large body that are written at once
_PORTION_BYTES = 512 * 1024
#: what a writer raises for a message that has no form in AMQP
UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError, struct.error)


class ClosedForAnother(BrokerUnavailable):
    """The broker closed the channel because it refused another message that was under way; this one may be sent again.

    :param is_settled: whether it is known which message was refused, so that one is not sent again.
    """

    def __init__(self, message: str, is_settled: bool) -> None:
        super().__init__(message)
        self.is_settled = is_settled


class ConfirmChannel:
    """A publishing channel, with the messages whose confirmations are outstanding."""

    def __init__(self, channel: AmqpChannel, *, is_for_one: bool = False) -> None:
        """:param is_for_one: only one message is sent over it, so that is the one if the broker refuses."""
        self.channel = channel
        self._is_for_one = is_for_one
        self.is_over = False
        #: whether the broker has not taken a message. A channel that has lost the leader of a quorum queue may go on
        #: refusing when there is a new one (RabbitMQ 3.10): only a new channel finds it
        self.is_refused = False
        self._is_retiring = False
        self._close_task: asyncio.Future[None] | None = None
        #: tag of the last message sent
        self.last = 0
        #: by tag, in rising order: the future of the confirmation, the message and its route. A message that is sent
        #: without waiting for its confirmation is not here
        self._waiting: dict[int, tuple[asyncio.Future[None], Outgoing, tuple[str, str]]] = {}
        self.receiver = ChannelReceiver(self._returned, self._confirmed)

    @property
    def is_usable(self) -> bool:
        """Whether it takes more messages.

        Some loop ticks pass from the broker's `channel.close` until the client library has closed the channel. In them
        the library writes `channel.close-ok`; a message that is written after that makes the broker close the whole
        connection. So the receiver notes `channel.close` as soon as its bytes come in.
        """
        return not self.is_over and not self.is_refused and not self.receiver.is_closed

    def wait(self, tag: int, message: Outgoing, route: tuple[str, str]) -> asyncio.Future[None]:
        """Expect the confirmation of a message."""
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[tag] = confirmed, message, route
        return confirmed

    def fail(self, error: BaseException | None) -> None:
        """Fail all outstanding confirmations: the channel is closed.

        :param error: the client library's; None: closed without an error.
        """
        self.is_over = True
        waiting, self._waiting = self._waiting, {}
        closing = ChannelClose(error)
        refused = [
            closing.is_refusal and (self._is_for_one or closing.is_about(message, *route))
            for _, message, route in waiting.values()
        ]
        is_settled = any(refused)
        for (confirmed, message, _), is_refused in zip(waiting.values(), refused, strict=True):
            if confirmed.done():
                continue
            doing = f"publish to {destination(message)}"
            if closing.is_refusal and not is_refused:
                confirmed.set_exception(
                    ClosedForAnother(f"{doing}: the channel was closed for another message", is_settled)
                )
            else:
                confirmed.set_exception(closing.refusal(doing))

    def retire(self) -> None:
        """Close the channel when no confirmation is outstanding."""
        self._is_retiring = True
        if not self._waiting and self._close_task is None and not self.is_over:
            self._close_task = asyncio.ensure_future(self._close())

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
            # The queue is full, or its node is shutting down: the message may be taken in a moment.
            self.is_refused = True
            where = destination(message)
            confirmed.set_exception(
                QueueFull(f"publish to {where}: the broker did not take the message (is the queue full?)")
            )

    def _returned(self, method: bytes, arguments: bytes, properties: bytes, _: bytes) -> None:
        """Fail a mandatory message that no queue takes. Its confirmation follows, and is ignored."""
        if method != RETURN:
            return
        tag = next(iter(self._waiting), 0) if self._is_for_one else read_return_tag(properties)
        waiting = self._waiting.pop(tag, None)
        if waiting is not None and not waiting[0].done():
            confirmed, message, _route = waiting
            text = f"no queue takes a message for {destination(message)}: {read_return(arguments)}"
            confirmed.set_exception(QueueNotFound(text))


class Publisher:
    """The publishing side of one connection.

    A broker closes the channel for a message to an exchange that does not exist. Consumers must not be ended by that,
    so they have another channel; the next publish opens a new one here.
    """

    def __init__(self, connection: AmqpConnection, topology: Topology) -> None:
        self._connection = connection
        self._topology = topology
        self.delay_queues = DelayQueues(topology)
        self._fanouts: set[str] = set()
        self._current: ConfirmChannel | None = None
        self._opening = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._for_one = asyncio.Lock()
        #: bytes: the broker has refused larger ones, and closes the channel for one
        self._max_body = sys.maxsize

    async def open(self) -> ConfirmChannel:
        """Return an open channel."""
        current = self._current
        if current is None or not current.is_usable:
            async with self._opening:
                if current is self._current or self._current is None:
                    self._current = await self._open_channel()
                    if current is not None:
                        current.retire()
        assert self._current is not None
        return self._current

    async def _open_channel(self, *, is_for_one: bool = False) -> ConfirmChannel:
        channel = await self._connection.channel(confirms=True)
        frames, made = self._connection.frames, ConfirmChannel(channel, is_for_one=is_for_one)
        frames.watch(channel.number, made.receiver)

        def closed(closing: asyncio.Future[object]) -> None:
            frames.unwatch(channel.number)
            error = None if closing.cancelled() else closing.exception()
            limit = ChannelClose(error).max_body
            if limit is not None:
                self._max_body = limit
            made.fail(error)

        channel.closing.add_done_callback(closed)
        return made

    @property
    def is_writing(self) -> bool:
        """A body is written in portions: nothing may be sent between them."""
        return self._writing.locked()

    def route_now(self, message: Outgoing) -> tuple[str, str] | None:
        """Return exchange and routing key for a message that can be sent now; None: call `route`."""
        current = self._current
        if current is None or not current.is_usable or self._connection.frames.is_full or message.delay > 0:
            return None
        if message.broadcast and message.exchange not in self._fanouts:
            return None
        return message.exchange, message.routing_key

    async def route(self, message: Outgoing) -> tuple[str, str]:
        """Prepare what a message needs: delay queues, an exchange, a channel, room in the write buffer.

        :raises BrokerError: if the broker refuses.
        """
        exchange, routing_key = message.exchange, message.routing_key
        if message.delay > 0:
            exchange, routing_key = await self.delay_queues.prepare(routing_key, message.delay)
        elif message.broadcast and exchange not in self._fanouts:
            await self._topology.declare_exchange(exchange, "fanout", durable=False)
            self._fanouts.add(exchange)
        if self._connection.frames.is_full:
            await self._connection.frames.drain()
        await self.open()
        return exchange, routing_key

    def send(
        self, message: Outgoing, route: tuple[str, str], over: ConfirmChannel | None = None
    ) -> asyncio.Future[None] | None:
        """Write the message; return the future of its confirmation, or None if the sender does not wait for one.

        :param over: a channel other than the shared one.
        :raises BrokerUnavailable: if the channel has been lost.
        :raises BrokerRefused: if it cannot be written as AMQP, or the broker has refused a body of this size; nothing
            is sent then.
        """
        current = over or self._current
        if current is None or current.is_over or current.receiver.is_closed:
            raise BrokerUnavailable(f"publish to {destination(message)}: closed")
        if len(message.body) > self._max_body:
            self._check_size(message)
        tag = current.last + 1
        # `basic.return` has no tag; a returned message is recognised by its id
        ours = str(tag) if message.mandatory else None
        try:
            data = write_publish(
                current.channel.number,
                message,
                *route,
                message_id=ours,
                max_frame_bytes=self._connection.max_frame_bytes,
            )
        except UNWRITABLE as error:
            raise CannotEncode(f"publish to {destination(message)}: {error}") from error
        self._connection.frames.write(data)
        current.last = tag
        return current.wait(tag, message, route) if message.is_confirmed else None

    def _check_size(self, message: Outgoing) -> None:
        if len(message.body) > self._max_body:
            raise MessageTooLarge(
                f"publish to {destination(message)}: a body of {len(message.body)} bytes is larger than the broker's "
                f"max_message_size ({self._max_body})"
            )

    async def publish_alone(self, message: Outgoing, route: tuple[str, str]) -> None:
        """Send a message over a channel of its own, and wait for its confirmation.

        One message at a time: a refusal can only be about it.

        :raises BrokerError: as `send`, and if the broker refuses the message.
        """
        async with self._for_one:
            channel = await self._open_channel(is_for_one=True)
            try:
                confirmed = self.send(message, route, channel)
                if confirmed is not None:
                    await confirmed
            finally:
                channel.retire()

    async def send_in_portions(self, message: Outgoing, route: tuple[str, str]) -> asyncio.Future[None] | None:
        """Write the message in portions, as the socket takes them, so that a large body is not in memory twice.

        Once begun it continues even if the caller is cancelled: between the frames of a body nothing else may be
        written on a channel, not even `channel.close`. Otherwise as `send`.
        """
        writing = asyncio.ensure_future(self._write_in_portions(message, route))
        # the exception counts as retrieved, because the caller may have been cancelled
        writing.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(writing)

    async def _write_in_portions(self, message: Outgoing, route: tuple[str, str]) -> asyncio.Future[None] | None:
        async with self._writing:
            self._check_size(message)
            current = await self.open()
            tag, number = current.last + 1, current.channel.number
            max_frame_bytes = self._connection.max_frame_bytes
            ours = str(tag) if message.mandatory else None
            try:
                head = write_head_frames(number, message, *route, message_id=ours, max_frame_bytes=max_frame_bytes)
            except UNWRITABLE as error:
                raise CannotEncode(f"publish to {destination(message)}: {error}") from error
            current.last = tag
            # The channel waits for it in any case, so that it is not closed before.
            confirmed = current.wait(tag, message, route)
            confirmed.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._connection.frames.write(head)
            portions = write_body(number, message.body, max_frame_bytes, _PORTION_BYTES)

            def write_rest() -> None:
                # The library answers `channel.close` on this channel. In the middle of a body the broker takes that
                # for a frame out of place, and closes the connection; after it, it passes over all that came before.
                for portion in portions:
                    self._connection.frames.write(portion)
                self._connection.frames.write_now()

            current.receiver.on_close = write_rest
            is_left = True
            while is_left and not current.is_over:
                await self._connection.frames.drain()
                portion = next(portions, None)
                is_left = portion is not None
                if portion is not None:
                    self._connection.frames.write(portion)
            current.receiver.on_close = lambda: None
        return confirmed if message.is_confirmed else None

    def fail(self, cause: str) -> None:
        """Fail all outstanding confirmations: the session is over."""
        if self._current is not None:
            self._current.fail(BrokerUnavailable(cause))


def destination(message: Outgoing) -> str:
    """Return where the message goes, for an error text."""
    return f"{message.exchange}/{message.routing_key}" if message.exchange else message.routing_key


def failure(confirmed: asyncio.Future[None]) -> BrokerError | None:
    """Return what went wrong with a message; None: it is confirmed.

    :param confirmed: a future that is done.
    """
    error = confirmed.exception()
    if error is None or isinstance(error, BrokerError):
        return error
    raise error
