"""Takes messages and confirmations out of a connection's bytes before the client library reads them.

The library reads frames one after the other through a stream, a queue and two tasks, and takes 45 µs for a message.
Here its connection's bytes pass first: messages and confirmations of the channels that have a receiver are taken out,
and the rest goes on to the library, which does what is not done per message: logging in, opening, declaring, closing.
What is written per message goes to the socket directly, between the library's own frames.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, cast

from hybridpool._brokers.rabbitmq.amqp import codec
from hybridpool._brokers.rabbitmq.amqp.codec import (
    ACK,
    ALIVE,
    AROUND,
    BLOCKED,
    BODY,
    CLOSE,
    DELIVER,
    END,
    HEAD,
    HEADER,
    METHOD,
    NACK,
    RETURN,
    UNBLOCKED,
)

#: bytes; the library asks for whole frames, which are no larger as a rule
_READER_LIMIT_BYTES: Final = 256 * 1024
#: seconds between two heartbeats that the library is given for frames that it does not see
_HEARTBEAT_INTERVAL_S: Final = 1.0


class FrameListener(Protocol):
    """Takes a message: its method, the arguments of that, properties and body."""

    def __call__(self, method: bytes, arguments: bytes, properties: bytes, body: bytes, /) -> None:
        """Take a message; must not raise."""


class BodySink(Protocol):
    """Takes the parts of a body that is large."""

    def append(self, part: bytes, /) -> None:
        """Take the next part."""

    def whole(self) -> bytes:
        """Return what was kept of it."""
        ...


class FrameReceiver(Protocol):
    """Takes frames of one channel."""

    def take(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """Take a frame's payload; return False if it is the library's."""
        ...


class BlockedReceiver:
    """Takes `connection.blocked` and `connection.unblocked`, of which the library has no public event."""

    def __init__(self, listener: Callable[[str | None], None]) -> None:
        """:param listener: is called with the broker's reason, and with None when the broker reads again."""
        self._listener = listener

    def take(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """Take a frame's payload; return False if it is the library's."""
        method = data[start : start + 4] if kind == METHOD else b""
        if method == BLOCKED:
            self._listener(codec.read_blocked(data[start + 4 : stop]) or "no reason given")
        elif method == UNBLOCKED:
            self._listener(None)
        else:
            return False
        return True


class ChannelReceiver:
    """Takes messages and confirmations of one channel."""

    def __init__(
        self,
        message: FrameListener,
        confirmed: Callable[[int, bool, bool], None] | None = None,
        large: Callable[[bytes, int], "list[bytes] | BodySink"] | None = None,
    ) -> None:
        """Name the callbacks.

        :param message: is called with each message, when it is complete.
        :param confirmed: is called with a tag, whether it stands for all before it too, and whether the broker took
            the messages.
        :param large: is called with the arguments of a message's method and the size of its body, before the body
            comes, if that is larger than `large_above`; returns what the parts are appended to.
        """
        self._message = message
        self._confirmed = confirmed
        self._large = large
        #: bytes
        self.large_above: float = math.inf
        #: whether the broker has closed the channel; and what is called then, before the library hears of it
        self.is_closed = False
        self.on_close: Callable[[], None] = lambda: None
        self._method = b""
        self._arguments = self._properties = b""
        self._missing = 0
        self._parts: list[bytes] | BodySink = []

    def take(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """Take a frame's payload; return False if it is the library's."""
        if kind == METHOD:
            method = data[start : start + 4]
            if method in (DELIVER, RETURN):
                self._method, self._arguments = method, data[start + 4 : stop]
                return True
            if method in (ACK, NACK) and self._confirmed is not None:
                tag, multiple = codec.read_confirm(data[start + 4 : stop])
                self._confirmed(tag, multiple, method == ACK)
                return True
            if method == CLOSE:
                self.is_closed = True
                self.on_close()
            return False
        if not self._method:
            return False
        if kind == HEADER:
            self._missing = int.from_bytes(data[start + 4 : start + 12])
            if self._missing > self.large_above and self._large is not None:
                self._parts = self._large(self._arguments, self._missing)
            self._properties = data[start + 12 : stop]
        elif kind == BODY:
            self._parts.append(data[start:stop])
            self._missing -= stop - start
        if self._missing <= 0:
            self._end()
        return True

    def _end(self) -> None:
        method, self._method = self._method, b""
        parts, self._parts = self._parts, []
        if isinstance(parts, list):
            self._message(method, self._arguments, self._properties, parts[0] if len(parts) == 1 else b"".join(parts))
        else:
            self._message(method, self._arguments, self._properties, parts.whole())


class KeptBody:
    """A large body that is kept, without a second copy of it."""

    def __init__(self) -> None:
        self._body = bytearray()

    def append(self, part: bytes) -> None:
        """Keep the next part."""
        self._body += part

    def whole(self) -> bytes:
        """Return the body; it does not change any more."""
        return cast(bytes, self._body)


class DroppedBody:
    """A large body that is not kept."""

    def append(self, part: bytes) -> None:
        """Drop the next part."""

    def whole(self) -> bytes:
        """Return nothing."""
        return b""


class FrameFilter(asyncio.StreamReaderProtocol):
    """The protocol between the socket and the client library's stream.

    Two invariants keep the library unaware of what is taken out:

    - The library sees whole frames only, in their order, so its parser never meets the middle of one.
    - It counts the seconds since the last frame and gives the connection up after three heartbeats. A busy consumer's
      connection may bring it nothing for that long, as everything is taken out here, or reading is paused. So it is
      given a heartbeat frame for what was taken out, at most one a second.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stream = asyncio.StreamReader(limit=_READER_LIMIT_BYTES, loop=loop)
        super().__init__(self.stream, loop=loop)
        self._loop = loop
        self._receivers: dict[int, FrameReceiver] = {}
        self._rest = b""
        #: whether what comes is not AMQP: all of it goes on to the library, which reports it
        self._is_raw = False
        self._heartbeat_at = 0.0
        self._writer: asyncio.StreamWriter | None = None
        self._due: list[bytes] = []
        #: whether the socket takes nothing more for now
        self.is_full = False
        #: whether nothing is read for now
        self.is_reading_paused = False

    def attach(self, transport: asyncio.Transport) -> asyncio.StreamWriter:
        """Take over the transport; return the writer for the library."""
        self._writer = asyncio.StreamWriter(transport, self, self.stream, self._loop)
        return self._writer

    def pause_writing(self) -> None:
        """Note that too much is written and not sent."""
        self.is_full = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that it is sent."""
        self.is_full = False
        super().resume_writing()

    def watch(self, channel: int, receiver: FrameReceiver) -> None:
        """Let a receiver take frames out of a channel; 0 is the connection itself."""
        self._receivers[channel] = receiver

    def unwatch(self, channel: int) -> None:
        """Let all frames of a channel go on to the library again."""
        self._receivers.pop(channel, None)

    def pause_reading(self) -> None:
        """Read nothing more for now; the library is given heartbeats meanwhile."""
        if self._writer is not None and not self.is_reading_paused:
            self.is_reading_paused = True
            with suppress(RuntimeError):  # the transport is closing
                self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # an asyncio.Transport
            self._feed_while_paused()

    def resume_reading(self) -> None:
        """Read again."""
        if self._writer is not None and self.is_reading_paused:
            self.is_reading_paused = False
            with suppress(RuntimeError):
                self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    def _feed_while_paused(self) -> None:
        if self.is_reading_paused and self._writer is not None and not self._writer.is_closing():
            self._feed_heartbeat()
            self._loop.call_later(_HEARTBEAT_INTERVAL_S, self._feed_while_paused)

    def abort(self) -> None:
        """Close the socket at once; what is not written yet is dropped."""
        if self._writer is not None:
            self._writer.transport.abort()

    # ---- out -----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write whole frames, with all others of this loop tick."""
        if not self._due:
            self._loop.call_soon(self.write_now)
        self._due.append(data)

    def write_now(self) -> None:
        """Hand to the socket what was written so far."""
        due, self._due = self._due, []
        if due and self._writer is not None and not self._writer.is_closing():
            self._writer.write(due[0] if len(due) == 1 else b"".join(due))

    async def drain(self) -> None:
        """Write what is due, and wait until the socket takes something again.

        :raises OSError: if the connection is lost.
        """
        self.write_now()
        if self._writer is not None:
            await self._writer.drain()

    # ---- in ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Divide what came into frames; what no receiver takes goes on to the library."""
        if self._rest:
            data = self._rest + data
        if self._is_raw or data.startswith(b"AMQP"):
            self._rest = b""
            super().data_received(data)
            return
        at, passed = self._divide(data)
        if passed < at:
            super().data_received(data[passed:at])
        elif passed:
            self._feed_heartbeat()
        self._rest = data[at:]

    def _divide(self, data: bytes) -> tuple[int, int]:
        """Go through the frames; returns where the next one begins, and from where on they go on to the library."""
        receivers, unpack = self._receivers, HEAD.unpack_from
        at = passed = 0
        end = len(data)
        while end - at >= AROUND:
            kind, channel, size = unpack(data, at)
            stop = at + size + AROUND
            if stop > end:
                break
            if data[stop - 1] != END:
                self._is_raw = True
                return end, passed
            receiver = receivers.get(channel)
            if receiver is not None and receiver.take(kind, data, at + HEAD.size, stop - 1):
                if passed < at:
                    super().data_received(data[passed:at])
                passed = stop
            elif kind == METHOD and (readable := codec.readable(data, at, stop)) is not None:
                super().data_received(data[passed:at] + readable)
                passed = stop
            at = stop
        return at, passed

    def _feed_heartbeat(self) -> None:
        """Give the library a heartbeat in place of frames that it does not see, at most one a second."""
        now = self._loop.time()
        if now - self._heartbeat_at > _HEARTBEAT_INTERVAL_S:
            self._heartbeat_at = now
            super().data_received(ALIVE)
