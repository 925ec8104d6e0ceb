"""The way in and out for what passes once per message, beside the client library.

The library reads frames one after the other through a stream, a queue and two tasks, and takes 45 µs for a message.
Here its connection's bytes pass first: messages and confirmations of the channels that have an ear are taken out of
them, and the rest goes on to the library, which keeps doing what it does well: logging in, opening, declaring, closing.
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
    BODY,
    CLOSE,
    DELIVER,
    END,
    HEAD,
    HEADER,
    METHOD,
    NACK,
    RETURN,
)

#: bytes; the library asks for whole frames, which are no larger as a rule
_READER_LIMIT: Final = 256 * 1024
#: seconds
_SIGN_OF_LIFE: Final = 1.0


class FrameListener(Protocol):
    """Takes a message: method, what that said, properties and body."""

    def __call__(self, method: bytes, said: bytes, properties: bytes, body: bytes, /) -> None:
        """Must not raise."""


class Body(Protocol):
    """Takes the parts of a body that is large."""

    def append(self, part: bytes, /) -> None:
        """Take the next part."""

    def whole(self) -> bytes:
        """Return what was kept of it."""
        ...


class ChannelReceiver:
    """What is taken out of one channel."""

    def __init__(
        self,
        message: FrameListener,
        confirmed: Callable[[int, bool, bool], None] | None = None,
        large: Callable[[bytes, int], "list[bytes] | Body"] | None = None,
    ) -> None:
        """Take messages.

        :param confirmed: takes a tag, whether it speaks for all before it, and whether they were taken well.
        :param large: is told what the method of a message says and the size of its body, before the body comes, if that
            is larger than `large_above`; returns what takes it.
        """
        self._message = message
        self._confirmed = confirmed
        self._large = large
        #: bytes
        self.large_above: float = math.inf
        #: the broker has closed the channel
        self.is_closed = False
        self._method = b""
        self._said = self._properties = b""
        self._missing = 0
        self._parts: list[bytes] | Body = []

    def hears(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """Take a frame's payload; False: it is not for us."""
        if kind == METHOD:
            method = data[start : start + 4]
            if method in (DELIVER, RETURN):
                self._method, self._said = method, data[start + 4 : stop]
                return True
            if method in (ACK, NACK) and self._confirmed is not None:
                tag, multiple = codec.read_confirm(data[start + 4 : stop])
                self._confirmed(tag, multiple, method == ACK)
                return True
            if method == CLOSE:
                self.is_closed = True
            return False
        if not self._method:
            return False
        if kind == HEADER:
            self._missing = int.from_bytes(data[start + 4 : start + 12])
            if self._missing > self.large_above and self._large is not None:
                self._parts = self._large(self._said, self._missing)
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
            self._message(method, self._said, self._properties, parts[0] if len(parts) == 1 else b"".join(parts))
        else:
            self._message(method, self._said, self._properties, parts.whole())


class Kept:
    """A large body that is kept, without a second copy of it."""

    def __init__(self) -> None:
        self._body = bytearray()

    def append(self, part: bytes) -> None:
        """Keep the next part."""
        self._body += part

    def whole(self) -> bytes:
        """Return the body, which nobody changes any more."""
        return cast(bytes, self._body)


class Dropped:
    """A large body that is not kept."""

    def append(self, part: bytes) -> None:
        """Drop the next part."""

    def whole(self) -> bytes:
        """Return nothing."""
        return b""


class FrameFilter(asyncio.StreamReaderProtocol):
    """Stands between the socket and the client library's stream."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stream = asyncio.StreamReader(limit=_READER_LIMIT, loop=loop)
        super().__init__(self.stream, loop=loop)
        self._loop = loop
        self._ears: dict[int, ChannelReceiver] = {}
        self._rest = b""
        #: what comes is no AMQP, and the library's to complain of
        self._is_raw = False
        self._signed_at = 0.0
        self._writer: asyncio.StreamWriter | None = None
        self._due: list[bytes] = []
        #: the socket takes nothing more for now
        self.is_full = False
        #: nothing is read for now
        self.is_held = False

    def attach(self, transport: asyncio.Transport) -> asyncio.StreamWriter:
        """Keep hold of the connection; returns the library's way out."""
        self._writer = asyncio.StreamWriter(transport, self, self.stream, self._loop)
        return self._writer

    def pause_writing(self) -> None:
        """Too much is written and not sent."""
        self.is_full = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """It is sent."""
        self.is_full = False
        super().resume_writing()

    def watch(self, channel: int, ear: ChannelReceiver) -> None:
        """Take messages and confirmations out of a channel."""
        self._ears[channel] = ear

    def leave(self, channel: int) -> None:
        """Let a channel be the library's alone."""
        self._ears.pop(channel, None)

    def hold(self) -> None:
        """Read nothing more for now; the library is told meanwhile that the connection lives."""
        if self._writer is not None and not self.is_held:
            self.is_held = True
            with suppress(RuntimeError):  # it is just closing
                self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # an asyncio.Transport
            self._live_on()

    def go_on(self) -> None:
        """Read again."""
        if self._writer is not None and self.is_held:
            self.is_held = False
            with suppress(RuntimeError):
                self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    def _live_on(self) -> None:
        if self.is_held and self._writer is not None and not self._writer.is_closing():
            self._sign()
            self._loop.call_later(_SIGN_OF_LIFE, self._live_on)

    def cut(self) -> None:
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

    async def drained(self) -> None:
        """Write what is due, and wait until the socket takes something again.

        :raises OSError: if the connection is lost.
        """
        self.write_now()
        if self._writer is not None:
            await self._writer.drain()

    # ---- in ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Divide what came into frames; what is nobody's here goes on to the library."""
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
            self._sign()
        self._rest = data[at:]

    def _divide(self, data: bytes) -> tuple[int, int]:
        """Go through the frames; returns where the next one begins, and from where on they go on to the library."""
        ears, unpack = self._ears, HEAD.unpack_from
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
            ear = ears.get(channel)
            if ear is not None and ear.hears(kind, data, at + HEAD.size, stop - 1):
                if passed < at:
                    super().data_received(data[passed:at])
                passed = stop
            elif kind == METHOD and (readable := codec.readable(data, at, stop)) is not None:
                super().data_received(data[passed:at] + readable)
                passed = stop
            at = stop
        return at, passed

    def _sign(self) -> None:
        """The library counts how long it has heard nothing: tell it, as often as it needs, that there is somebody."""
        now = self._loop.time()
        if now - self._signed_at > _SIGN_OF_LIFE:
            self._signed_at = now
            super().data_received(ALIVE)
