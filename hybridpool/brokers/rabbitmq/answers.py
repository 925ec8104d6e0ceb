"""Acknowledgements on their way out: noted in the ledger, written once per loop tick, in order."""

import asyncio
import struct

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel

from hybridpool.policy.ledger import Answer, Ledger, WireAnswer

#: a method frame with a delivery tag and flags: type 1, channel, size 13, class 60 (basic), method, tag, bits, end
_FRAME = struct.Struct(">BHIHHQBB")
_ACK, _NACK = 80, 120
_MULTIPLE, _REQUEUE = 1, 2


def encode(channel: int, answers: list[WireAnswer]) -> bytes:
    """Return the AMQP frames for these answers.

    By hand, because children finish in any order and then each ack is a frame of its own: the client library takes
    ten times as long for one.
    """
    pack = _FRAME.pack
    return b"".join(
        pack(1, channel, 13, 60, _ACK, tag, multiple, 0xCE)
        if kind is Answer.ACK
        else pack(1, channel, 13, 60, _NACK, tag, multiple * _MULTIPLE | _REQUEUE, 0xCE)
        for kind, tag, multiple in answers
    )


class Answers:
    """The settling side of one consuming channel."""

    def __init__(self, channel: Channel) -> None:
        self._number = channel.number
        self._queue: asyncio.Queue[ChannelFrame] = channel.connection.write_queue
        self._ledger = Ledger()
        #: notes a delivery; bound here, because it is called for every message
        self.delivered = self._ledger.delivered
        self._loop = asyncio.get_running_loop()
        self._is_due = False
        #: waits for room in the write queue; answers go out through it alone as long as it exists
        self._pump: asyncio.Task[None] | None = None

    def settle(self, tag: int, answer: Answer) -> None:
        """Note the answer; it leaves with all others of this loop tick."""
        if self._ledger.settle(tag, answer) and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._write)

    async def flush(self) -> None:
        """Wait until everything settled so far is written. On a lost connection: for ever, so call it guarded."""
        self._write()
        while self._pump is not None:
            await asyncio.wait([self._pump])
        written = self._loop.create_future()
        await self._queue.put(ChannelFrame(payload=b"", should_close=False, drain_future=written))
        await written

    def stop(self) -> None:
        """The channel is gone: nothing can be written any more."""
        self._is_due = True
        if self._pump is not None:
            self._pump.cancel()

    def _write(self) -> None:
        self._is_due = False
        if self._pump is not None:
            return
        frame = self._take()
        if frame is None:
            return
        try:
            self._queue.put_nowait(frame)
        except asyncio.QueueFull:
            self._pump = self._loop.create_task(self._push(frame))

    async def _push(self, frame: ChannelFrame | None) -> None:
        try:
            while frame is not None:
                await self._queue.put(frame)
                frame = self._take()
        finally:
            self._pump = None

    def _take(self) -> ChannelFrame | None:
        answers = self._ledger.take()
        return ChannelFrame(payload=encode(self._number, answers), should_close=False) if answers else None
