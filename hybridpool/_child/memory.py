"""How much memory a child owns itself.

A forked child shares its parent's pages until it writes to them, so resident size and `ru_maxrss` say nothing about
*its* memory. Private pages do (`Private_*` of /proc/PID/smaps_rollup), but reading them costs about 1 ms per 50 MB
resident. Resident size (/proc/PID/statm) costs microseconds and is never smaller: while it is under the limit, the
exact figure is under the limit too and need not be read.
"""

import ctypes
import os
import time
from contextlib import suppress
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
#: seconds between exact readings when resident size has not moved; copying shared pages does not move it
_EXACT_READING_INTERVAL_S: Final = 1.0


def private_bytes(pid: int | str = "self") -> int:
    """Read exactly how many bytes a process does not share with another, swapped ones included."""
    total = 0
    with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
        for line in rollup:
            if line.startswith((b"Private_Clean:", b"Private_Dirty:", b"Swap:")):
                total += int(line.split()[1])
    return total * 1024


def resident_bytes(pid: int) -> int:
    """Read how many bytes a process has resident, shared ones included: cheap, and never less than its own."""
    with open(f"/proc/{pid}/statm", "rb") as statm:
        return int(statm.read().split()[1]) * _PAGE_BYTES


def give_back() -> None:
    """Give memory that is free to the system; where the C library cannot (musl), nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class MemoryGauge:
    """Reads a child's own memory when it may have passed a limit, at the least cost."""

    def __init__(self, limit: int) -> None:
        """:param limit: bytes; 0: there is no limit, and nothing is read."""
        self._limit = limit
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC) if limit else -1
        self._last_resident = 0
        self._last_owned = 0
        self._read_at = -_EXACT_READING_INTERVAL_S

    def owned(self) -> int:
        """Return own bytes; 0: they are under the limit, or were not read again."""
        if not self._limit:
            return 0
        try:
            resident = int(os.pread(self._statm, 128, 0).split()[1]) * _PAGE_BYTES
        except (OSError, ValueError, IndexError):
            # The task has closed it, and its number may be another file's by now.
            return self._reopen()
        if resident <= self._limit:
            return 0
        now = time.monotonic()
        could_be = self._last_owned + max(0, resident - self._last_resident)
        if could_be <= self._limit and now - self._read_at < _EXACT_READING_INTERVAL_S:
            return 0
        self._last_resident, self._read_at = resident, now
        self._last_owned = private_bytes()
        return self._last_owned

    def _reopen(self) -> int:
        # If there is no free descriptor, it is tried again after the next call.
        with suppress(OSError):
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        return 0
