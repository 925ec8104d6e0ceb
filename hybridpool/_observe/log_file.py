"""The file to which the log is appended; when it is rotated, the file of that name is opened again.

logrotate renames the file, and makes a new one or leaves that to us; with `copytruncate` it empties the file, which
costs nothing here as each write appends. The descriptor keeps its number when the file is opened anew.
"""

import os
import stat
import time
from collections.abc import Callable
from typing import Final

#: seconds until a file that could not be opened is tried again
_RETRY_S: Final = 1.0
#: not blocking: opening a FIFO without a reader would block the start for ever
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class LogFile:
    """A log file and its descriptor."""

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Open it.

        :raises OSError: if that fails.
        """
        try:
            self.path = os.path.abspath(path)  # noqa: PTH100  # of a name that may be relative, once
        except FileNotFoundError:
            # the current folder was deleted: opening a relative name fails, with the reason
            self.path = path
        self._clock = clock
        self._failed_at: float | None = None
        self.descriptor = os.open(self.path, _FLAGS, 0o644)
        self._identity = _identity(os.fstat(self.descriptor))

    def is_elsewhere(self) -> bool:
        """Tell whether the name leads to another file now, or to none, and it is time to open that."""
        if self._identity is None:
            return False
        try:
            if _identity(os.stat(self.path)) == self._identity:  # noqa: PTH116  # each turn of the loop
                return False
        except OSError:
            pass
        return self._failed_at is None or self._clock() - self._failed_at >= _RETRY_S

    def reopen(self) -> None:
        """Open what has the name now; the descriptor stays the same number.

        :raises OSError: if it cannot be opened; the old file stays open.
        """
        try:
            opened = os.open(self.path, _FLAGS, 0o644)
        except OSError:
            self._failed_at = self._clock()
            raise
        self._failed_at = None
        os.dup2(opened, self.descriptor, inheritable=False)
        os.close(opened)
        self._identity = _identity(os.fstat(self.descriptor))


def _identity(status: os.stat_result) -> tuple[int, int] | None:
    """Return what tells a regular file from others; None for a device or a FIFO, which is not followed."""
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
