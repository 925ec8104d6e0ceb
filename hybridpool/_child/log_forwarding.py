"""What user code logs and prints: whole formatted lines, sent to the parent, who alone writes to terminal or file.

So lines of different children never mix, at any length, and a line that was sent survives its child. Output
that does not pass through Python's logging or sys.stdout (a C library, a subprocess) goes to the real descriptors.

Tasks configure logging and replace streams. Whatever they do, a print is said once, and the next task finds both as
they were when the child was ready.
"""

import logging
import os
import sys
from collections.abc import Callable
from threading import get_ident
from typing import Final

from hybridpool._child import printable
from hybridpool._child.text_streams import MAX_RECORD_CHARS, Lines, PrintedStream, write_whole
from hybridpool._ipc.frames import ChildOrders

Say = Callable[[str], None]

#: how a log line looks, in parent and children (Celery, worker_log_format)
FORMAT: Final = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"

#: the logger of lines that a task printed; Celery's name for the same thing is celery.redirected
PRINTED: Final = "hybridpool.printed"


class _LineFormatter(logging.Formatter):
    def __init__(self, layout: str, child: str) -> None:
        super().__init__(layout)
        self._child = child
        self._pid = os.getpid()

    def format(self, record: logging.LogRecord) -> str:
        if record.process == self._pid or record.process is None:
            record.processName = self._child
        return super().format(record)


class ForwardingHandler(logging.Handler):
    """Formats records and passes them to the parent."""

    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Say a record; a mistake in a log call is said in its place."""
        try:
            line = self.format(record)
        except Exception as error:
            # With raiseExceptions off it would vanish.
            line = self._say_mistake(record, error)
        if len(line) > MAX_RECORD_CHARS:
            line = f"{line[:MAX_RECORD_CHARS]}… ({len(line) - MAX_RECORD_CHARS} characters more)"
        line = printable.record(line) + "\n"
        if os.getpid() == self._pid:
            self._say(line)
        else:
            # A process that the task has forked; the channel is not its own.
            write_whole(2, line.encode())

    def _say_mistake(self, record: logging.LogRecord, error: Exception) -> str:
        try:
            mistake = f"a log call cannot be shown: {record.msg!r} with {record.args!r}: {error!r}"
        except Exception:
            mistake = f"a log call cannot be shown: {record.pathname}, line {record.lineno}"
        record.msg, record.args, record.exc_info, record.exc_text, record.stack_info = mistake, None, None, None, None
        try:
            return self.format(record)
        except Exception:
            # The factory of records is the user's, and may leave out what the layout names.
            return mistake


class _Watch(logging.Handler):
    """Hears that all handlers are closed, as `dictConfig` does before it disables the loggers that it does not name."""

    def __init__(self) -> None:
        super().__init__()
        self.was_closed = False

    def close(self) -> None:
        self.was_closed = True
        super().close()


class _Printer:
    """Makes records of what is printed.

    They go to the handler above whatever the state of `logging` is, and not to handlers of the root logger: those may
    write to sys.stderr, and each such line would be printed again without end. The level of the logger `PRINTED`
    counts, and its own filters and handlers; what one of those prints is dropped.
    """

    def __init__(self, handler: ForwardingHandler, level: int) -> None:
        self._handler = handler
        self._log = logging.getLogger(PRINTED)
        self._log.propagate = False
        # Its own, so that what a task does to the root logger does not silence what it prints.
        self._log.setLevel(level)
        #: threads in which handlers of the user's are at work
        self._busy: set[int] = set()

    def say(self, text: str) -> None:
        """Say what was printed, as one record."""
        log, thread = self._log, get_ident()
        if log.getEffectiveLevel() > logging.WARNING or thread in self._busy:
            return
        # Without arguments, so that a percent sign is one.
        record = logging.LogRecord(PRINTED, logging.WARNING, "", 0, text, None, None)
        if log.filters or log.handlers:
            self._busy.add(thread)
            try:
                if not log.filter(record):
                    return
                for handler in log.handlers:
                    if record.levelno >= handler.level:
                        handler.handle(record)
            finally:
                self._busy.discard(thread)
        self._handler.handle(record)


class _Found:
    """What the tasks of a child find, and what each leaves as it was."""

    def __init__(self) -> None:
        root = logging.getLogger()
        self.streams = sys.stdout, sys.stderr
        self.handlers = list(root.handlers)
        self.level = root.level
        self.disabled_level = root.manager.disable
        self.raises = logging.raiseExceptions
        self.loggers = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
        self.disabled = {one for one in self.loggers if one.disabled}


class LogForwarder:
    """Redirects logging and printing of this process, once, at birth."""

    def __init__(self, child: str, orders: ChildOrders, say: Say) -> None:
        root = self._root = logging.getLogger()
        self._handler = ForwardingHandler(say)
        self._handler.setFormatter(_LineFormatter(orders.log_format, child))
        root.handlers[:] = [self._handler]
        root.setLevel(orders.log_level)
        self._lines: list[Lines] = []
        if orders.redirect_stdouts:
            encoding = getattr(sys.__stdout__, "encoding", None) or "utf-8"
            printer = _Printer(self._handler, orders.log_level)
            out, err = Lines(1, encoding, printer.say), Lines(2, encoding, printer.say)
            self._lines = [out, err]
            sys.stdout = PrintedStream(out, "<stdout>", "strict", line_buffering=False)
            sys.stderr = PrintedStream(err, "<stderr>", "backslashreplace", line_buffering=True)
        self.keep()

    def keep(self) -> None:
        """Let tasks find streams and logging as they are now: hooks may have set them up."""
        self._found = _Found()
        # Beside it, as this is looked at after each task.
        self._begun = [lines.begun for lines in self._lines] or [{}, {}]
        self._stdout, self._stderr = self._found.streams
        self._handlers, self._level = list(self._root.handlers), self._root.level
        self._watch = _Watch()

    def finish(self) -> None:
        """After each task: say what was begun, as a print without a newline ends with its task; put the rest right."""
        try:
            if (
                self._begun[0]
                or self._begun[1]
                or sys.stdout is not self._stdout
                or sys.stderr is not self._stderr
                or self._root.handlers != self._handlers
                or self._root.level != self._level
                or self._watch.was_closed
                or self._root.manager.disable
            ):
                self._put_right()
        except AttributeError:
            # There is no sys.stdout, or no sys.stderr.
            self._put_right()

    def _put_right(self) -> None:
        found, root = self._found, self._root
        for name, ours in zip(("stdout", "stderr"), found.streams, strict=True):
            theirs = getattr(sys, name, None)
            if theirs is not ours:
                setattr(sys, name, ours)
                _flush(theirs)
        for lines in self._lines:
            lines.finish()
        if root.handlers != self._handlers:
            # What tasks add stays, unless it says again what our own says.
            own = {id(handler) for handler in found.handlers}
            more = [one for one in root.handlers if id(one) not in own and not self._is_printed(one)]
            root.handlers[:] = [*found.handlers, *more]
            self._handlers = list(root.handlers)
        root.setLevel(found.level)
        root.manager.disable = found.disabled_level
        logging.raiseExceptions = found.raises
        if self._watch.was_closed:
            # A closed handler is not closed again.
            self._watch = _Watch()
            for logger in found.loggers:
                logger.disabled = logger in found.disabled

    def _is_printed(self, handler: logging.Handler) -> bool:
        return isinstance(handler, logging.StreamHandler) and isinstance(handler.stream, PrintedStream)


def _flush(stream: object) -> None:
    """Have a task's own stream give what it holds back."""
    try:
        stream.flush()  # type: ignore[attr-defined]  # or it is no stream, and has none
    except Exception:
        return
