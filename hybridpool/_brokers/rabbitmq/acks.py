"""Acknowledgements on their way out: noted in the ledger, written once per loop tick, in order."""

import asyncio
from typing import Final

from hybridpool._brokers.rabbitmq.amqp.codec import write_answers
from hybridpool._brokers.rabbitmq.amqp.frame_filter import FrameFilter
from hybridpool._policy.ledger import Answer, Ledger

#: seconds after which more is read beside a delivery that should be alone: it may wait for a queue that is full or
#: forbidden, and nobody else must wait for that
ALONE_S: Final = 10.0


class AckBatcher:
    """The settling side of one consuming channel."""

    def __init__(self, channel: int, tap: FrameFilter) -> None:
        """:param channel: its number."""
        self._number = channel
        self._tap = tap
        self._ledger = Ledger()
        #: notes a delivery; bound here, because it is called for every message
        self.delivered = self._ledger.delivered
        self._loop = asyncio.get_running_loop()
        self._is_due = False
        #: the delivery while which nothing more is read; 0: none
        self._alone = 0

    def alone(self, tag: int) -> None:
        """Read nothing more until this delivery is settled, or cannot be settled soon."""
        self._alone = tag
        self._tap.hold()
        self._loop.call_later(ALONE_S, self._long_enough, tag)

    def _long_enough(self, tag: int) -> None:
        if tag == self._alone:
            self.together()

    def together(self) -> None:
        """Read again, whatever becomes of that delivery."""
        self._alone = 0
        self._tap.go_on()

    def settle(self, tag: int, answer: Answer) -> None:
        """Note the answer; it leaves with all others of this loop tick."""
        if self._ledger.settle(tag, answer) and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._write)
        if tag == self._alone:
            self.together()

    async def flush(self) -> None:
        """Wait until everything settled so far is written.

        :raises OSError: if the connection is lost.
        """
        self._write()
        await self._tap.drained()

    def stop(self) -> None:
        """The channel is gone: nothing can be written any more."""
        self._is_due = True

    def _write(self) -> None:
        self._is_due = False
        answers = self._ledger.take()
        if answers:
            self._tap.write(write_answers(self._number, answers))
            self._tap.write_now()
