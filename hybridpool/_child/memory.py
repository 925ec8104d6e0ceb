"""How much memory a child owns itself.

A forked child shares its parent's pages until it writes to them, so resident size and `ru_maxrss` say nothing about
*its* memory. Private pages do (`Private_*` of /proc/PID/smaps_rollup), but reading them costs about 1 ms per 50 MB
resident. Resident size (/proc/PID/statm) costs microseconds and is never smaller: while it is under the limit, the
exact figure is under the limit too and need not be read.
"""

import os
import time
from contextlib import suppress
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
#: seconds between exact readings when resident size has not moved; copying shared pages does not move it
_LOOK_AGAIN: Final = 1.0


def private_bytes(pid: int | str = "self") -> int:
    """Read exactly how many bytes a process shares with nobody, swapped ones included."""
    total = 0
    with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
        for line in rollup:
            if line.startswith((b"Private_Clean:", b"Private_Dirty:", b"Swap:")):
                total += int(line.split()[1])
    return total * 1024


def resident_bytes(pid: int) -> int:
    """Read how many bytes a process has resident, shared ones included: cheap, and never less than its own."""
    with open(f"/proc/{pid}/statm", "rb") as statm:
        return int(statm.read().split()[1]) * _PAGE


class MemoryGauge:
    """Tells a child's own memory when it may have passed a limit, at the least cost."""

    def __init__(self, limit: int) -> None:
        """:param limit: bytes; 0 means nobody wants to know."""
        self._limit = limit
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC) if limit else -1
        self._resident_then = 0
        self._owned_then = 0
        self._looked = -_LOOK_AGAIN

    def owned(self) -> int:
        """Return own bytes, or 0 when they are surely under the limit or have not been looked at again."""
        if not self._limit:
            return 0
        try:
            resident = int(os.pread(self._statm, 128, 0).split()[1]) * _PAGE
        except (OSError, ValueError, IndexError):
            # The task has closed it, and its number may be another file's by now.
            return self._reopen()
        if resident <= self._limit:
            return 0
        now = time.monotonic()
        could_be = self._owned_then + max(0, resident - self._resident_then)
        if could_be <= self._limit and now - self._looked < _LOOK_AGAIN:
            return 0
        self._resident_then, self._looked = resident, now
        self._owned_then = private_bytes()
        return self._owned_then

    def _reopen(self) -> int:
        # If no descriptor is left now, it is tried again after the next call.
        with suppress(OSError):
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        return 0
