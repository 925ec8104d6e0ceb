"""Where log lines go: one descriptor, one writer, whole lines, one write per turn of the loop.

A line costs a copy until the loop's turn ends, then all lines of that turn cost one system call together. Without a
running loop, and for lines from CRITICAL up, it writes at once.

A loop never waits for a reader, but with last words: a terminal that was stopped, or a pipe whose reader sleeps, holds
up the log, and no task. The descriptor itself stays as it is, since others share it: whether it takes something is
asked before each piece.
"""

import asyncio
import logging
import os
import select
import stat
import threading
from typing import Final

log = logging.getLogger("hybridpool.worker")

#: seconds to wait for somebody who reads nothing at all, where there is no loop; then the lines are given up
_PATIENCE: Final = 1.0
#: seconds until the next attempt, while a loop runs
_AGAIN: Final = 0.05
#: bytes that are kept for a reader; what comes then is lost, and counted
_MOST: Final = 8 * 1024 * 1024
#: bytes for which there is room in a pipe that takes anything at all (pipe(7))
_PIECE: Final = select.PIPE_BUF


class Sink:
    """Writes text to a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._is_file = _is_file(descriptor)
        self._lines: list[str] = []
        self._unread = b""
        self._lost = 0
        self._waits = False
        #: a thread without a loop may write as well
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        """Write whole lines, at the end of this turn of the loop."""
        self._lines.append(text)
        if len(self._lines) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self._turn)
        except RuntimeError:
            self.flush()

    def flush(self) -> None:
        """Write now what was given so far; wait a moment for a reader."""
        # One of its own, as no two threads may ask the same one.
        room = select.poll()
        room.register(self._descriptor, select.POLLOUT)
        left = self._write()
        while left and room.poll(_PATIENCE * 1000):
            left = self._write()

    def _turn(self) -> None:
        if self._write() and not self._waits:
            self._waits = True
            asyncio.get_running_loop().call_later(_AGAIN, self._again)

    def _again(self) -> None:
        self._waits = False
        self._turn()
        if self._lost and not self._unread:
            lost, self._lost = self._lost, 0
            log.warning("%d lines of this log are missing here: nobody read it", lost)

    def _write(self) -> int:
        """Write what is taken at once; returns how many bytes are left."""
        with self._lock:
            lines, self._lines = self._lines, []
            data = "".join(lines).encode(errors="backslashreplace")
            if self._unread and len(self._unread) + len(data) > _MOST:
                self._lost += len(lines)
            else:
                self._unread += data
            rest = memoryview(self._unread)
            try:
                while rest and (self._is_file or self._poll.poll(0)):
                    rest = rest[os.write(self._descriptor, rest if self._is_file else rest[:_PIECE]) :]
            except BlockingIOError:
                # Somebody else's bytes were faster.
                pass
            except OSError:
                # Nobody reads any more; a worker does not die of that.
                rest = rest[:0]
            self._unread = bytes(rest)
            return len(rest)


def _is_file(descriptor: int) -> bool:
    """Tell whether it takes everything at once; one that is closed does, in its way."""
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return True
