"""Writes log lines to one descriptor: whole lines, one write per turn of the loop.

A line costs a copy until the loop's turn ends, then all lines of that turn cost one system call together (two, if a log
file has to be followed). Without a running loop, and for lines from CRITICAL up, it writes at once.

The loop does not wait for a reader, except in `flush`: a terminal that was stopped, or a pipe whose reader sleeps,
delays the log, and no task. The descriptor is not made non-blocking, because other processes share it: before each
piece, `poll` tells whether it takes one.

Lines that cannot be written, on a full disk for instance, are dropped and counted, except for the end of a line whose
beginning was written. When writing is possible again, a line tells how many are missing.
"""

import asyncio
import logging
import os
import select
import stat
import threading
from collections.abc import Callable
from typing import Final

from hybridpool._observe.log_file import LogFile

log = logging.getLogger("hybridpool.worker")

#: seconds that `flush` waits for a reader that reads nothing; then the lines are dropped
FLUSH_TIMEOUT_S: Final = 1.0
#: seconds until the next attempt while a reader reads nothing, and a loop runs
READER_RETRY_S: Final = 0.05
#: seconds until the next attempt after one that failed
FAILED_RETRY_S: Final = 1.0
#: bytes that are kept for a reader; further lines are dropped and counted
MAX_UNREAD_BYTES: Final = 8 * 1024 * 1024
#: bytes that a pipe takes at least if `poll` finds it writable (pipe(7))
PIECE_BYTES: Final = select.PIPE_BUF


class Sink:
    """Writes text to a descriptor."""

    def __init__(self, descriptor: int, file: LogFile | None = None) -> None:
        """:param file: the log file of the descriptor, if it has one; when it is renamed, a new one is opened."""
        self._descriptor = descriptor
        self._file = file
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._is_file = _is_file(descriptor)
        self._lines: list[str] = []
        self._unread = b""
        #: bytes at the beginning of `_unread` that are the end of a line which was written in part
        self._torn = 0
        self._lost = 0
        #: why lines were lost
        self._why = "nobody read it"
        #: the last attempt failed
        self._failed = False
        self._waits = False
        #: a thread without a loop may write as well
        self._lock = threading.Lock()
        #: makes a whole line of a notice of the sink's own
        self.notice: Callable[[str], str] = "{}\n".format

    @property
    def file(self) -> LogFile | None:
        """The log file, if there is one."""
        return self._file

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
        """Write the lines given so far now; wait a moment for a reader."""
        if self._file is not None:
            self._follow(self._file)
        # a `poll` object of its own, because two threads must not use one at the same time
        writable = select.poll()
        writable.register(self._descriptor, select.POLLOUT)
        left = self._write()
        while left and writable.poll(FLUSH_TIMEOUT_S * 1000):
            left = self._write()

    def reopen(self) -> str:
        """Open the log file again by its name, which is returned; lines given so far go to the old one.

        :raises OSError: if it cannot be opened; the old one stays.
        """
        if self._file is None:
            raise FileNotFoundError("the log goes to stderr, and there is no file (--logfile)")
        self._write()
        self._file.reopen()
        self._begin_file()
        return self._file.path

    def _follow(self, file: LogFile) -> None:
        if file.is_elsewhere():
            try:
                file.reopen()
            except OSError as error:
                log.warning(
                    "the log file %s cannot be opened anew (%s); the log goes on in the old one, renamed or deleted",
                    file.path,
                    error.strerror,
                )
            else:
                self._begin_file()

    def _begin_file(self) -> None:
        with self._lock:
            self._is_file = _is_file(self._descriptor)
            if self._unread:
                # the end of a line whose beginning is in the old file
                self._unread, self._torn = b"", 0
                self._lost += 1

    def _turn(self) -> None:
        if self._file is not None:
            self._follow(self._file)
        left = self._write()
        if (left or self._failed) and not self._waits:
            self._waits = True
            asyncio.get_running_loop().call_later(READER_RETRY_S if left else FAILED_RETRY_S, self._again)

    def _again(self) -> None:
        self._waits = False
        self._turn()
        if self._lost and not self._unread and not self._failed:
            self._turn()

    def _write(self) -> int:
        """Write what the descriptor takes at once; returns how many bytes are left for a reader."""
        with self._lock:
            lines, self._lines = self._lines, []
            data = "".join(lines).encode(errors="backslashreplace")
            lost, notice, torn = self._lost, b"", self._torn
            if self._unread and len(self._unread) + len(data) > MAX_UNREAD_BYTES:
                self._lost += data.count(b"\n")
            else:
                if lost and not self._unread:
                    notice = self.notice(f"{lost} lines of this log are missing here: {self._why}").encode()
                    self._lost, self._why = 0, "nobody read it"
                self._unread += notice + data
            whole = self._unread
            rest = memoryview(whole)
            self._failed = False
            try:
                while rest and (self._is_file or self._poll.poll(0)):
                    rest = rest[os.write(self._descriptor, rest if self._is_file else rest[:PIECE_BYTES]) :]
            except BlockingIOError:
                # another process has written to it since `poll`
                pass
            except OSError as error:
                # the reader is gone, or the disk is full; the worker goes on
                self._failed, self._why = True, f"it could not be written ({error.strerror})"
                written = len(whole) - len(rest)
                kept = whole[written:torn] if written < torn else _rest_of_line(whole, written)
                if notice and not written:
                    # The notice is lost too, and its number goes into the next one.
                    self._lost += lost - notice.count(b"\n")
                self._lost += bytes(rest[len(kept) :]).count(b"\n")
                self._unread, self._torn = kept, len(kept)
                return 0
            self._unread, self._torn = bytes(rest), 0
            return len(rest)


def _rest_of_line(whole: bytes, written: int) -> bytes:
    """Return the end of the line that was written in part; nothing if the last one is whole."""
    if not written or whole[written - 1] == 0x0A:
        return b""
    end = whole.find(b"\n", written)
    return whole[written : end + 1] if end >= 0 else whole[written:]


def _is_file(descriptor: int) -> bool:
    """Tell whether the descriptor takes everything at once; a closed one counts as such: the write fails at once."""
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return True
