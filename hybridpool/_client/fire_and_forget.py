"""Calls for which nobody waits: sync code hands them over and goes on; they leave in the background, many at a time.

What is handed over is lost if the process dies before it is sent, or the connection breaks with it. A process that ends
in order sends it first.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from hybridpool._client.sync_portal import Portal
from hybridpool._message import Outgoing
from hybridpool.errors import BrokerUnavailable

log = logging.getLogger("hybridpool._client")
#: messages that may wait to be sent
_MOST: Final = 5000
#: messages that are sent together
_PORTION: Final = 500


class FireAndForget:
    """A line of messages between any thread and the background loop."""

    def __init__(self, portal: Portal, send: Callable[[Sequence[Outgoing]], Awaitable[None]], patience: float) -> None:
        """:param patience: seconds that `put` waits for room."""
        self._portal = portal
        self._send = send
        self._patience = patience
        self._line: deque[Outgoing] = deque()
        self._room = threading.Semaphore(_MOST)
        #: the loop is told of what is in the line, or is sending
        self._is_due = False
        self._is_running = False
        self._at_rest = asyncio.Event()

    def put(self, message: Outgoing) -> None:
        """Hand a message over.

        :raises BrokerUnavailable: if too many wait, because there is no broker.
        """
        if not self._room.acquire(timeout=self._patience):
            raise BrokerUnavailable(f"{_MOST} calls wait to be sent, and there is no broker to take them")
        self._line.append(message)
        if not self._is_due:
            self._is_due = True
            self._portal.soon(self.run)

    async def run(self) -> None:
        """On the loop: send until the line is empty."""
        if self._is_running:
            return
        self._is_running = True
        self._at_rest.clear()
        try:
            while True:
                # Before looking: a thread that appends after the look finds this, and has `run` called again. Were it
                # set after sending, it could stay for ever when a thread is held up between its two steps:
                #     thread: appends B          loop: sends A and B, finds the line empty, ends
                #     thread: sets `_is_due`     loop: called again, finds the line empty, ends
                self._is_due = False
                if not self._line:
                    break
                await self._send_some()
        finally:
            self._is_running = False
            self._at_rest.set()

    async def finish(self) -> None:
        """On the loop: send what is there, and wait until it is sent."""
        await self.run()
        await self._at_rest.wait()

    async def _send_some(self) -> None:
        portion = [self._line.popleft() for _ in range(min(_PORTION, len(self._line)))]
        try:
            await self._send(portion)
        except Exception as error:  # noqa: BLE001  # whatever it is, what is put later must be sent
            log.error("of %d calls, for which nobody waits, not all were sent: %s", len(portion), error)
        finally:
            self._room.release(len(portion))
