"""What tasks of the benchmark of workers do, the same in every system; a light module, which each system's app imports.

A task says that it ran by adding one to a slot of a shared file, which costs it a fraction of a microsecond and no
system call; whoever measures reads the sum. Every thread of every process has a slot of its own.
"""

import fcntl
import mmap
import os
import struct
import time
from pathlib import Path
from threading import get_ident

#: in the environment: the file of counts; the file of marks; and whether the app is a fat one
COUNTS, MARKS, FAT = "BENCH_COUNTS", "BENCH_MARKS", "BENCH_FAT"
#: in the environment: where the broker is, what the queue is called, and how much is prefetched, if not the default
BROKER, QUEUE, PREFETCH = "BENCH_BROKER", "BENCH_QUEUE", "BENCH_PREFETCH"
#: one for each process that ever worked; the first says how many there are
SLOTS = 8192
#: the moments when a message was sent and when its task started
MARK = struct.Struct("dd")
TASKS = ("noop", "mark", "spin", "swallow", "nap", "linger", "litter")

_slots: dict[int, int] = {}
_counts: list[memoryview] = []
_marks: list[int] = []


def begin() -> None:
    """Become as fat as ordered: by apps, while they are imported."""
    if os.environ.get(FAT):
        from tests.benchmarks import pool_fat

        assert pool_fat.BALLAST


def noop() -> None:
    """Do nothing: what is left is the system's own cost."""
    count()


def mark(sent: float) -> None:
    """Write down when it was sent, and that it is now."""
    write_mark(sent)
    count()


def write_mark(sent: float) -> None:
    """Write down when it was sent, and that it is now; it has not run yet."""
    now = time.time()
    if not _marks:
        _marks.append(os.open(os.environ[MARKS], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
    os.write(_marks[0], MARK.pack(sent, now))


def spin(seconds: float) -> None:
    """Use so much CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        continue
    count()


def swallow(body: str) -> None:
    """Take something large."""
    assert body
    count()


def nap(seconds: float) -> None:
    """Hold one child for a while."""
    time.sleep(seconds)
    count()


def linger(sent: float, seconds: float) -> None:
    """Write down that it has started, and hold one thread for a while."""
    write_mark(sent)
    time.sleep(seconds)
    count()


def litter() -> None:
    """Make and drop objects, so that garbage is collected now and then."""
    assert [[number] for number in range(2000)]
    count()


def count() -> None:
    """Say that one more task has run."""
    try:
        _counts[0][_slots[get_ident()]] += 1
    except (KeyError, IndexError):
        _counts[:] = [counts()]
        _slots[get_ident()] = at = _claim(_counts[0])
        _counts[0][at] += 1


def counts() -> memoryview:
    """Open the file of counts."""
    fd = os.open(os.environ[COUNTS], os.O_RDWR | os.O_CLOEXEC)
    try:
        return memoryview(mmap.mmap(fd, SLOTS * 8)).cast("Q")
    finally:
        os.close(fd)


def _claim(view: memoryview) -> int:
    with Path(os.environ[COUNTS]).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        view[0] += 1
        return int(view[0])


# a forked child's main thread has its parent's number
os.register_at_fork(after_in_child=_slots.clear)
