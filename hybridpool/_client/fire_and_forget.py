"""Calls that are sent without waiting for the broker: a thread queues them, a background loop sends them in batches.

Queued calls are lost if the process dies before they are sent, or the connection breaks meanwhile. A process that exits
normally sends them first.
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

log = logging.getLogger("hybridpool.client")
#: messages that may wait to be sent
MAX_WAITING_MESSAGES: Final = 5000
#: messages that are sent together
_MAX_BATCH_MESSAGES: Final = 500


class FireAndForget:
    """A queue of messages from any thread to the background loop."""

    def __init__(
        self, portal: Portal, send: Callable[[Sequence[Outgoing]], Awaitable[None]], put_timeout: float
    ) -> None:
        """:param put_timeout: seconds that `put` waits for a free slot."""
        self._portal = portal
        self._send = send
        self._put_timeout = put_timeout
        self._queue: deque[Outgoing] = deque()
        self._free_slots = threading.Semaphore(MAX_WAITING_MESSAGES)
        #: `run` is scheduled, or has not yet looked at the queue
        self._is_scheduled = False
        self._is_running = False
        self._idle = asyncio.Event()

    def put(self, message: Outgoing) -> None:
        """Queue a message.

        :raises BrokerUnavailable: if too many wait, because there is no broker.
        """
        if not self._free_slots.acquire(timeout=self._put_timeout):
            raise BrokerUnavailable(
                f"{MAX_WAITING_MESSAGES} calls wait to be sent, and there is no broker to take them"
            )
        self._queue.append(message)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._portal.start_soon(self.run)

    async def run(self) -> None:
        """On the loop: send until the queue is empty."""
        if self._is_running:
            return
        self._is_running = True
        self._idle.clear()
        try:
            while True:
                # Reset before the check: a thread that appends after it finds this reset, and schedules `run` again.
                # Reset after sending, a message could stay for ever when a thread is paused between its two steps:
                #     thread: appends B          loop: sends A and B, finds the queue empty, ends
                #     thread: sets `_is_scheduled`     loop: called again, finds the queue empty, ends
                self._is_scheduled = False
                if not self._queue:
                    break
                await self._send_some()
        finally:
            self._is_running = False
            self._idle.set()

    async def finish(self) -> None:
        """On the loop: send all queued messages, and wait until they are sent."""
        await self.run()
        await self._idle.wait()

    async def _send_some(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(_MAX_BATCH_MESSAGES, len(self._queue)))]
        try:
            await self._send(batch)
        except Exception as error:  # noqa: BLE001  # messages that are queued later must still be sent
            log.error("of %d unconfirmed calls not all were sent: %s", len(batch), error)
        finally:
            self._free_slots.release(len(batch))
