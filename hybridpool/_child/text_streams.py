"""sys.stdout and sys.stderr of a task: real text streams whose lines become records of the log.

`print` is several writes, and several threads print at once. So each thread has a buffer of its own, and a record is
what one thread wrote up to a write that ends with a newline: a text of several lines is one record.

A carriage return begins a line anew, as progress bars do. What it replaces is dropped, except for one state a second.
What is flushed in the middle of a line is said if the line was begun a second ago or earlier. Memory and time are
linear in what is written, and a record has at most `MAX_RECORD_CHARS`.

A process that a task forks has copies of these streams. A copy writes to the real descriptor, since the channel to the
parent belongs to the child alone; what the child had begun is not said a second time there.
"""

import codecs
import io
import os
import sys
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any, Final

#: what is longer is said in several records
MAX_RECORD_CHARS: Final = 1024 * 1024
#: seconds between two states of a line that is not ended
PROGRESS_INTERVAL_S: Final = 1.0

Buffer = Any  # collections.abc.Buffer, from Python 3.12 on


class _Begun:
    """What one thread has written and not ended."""

    __slots__ = ("current", "decoder", "ended", "is_flushed", "is_replaced", "is_said", "returned", "since", "size")

    def __init__(self, since: float) -> None:
        #: whole lines that wait for the end of their record
        self.ended: list[str] = []
        #: parts of the line that is not ended
        self.current: list[str] = []
        #: characters in both
        self.size = 0
        #: seconds of a monotonic clock: when this was begun, or said last
        self.since = since
        #: a carriage return stands at the end: the next text replaces the current line
        self.returned = False
        #: the current line holds a state that replaced another
        self.is_replaced = False
        #: the current line has been said as it is
        self.is_said = False
        #: nothing was written since the last flush
        self.is_flushed = False
        #: holds the first bytes of a character whose others have not come
        self.decoder: codecs.IncrementalDecoder | None = None

    def add(self, text: str) -> None:
        """Go on with the current line; a newline in the text ends it."""
        *lines, rest = text.split("\n")
        for line in lines:
            self._extend(line)
            self._end_line()
        self._extend(rest)
        self.is_flushed = False

    def _extend(self, text: str) -> None:
        body = text.rstrip("\r") if "\r" in text else text
        if body:
            if self.returned or "\r" in body:
                self.size -= sum(map(len, self.current))
                self.current = []
                self.is_replaced = True
                body = body.rpartition("\r")[2]
            self.current.append(body)
            self.size += len(body)
            self.returned = self.is_said = False
        if len(body) < len(text) and text.endswith("\r"):
            self.returned = True

    def _end_line(self) -> None:
        line = "".join(self.current)
        # A bar that is gone leaves blanks; what stands there last may have been said.
        if not self.is_said and (line.strip() or not self.is_replaced):
            self.ended.append(line)
            self.size += 1
        self.current = []
        self.returned = self.is_replaced = self.is_said = False

    def take_ended(self) -> str:
        """Return the whole lines that wait and forget them."""
        ended, self.ended = self.ended, []
        self.size = sum(map(len, self.current))
        return "\n".join(ended)

    def take(self) -> str | None:
        """Return all that has not been said and forget it; None if there is nothing."""
        ended, self.ended = self.ended, []
        if self.current and not self.is_said and ("".join(self.current).strip() or not self.is_replaced):
            ended.append("".join(self.current))
        if not self.is_replaced:
            self.current = []
        self.is_said = True
        self.size = sum(map(len, self.current))
        return "\n".join(ended) if ended else None


class Lines:
    """Puts what threads write together to records."""

    def __init__(
        self, descriptor: int, encoding: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """:param say: takes a record, without the newline at its end."""
        self.descriptor = descriptor
        self.encoding = encoding
        self._say = say
        self._clock = clock
        self._pid = os.getpid()
        self._is_copy = False
        #: by thread; empty while nothing is begun
        self.begun: dict[int, _Begun] = {}

    def write(self, text: str) -> None:
        """Take what this thread writes."""
        self._look_at_process()
        thread = get_ident()
        begun = self.begun.get(thread)
        if self._is_copy:
            self._write_copy(thread, begun, text)
            return
        ends = text.endswith("\n")
        if begun is None:
            if not text:
                return
            if ends and "\r" not in text:
                self._say_in_parts(text[:-1])
                return
            begun = self.begun[thread] = _Begun(self._clock())
        elif begun.current and not begun.is_said and (begun.returned or "\r" in text) and self._is_due(begun):
            # This state of a progress bar would be replaced unseen.
            self._say_begun(begun)
        begun.add(text)
        if ends:
            # The decoder is needed no more: its newline was a whole character.
            self.begun.pop(thread, None)
            self._say_begun(begun)
        elif begun.size > MAX_RECORD_CHARS:
            self._say_begun(begun)
            begun.current, begun.size = [], 0

    def write_bytes(self, data: bytes) -> None:
        """Take bytes that this thread writes; what is no text in the stream's encoding is written out as escapes."""
        self._look_at_process()
        thread = get_ident()
        begun = self.begun.get(thread)
        decoder = begun.decoder if begun is not None else None
        if decoder is None:
            decoder = codecs.getincrementaldecoder(self.encoding)("backslashreplace")
        self.write(decoder.decode(data))
        is_torn = bool(decoder.getstate()[0])
        begun = self.begun.get(thread)
        if begun is not None:
            begun.decoder = decoder if is_torn else None
        elif is_torn:
            begun = self.begun[thread] = _Begun(self._clock())
            begun.decoder = decoder

    def flush(self) -> None:
        """Say the whole lines of this thread, and the one it has begun unless that was just now."""
        self._look_at_process()
        begun = self.begun.get(get_ident())
        if begun is None:
            return
        if self._is_copy:
            self.begun.pop(get_ident(), None)
            self._write_whole("".join(begun.current))
            return
        begun.is_flushed = True
        if self._is_due(begun):
            self._say_begun(begun)
        elif begun.ended:
            self._say_in_parts(begun.take_ended())

    def finish(self) -> None:
        """Say what was begun in the task that ends, by this thread and by those that are gone.

        A thread that goes on may be between two writes of one `print`: what it has begun waits for its end, unless it
        was flushed.
        """
        own, living = get_ident(), sys._current_frames()  # pyright: ignore[reportPrivateUsage]  # documented
        for thread, begun in list(self.begun.items()):
            if thread == own or thread not in living:
                self.begun.pop(thread, None)
                if begun.decoder is not None:
                    begun.add(begun.decoder.decode(b"", final=True))
                self._say_begun(begun)
            elif begun.is_flushed:
                self._say_begun(begun)

    def _is_due(self, begun: _Begun) -> bool:
        return self._clock() - begun.since >= PROGRESS_INTERVAL_S

    def _say_begun(self, begun: _Begun) -> None:
        begun.since = self._clock()
        text = begun.take()
        if text is not None:
            self._say_in_parts(text)

    def _say_in_parts(self, text: str) -> None:
        start = 0
        while len(text) - start > MAX_RECORD_CHARS:
            end = text.rfind("\n", start + 1, start + MAX_RECORD_CHARS + 1)
            if end < 0:
                end = start + MAX_RECORD_CHARS
            self._say(text[start:end])
            start = end + (text[end] == "\n")
        self._say(text[start:] if start else text)

    # ---- in a process that the task has forked -----------------------------------------------------------

    def _look_at_process(self) -> None:
        pid = os.getpid()
        if pid != self._pid:
            self._pid, self._is_copy = pid, True
            self.begun.clear()

    def _write_copy(self, thread: int, begun: _Begun | None, text: str) -> None:
        if begun is None:
            begun = self.begun[thread] = _Begun(0.0)
        begun.current.append(text)
        begun.size += len(text)
        if "\n" in text or begun.size > MAX_RECORD_CHARS:
            self.begun.pop(thread, None)
            self._write_whole("".join(begun.current))

    def _write_whole(self, text: str) -> None:
        write_whole(self.descriptor, text.encode(self.encoding, errors="backslashreplace"))


def write_whole(descriptor: int, data: bytes) -> None:
    """Write to a descriptor that others write to as well; whoever reads there may be gone."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        return


class _Bytes(io.BufferedIOBase):
    """The stream's `buffer`."""

    mode = "wb"

    def __init__(self, lines: Lines, name: str) -> None:
        self._lines = lines
        self.name = name

    @property
    def raw(self) -> io.BufferedIOBase:
        """What is below a buffer; this one holds nothing back."""
        return self

    def write(self, data: Buffer) -> int:
        if isinstance(data, str):
            raise TypeError("a bytes-like object is required, not 'str'")
        taken = bytes(memoryview(data))
        self._lines.write_bytes(taken)
        return len(taken)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._lines.descriptor

    def flush(self) -> None:
        self._lines.flush()

    def close(self) -> None:
        """Say what was begun. It stays open: the next task prints there."""
        self._lines.flush()

    def detach(self) -> io.BufferedIOBase:  # type: ignore[override]  # as `raw`
        return self


class PrintedStream(io.TextIOWrapper):
    """A stand-in for sys.stdout or sys.stderr.

    A text goes to its record as it is, without a way over bytes: so no encoding refuses it. Neither `close` nor
    `detach` ends the stream, which belongs to all tasks of its child.
    """

    def __init__(self, lines: Lines, name: str, errors: str, *, line_buffering: bool) -> None:
        """:param errors: what the stream says of itself; nothing is refused here."""
        self._lines = lines
        super().__init__(
            _Bytes(lines, name), encoding=lines.encoding, errors=errors, newline="\n", line_buffering=line_buffering
        )

    @property
    def mode(self) -> str:
        """As with the streams that Python makes."""
        return "w"

    @property
    def lines(self) -> Lines:
        """What puts the records together."""
        return self._lines

    def write(self, text: object) -> int:
        """Take a piece of text.

        :raises TypeError: if it is something else.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._lines.write(text)
        return len(text)

    def flush(self) -> None:
        """Say what was begun long enough ago."""
        self._lines.flush()

    def close(self) -> None:
        """Say what was begun. It stays open: the next task prints there."""
        self._lines.flush()

    def detach(self) -> io.BufferedIOBase:  # type: ignore[override]  # a BinaryIO in the stub
        """Return the stream of bytes; this one stays usable."""
        return self.buffer  # type: ignore[return-value]  # it is `_Bytes`
