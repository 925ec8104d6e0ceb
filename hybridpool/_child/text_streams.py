"""sys.stdout and sys.stderr of a task: real text streams whose lines become records of the log.

`print` is several writes, and several threads print at once. So each thread has a buffer of its own, and a record is
what one thread wrote up to a write that ends with a newline: a text of several lines is one record.

A carriage return starts the line again, as progress bars do. The text that it replaces is dropped, except for one state
a second.
A flush in the middle of a line logs it if the line began a second ago or earlier. Memory and time are
linear in what is written, and a record has at most `MAX_RECORD_CHARS`.

A process that a task forks has copies of these streams. A copy writes to the real descriptor, since the socket to the
parent belongs to the child alone; partial records of the child are not logged a second time there.
"""

import codecs
import io
import os
import sys
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any, Final

#: a longer text becomes several records
MAX_RECORD_CHARS: Final = 1024 * 1024
#: seconds between two states of a line that is not ended
PROGRESS_INTERVAL_S: Final = 1.0

Buffer = Any  # collections.abc.Buffer, from Python 3.12 on


class _PartialRecord:
    """What one thread has written and not ended."""

    __slots__ = ("current", "decoder", "ended", "is_emitted", "is_flushed", "is_replaced", "returned", "since", "size")

    def __init__(self, since: float) -> None:
        #: whole lines that wait for the end of their record
        self.ended: list[str] = []
        #: parts of the line that is not ended
        self.current: list[str] = []
        #: characters in both
        self.size = 0
        #: seconds of a monotonic clock: when this was begun, or last logged
        self.since = since
        #: a carriage return stands at the end: the next text replaces the current line
        self.returned = False
        #: the current line holds a state that replaced another
        self.is_replaced = False
        #: the current line was logged in its present state
        self.is_emitted = False
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
            self.returned = self.is_emitted = False
        if len(body) < len(text) and text.endswith("\r"):
            self.returned = True

    def _end_line(self) -> None:
        line = "".join(self.current)
        # A progress bar that is removed leaves blanks; its last state may have been logged.
        if not self.is_emitted and (line.strip() or not self.is_replaced):
            self.ended.append(line)
            self.size += 1
        self.current = []
        self.returned = self.is_replaced = self.is_emitted = False

    def take_ended(self) -> str:
        """Return the whole lines that wait and forget them."""
        ended, self.ended = self.ended, []
        self.size = sum(map(len, self.current))
        return "\n".join(ended)

    def take(self) -> str | None:
        """Return all that was not logged and forget it; None if there is nothing."""
        ended, self.ended = self.ended, []
        if self.current and not self.is_emitted and ("".join(self.current).strip() or not self.is_replaced):
            ended.append("".join(self.current))
        if not self.is_replaced:
            self.current = []
        self.is_emitted = True
        self.size = sum(map(len, self.current))
        return "\n".join(ended) if ended else None


class LineAssembler:
    """Assembles records from what threads write."""

    def __init__(
        self, descriptor: int, encoding: str, emit: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """:param emit: called with each record, without the newline at its end."""
        self.descriptor = descriptor
        self.encoding = encoding
        self._emit = emit
        self._clock = clock
        self._pid = os.getpid()
        self._is_copy = False
        #: by thread; empty while no record is partial
        self.partial: dict[int, _PartialRecord] = {}

    def write(self, text: str) -> None:
        """Accept text that this thread writes."""
        self._check_process()
        thread = get_ident()
        partial = self.partial.get(thread)
        if self._is_copy:
            self._write_copy(thread, partial, text)
            return
        ends = text.endswith("\n")
        if partial is None:
            if not text:
                return
            if ends and "\r" not in text:
                self._emit_in_parts(text[:-1])
                return
            partial = self.partial[thread] = _PartialRecord(self._clock())
        elif (
            partial.current and not partial.is_emitted and (partial.returned or "\r" in text) and self._is_due(partial)
        ):
            # Otherwise this state of a progress bar would never be logged.
            self._emit_partial(partial)
        partial.add(text)
        if ends:
            # The decoder is not needed any more: the newline was a whole character.
            self.partial.pop(thread, None)
            self._emit_partial(partial)
        elif partial.size > MAX_RECORD_CHARS:
            self._emit_partial(partial)
            partial.current, partial.size = [], 0

    def write_bytes(self, data: bytes) -> None:
        """Accept bytes that this thread writes; bytes that are not text in the stream's encoding become escapes."""
        self._check_process()
        thread = get_ident()
        partial = self.partial.get(thread)
        decoder = partial.decoder if partial is not None else None
        if decoder is None:
            decoder = codecs.getincrementaldecoder(self.encoding)("backslashreplace")
        self.write(decoder.decode(data))
        is_torn = bool(decoder.getstate()[0])
        partial = self.partial.get(thread)
        if partial is not None:
            partial.decoder = decoder if is_torn else None
        elif is_torn:
            partial = self.partial[thread] = _PartialRecord(self._clock())
            partial.decoder = decoder

    def flush(self) -> None:
        """Log the whole lines of this thread, and its partial line if that began a second ago or earlier."""
        self._check_process()
        partial = self.partial.get(get_ident())
        if partial is None:
            return
        if self._is_copy:
            self.partial.pop(get_ident(), None)
            self._write_whole("".join(partial.current))
            return
        partial.is_flushed = True
        if self._is_due(partial):
            self._emit_partial(partial)
        elif partial.ended:
            self._emit_in_parts(partial.take_ended())

    def finish(self) -> None:
        """Log the partial records of the task that ends, of this thread and of threads that have ended.

        A thread that goes on may be between two writes of one `print`: its record stays partial, unless it was flushed.
        """
        own, living = get_ident(), sys._current_frames()  # pyright: ignore[reportPrivateUsage]  # documented
        for thread, partial in list(self.partial.items()):
            if thread == own or thread not in living:
                self.partial.pop(thread, None)
                if partial.decoder is not None:
                    partial.add(partial.decoder.decode(b"", final=True))
                self._emit_partial(partial)
            elif partial.is_flushed:
                self._emit_partial(partial)

    def _is_due(self, partial: _PartialRecord) -> bool:
        return self._clock() - partial.since >= PROGRESS_INTERVAL_S

    def _emit_partial(self, partial: _PartialRecord) -> None:
        partial.since = self._clock()
        text = partial.take()
        if text is not None:
            self._emit_in_parts(text)

    def _emit_in_parts(self, text: str) -> None:
        start = 0
        while len(text) - start > MAX_RECORD_CHARS:
            end = text.rfind("\n", start + 1, start + MAX_RECORD_CHARS + 1)
            if end < 0:
                end = start + MAX_RECORD_CHARS
            self._emit(text[start:end])
            start = end + (text[end] == "\n")
        self._emit(text[start:] if start else text)

    # ---- in a process that the task has forked -----------------------------------------------------------

    def _check_process(self) -> None:
        pid = os.getpid()
        if pid != self._pid:
            self._pid, self._is_copy = pid, True
            self.partial.clear()

    def _write_copy(self, thread: int, partial: _PartialRecord | None, text: str) -> None:
        if partial is None:
            partial = self.partial[thread] = _PartialRecord(0.0)
        partial.current.append(text)
        partial.size += len(text)
        if "\n" in text or partial.size > MAX_RECORD_CHARS:
            self.partial.pop(thread, None)
            self._write_whole("".join(partial.current))

    def _write_whole(self, text: str) -> None:
        write_whole(self.descriptor, text.encode(self.encoding, errors="backslashreplace"))


def write_whole(descriptor: int, data: bytes) -> None:
    """Write to a descriptor that others write to as well; its reader may be gone."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        return


class _ByteStream(io.BufferedIOBase):
    """The stream's `buffer`."""

    mode = "wb"

    def __init__(self, lines: LineAssembler, name: str) -> None:
        self._lines = lines
        self.name = name

    @property
    def raw(self) -> io.BufferedIOBase:
        """The raw stream: this one, as nothing is buffered here."""
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
        """Flush; the stream stays open, as the next task prints to it."""
        self._lines.flush()

    def detach(self) -> io.BufferedIOBase:  # type: ignore[override]  # as `raw`
        return self


class PrintedStream(io.TextIOWrapper):
    """A stand-in for sys.stdout or sys.stderr.

    A text becomes a record as it is, without being encoded: so no encoding refuses it. Neither `close` nor
    `detach` ends the stream, which belongs to all tasks of its child.
    """

    def __init__(self, lines: LineAssembler, name: str, errors: str, *, line_buffering: bool) -> None:
        """:param errors: the value of the attribute `errors`; no text is refused here."""
        self._lines = lines
        super().__init__(
            _ByteStream(lines, name),
            encoding=lines.encoding,
            errors=errors,
            newline="\n",
            line_buffering=line_buffering,
        )

    @property
    def mode(self) -> str:
        """The mode, as of the streams that Python makes."""
        return "w"

    @property
    def lines(self) -> LineAssembler:
        """The assembler of records."""
        return self._lines

    def write(self, text: object) -> int:
        """Write a text.

        :raises TypeError: if it is something else.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._lines.write(text)
        return len(text)

    def flush(self) -> None:
        """Log the partial line if it began a second ago or earlier."""
        self._lines.flush()

    def close(self) -> None:
        """Flush; the stream stays open, as the next task prints to it."""
        self._lines.flush()

    def detach(self) -> io.BufferedIOBase:  # type: ignore[override]  # a BinaryIO in the stub
        """Return the stream of bytes; this one stays usable."""
        return self.buffer  # type: ignore[return-value]  # it is `_ByteStream`
