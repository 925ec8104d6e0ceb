"""Where log lines go: one descriptor, one writer, whole lines, one write per turn of the loop.

A line costs a copy until the loop's turn ends, then all lines of that turn cost one system call together. Without a
running loop, and for lines from CRITICAL up, it writes at once.
"""

import asyncio
import os
import select
from typing import Final

#: milliseconds to wait for a terminal or pipe that does not take more; then try again
_PATIENCE: Final = 1000


class Sink:
    """Writes text to a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: list[str] = []

    def write(self, text: str) -> None:
        """Write whole lines, at the end of this turn of the loop."""
        self._lines.append(text)
        if len(self._lines) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:
            self.flush()

    def flush(self) -> None:
        """Write now what was given so far."""
        lines, self._lines = self._lines, []
        data = memoryview("".join(lines).encode(errors="backslashreplace"))
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll(_PATIENCE)
            except OSError:
                # Nobody reads any more; a worker does not die of that.
                return
