"""Acknowledgements on their way out: noted in the ledger, written once per loop tick, in order."""

import asyncio
from typing import Final

from hybridpool._brokers.rabbitmq.amqp.codec import write_answers
from hybridpool._brokers.rabbitmq.amqp.frame_filter import FrameFilter
from hybridpool._policy.ledger import Answer, Ledger

#: seconds after which reading continues beside a delivery that should be alone: it may wait for a queue that is full or
#: forbidden, and other consumers must not wait for that
MAX_PAUSE_S: Final = 10.0


class AckBatcher:
    """Collects what settles the deliveries of one consuming channel: acknowledgements, requeues and rejections."""

    def __init__(self, channel: int, frames: FrameFilter) -> None:
        """:param channel: its number."""
        self._number = channel
        self._frames = frames
        self._ledger = Ledger()
        #: notes a delivery; bound here, because it is called for every message
        self.delivered = self._ledger.delivered
        self._loop = asyncio.get_running_loop()
        self._is_due = False
        #: tag of the delivery for which reading is paused; 0: none
        self._alone = 0

    def pause_until_settled(self, tag: int) -> None:
        """Read nothing more until this delivery is settled, or `MAX_PAUSE_S` have passed."""
        self._alone = tag
        self._frames.pause_reading()
        self._loop.call_later(MAX_PAUSE_S, self._end_pause, tag)

    def _end_pause(self, tag: int) -> None:
        if tag == self._alone:
            self.resume_reading()

    def resume_reading(self) -> None:
        """Read again, whether or not that delivery is settled."""
        self._alone = 0
        self._frames.resume_reading()

    def settle(self, tag: int, answer: Answer) -> None:
        """Note the answer; it leaves with all others of this loop tick."""
        if self._ledger.settle(tag, answer) and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._write)
        if tag == self._alone:
            self.resume_reading()

    async def flush(self) -> None:
        """Wait until everything settled so far is written.

        :raises OSError: if the connection is lost.
        """
        self._write()
        await self._frames.drain()

    def stop(self) -> None:
        """Write nothing more: the channel is closed."""
        self._is_due = True

    def _write(self) -> None:
        self._is_due = False
        answers = self._ledger.take()
        if answers:
            self._frames.write(write_answers(self._number, answers))
            self._frames.write_now()
