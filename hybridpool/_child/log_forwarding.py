"""Forwards what user code logs and prints to the parent, as whole formatted lines.

Only the parent writes to the terminal or the log file. So lines of different children never mix, at any length, and a
line that was sent survives its child. Output
that does not pass through Python's logging or sys.stdout (a C library, a subprocess) goes to the real descriptors.

Tasks may configure logging and replace streams. A print is logged once all the same, and the next task finds logging
and streams as they were when the child was ready.
"""

import logging
import os
import sys
from collections.abc import Callable
from threading import get_ident
from typing import Final

from hybridpool import _task_context
from hybridpool._child import printable
from hybridpool._child.text_streams import MAX_RECORD_CHARS, LineAssembler, PrintedStream, write_whole
from hybridpool._ipc.frames import ChildOrders

SendText = Callable[[str], None]

#: format of a log line, in parent and children (Celery, worker_log_format)
FORMAT: Final = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"

#: what stands for the message in a line of one of several tasks (Celery, worker_task_log_format)
_TASK_LAYOUT: Final = "%(task_name)s[%(task_id)s]: %(message)s"

#: the logger of lines that a task printed; in Celery it is celery.redirected
PRINTED: Final = "hybridpool.printed"


class _LineFormatter(logging.Formatter):
    """Formats a line. In a child that runs several tasks at once it says which of them has written it."""

    def __init__(self, layout: str, child: str, *, names_tasks: bool) -> None:
        super().__init__(layout)
        self._child = child
        self._pid = os.getpid()
        self._of_task = logging.Formatter(layout.replace("%(message)s", _TASK_LAYOUT)) if names_tasks else None

    def format(self, record: logging.LogRecord) -> str:
        if record.process == self._pid or record.process is None:
            record.processName = self._child
        task = _task_context.current_task() if self._of_task is not None else None
        if task is None or self._of_task is None:
            return super().format(record)
        # The names that Celery's worker_task_log_format has.
        record.task_name, record.task_id = task.name, task.id
        return self._of_task.format(record)


class ForwardingHandler(logging.Handler):
    """Formats records and passes them to the parent."""

    def __init__(self, send: SendText) -> None:
        super().__init__()
        self._send = send
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """SendText a record; a mistake in a log call is said in its place."""
        try:
            line = self.format(record)
        except Exception as error:
            # `logging.raiseExceptions` may be off, and then the error would be lost.
            line = self._format_mistake(record, error)
        if len(line) > MAX_RECORD_CHARS:
            line = f"{line[:MAX_RECORD_CHARS]}… ({len(line) - MAX_RECORD_CHARS} characters more)"
        line = printable.record(line) + "\n"
        if os.getpid() == self._pid:
            self._send(line)
        else:
            # A process that the task has forked: the socket belongs to the child.
            write_whole(2, line.encode())

    def _format_mistake(self, record: logging.LogRecord, error: Exception) -> str:
        try:
            mistake = f"a log call cannot be shown: {record.msg!r} with {record.args!r}: {error!r}"
        except Exception:
            mistake = f"a log call cannot be shown: {record.pathname}, line {record.lineno}"
        record.msg, record.args, record.exc_info, record.exc_text, record.stack_info = mistake, None, None, None, None
        try:
            return self.format(record)
        except Exception:
            # The record factory may be the user's, and leave out fields that the layout names.
            return mistake


class _CloseDetector(logging.Handler):
    """Detects that all handlers were closed, as by `dictConfig`, which then disables loggers that it does not name."""

    def __init__(self) -> None:
        super().__init__()
        self.was_closed = False

    def close(self) -> None:
        self.was_closed = True
        super().close()


class _PrintLogger:
    """Logs what is printed.

    Records go to the forwarding handler in any state of `logging`, and not to handlers of the root logger: those may
    write to sys.stderr, and each such line would be printed again without end. The level, filters and handlers of the
    logger `PRINTED` apply; what one of those handlers prints is dropped.
    """

    def __init__(self, handler: ForwardingHandler, level: int) -> None:
        self._handler = handler
        self._log = logging.getLogger(PRINTED)
        self._log.propagate = False
        # A level of its own: a change of the root logger's level by a task does not affect prints.
        self._log.setLevel(level)
        #: threads in which user handlers are running
        self._busy: set[int] = set()

    def log_text(self, text: str) -> None:
        """Log a printed text as one record."""
        log, thread = self._log, get_ident()
        if log.getEffectiveLevel() > logging.WARNING or thread in self._busy:
            return
        # Without arguments, so a percent sign is not a format.
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


class _LoggingState:
    """The state of streams and logging, which is restored after each task."""

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
    """Redirects logging and printing of this process, once, when the child starts."""

    def __init__(self, child: str, orders: ChildOrders, send: SendText) -> None:
        root = self._root = logging.getLogger()
        self._handler = ForwardingHandler(send)
        self._handler.setFormatter(_LineFormatter(orders.log_format, child, names_tasks=orders.lane != "process"))
        root.handlers[:] = [self._handler]
        root.setLevel(orders.log_level)
        self._lines: list[LineAssembler] = []
        if orders.redirect_stdouts:
            encoding = getattr(sys.__stdout__, "encoding", None) or "utf-8"
            print_logger = _PrintLogger(self._handler, orders.log_level)
            out, err = (
                LineAssembler(1, encoding, print_logger.log_text),
                LineAssembler(2, encoding, print_logger.log_text),
            )
            self._lines = [out, err]
            sys.stdout = PrintedStream(out, "<stdout>", "strict", line_buffering=False)
            sys.stderr = PrintedStream(err, "<stderr>", "backslashreplace", line_buffering=True)
        self.save_state()

    def save_state(self) -> None:
        """Save streams and logging as they are now, for all tasks: hooks may have configured them."""
        self._saved = _LoggingState()
        # Copied out of the saved state, as `finish` reads them after each task.
        self._partial = [lines.partial for lines in self._lines] or [{}, {}]
        self._stdout, self._stderr = self._saved.streams
        self._handlers, self._level = list(self._root.handlers), self._root.level
        self._close_detector = _CloseDetector()

    def finish(self) -> None:
        """End a task: log its last line also without a newline, and restore streams and logging."""
        try:
            if (
                self._partial[0]
                or self._partial[1]
                or sys.stdout is not self._stdout
                or sys.stderr is not self._stderr
                or self._root.handlers != self._handlers
                or self._root.level != self._level
                or self._close_detector.was_closed
                or self._root.manager.disable
            ):
                self._restore()
        except AttributeError:
            # There is no sys.stdout, or no sys.stderr.
            self._restore()

    def _restore(self) -> None:
        saved, root = self._saved, self._root
        for name, ours in zip(("stdout", "stderr"), saved.streams, strict=True):
            theirs = getattr(sys, name, None)
            if theirs is not ours:
                setattr(sys, name, ours)
                _flush(theirs)
        for lines in self._lines:
            lines.finish()
        if root.handlers != self._handlers:
            # Handlers that tasks add stay, except those that print to our streams: each line would be logged twice.
            own = {id(handler) for handler in saved.handlers}
            more = [one for one in root.handlers if id(one) not in own and not self._writes_to_ours(one)]
            root.handlers[:] = [*saved.handlers, *more]
            self._handlers = list(root.handlers)
        root.setLevel(saved.level)
        root.manager.disable = saved.disabled_level
        logging.raiseExceptions = saved.raises
        if self._close_detector.was_closed:
            # `logging` closes a handler only once, so a new detector is needed.
            self._close_detector = _CloseDetector()
            for logger in saved.loggers:
                logger.disabled = logger in saved.disabled

    def _writes_to_ours(self, handler: logging.Handler) -> bool:
        return isinstance(handler, logging.StreamHandler) and isinstance(handler.stream, PrintedStream)


def _flush(stream: object) -> None:
    """Flush a stream that a task has put in place of ours."""
    try:
        stream.flush()  # type: ignore[attr-defined]  # it may not be a stream
    except Exception:
        return
