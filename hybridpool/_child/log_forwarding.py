"""Forwards what user code logs and prints to the parent, as whole formatted lines.

Only the parent writes to the terminal or the log file. So lines of different children never mix, at any length, and a
line that was sent survives its child. Output
that does not pass through Python's logging or sys.stdout (a C library, a subprocess) goes to the real descriptors.

Tasks may configure logging and replace streams. A print is logged once all the same, and the next task finds logging
and streams as they were when the child was ready.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Final, NamedTuple

from hybridpool import _task_context
from hybridpool._child import log_config, printable
from hybridpool._child.log_formats import NO_VALUE, JsonFormatter, LineFormatter, coloured
from hybridpool._child.text_streams import MAX_RECORD_CHARS, LineAssembler, PrintedStream, write_whole
from hybridpool._ipc.frames import ChildOrders

SendText = Callable[[str], None]

#: the logger of lines that a task printed; in Celery it is celery.redirected
PRINTED: Final = "hybridpool.printed"


class ForwardingHandler(logging.Handler):
    """Formats records and passes them to the parent."""

    def __init__(self, send: SendText, *, in_colour: bool = False) -> None:
        super().__init__()
        self._send = send
        self._in_colour = in_colour
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """SendText a record; a mistake in a log call is said in its place."""
        try:
            line = self.format(record)
        except Exception as error:
            # `logging.raiseExceptions` may be off, and then the error would be lost.
            line = self._format_mistake(record, error)
        if len(line) > MAX_RECORD_CHARS and not isinstance(self.formatter, JsonFormatter):
            line = f"{line[:MAX_RECORD_CHARS]}… ({len(line) - MAX_RECORD_CHARS} characters more)"
        line = printable.record(line)
        if self._in_colour:
            line = coloured(record.levelno, line)
        self.send_line(line + "\n")

    def send_line(self, line: str) -> None:
        """Pass a whole line to the parent."""
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

    Records go to the forwarding handler, or to those that `worker_logging` gives the root logger, in any state of
    `logging`, and not to handlers that a task gives the root logger: those may write to sys.stderr, and each such line
    would be printed again without end. The level, filters and handlers of the
    logger `PRINTED` apply; what one of those handlers prints is dropped.
    """

    def __init__(self, handlers: list[logging.Handler], level: int) -> None:
        self._handlers = handlers
        #: handlers that are not ours may print
        self._are_ours = all(isinstance(one, ForwardingHandler) for one in handlers)
        self._log = logging.getLogger(PRINTED)
        self._log.propagate = False
        # A level of its own: a change of the root logger's level by a task does not affect prints.
        _set_level(self._log, level)
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
        if self._are_ours:
            for handler in self._handlers:
                handler.handle(record)
            return
        self._busy.add(thread)
        try:
            for handler in self._handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)
        finally:
            self._busy.discard(thread)


class PreparedLogging(NamedTuple):
    """What the zygote has found, and what is so in a child until code of the app runs there."""

    #: handlers that write to standard output or error, but for those that the root logger alone has
    consoles: list[logging.Handler]
    loggers: list[logging.Logger]
    disabled: set[logging.Logger]


class _LoggingState:
    """The state of streams and logging, which is restored after each task."""

    def __init__(self, prepared: PreparedLogging | None) -> None:
        root = logging.getLogger()
        self.streams = sys.stdout, sys.stderr
        self.handlers = list(root.handlers)
        self.level = root.level
        self.disabled_level = root.manager.disable
        self.raises = logging.raiseExceptions
        loggers = _loggers() if prepared is None else prepared.loggers
        self.loggers = loggers
        self.disabled = {one for one in loggers if one.disabled} if prepared is None else prepared.disabled


def _loggers() -> list[logging.Logger]:
    return [one for one in logging.getLogger().manager.loggerDict.values() if isinstance(one, logging.Logger)]


def prepare(orders: ChildOrders) -> PreparedLogging:
    """Do in the zygote what touches every logger there is: in a child each would cost a page of memory."""
    _set_level(logging.getLogger(), orders.log_level)
    if orders.redirect_stdouts:
        _set_level(logging.getLogger(PRINTED), orders.log_level)
    loggers = _loggers()
    return PreparedLogging(log_config.consoles_below_root(), loggers, {one for one in loggers if one.disabled})


def _set_level(logger: logging.Logger, level: int) -> None:
    if logger.level != level:
        logger.setLevel(level)


class LogForwarder:
    """Redirects logging and printing of this process, once, when the child starts."""

    def __init__(
        self, child: str, orders: ChildOrders, send: SendText, prepared: PreparedLogging | None = None
    ) -> None:
        root = self._root = logging.getLogger()
        self._handler = ForwardingHandler(send, in_colour=orders.log_in_colour)
        self._handler.setFormatter(
            JsonFormatter(child) if orders.log_json else LineFormatter(orders.log_format, child, orders.task_log_format)
        )
        # The app's handlers that write elsewhere stay; one for the terminal would write each line a second time.
        root.handlers[:] = [self._handler, *(one for one in root.handlers if not log_config.is_console(one))]
        _set_level(root, orders.log_level)
        log_config.redirect_consoles(self._handler.send_line, None if prepared is None else prepared.consoles)
        self._lines: list[LineAssembler] = []
        prints_to: list[logging.Handler] = [self._handler]
        if orders.logging:
            prints_to = log_config.apply(
                json.loads(orders.logging), self._handler, self._handler.send_line, partial(_complete, child)
            )
            prepared = None
        if orders.redirect_stdouts:
            encoding = getattr(sys.__stdout__, "encoding", None) or "utf-8"
            print_logger = _PrintLogger(prints_to, orders.log_level)
            out, err = (
                LineAssembler(1, encoding, print_logger.log_text),
                LineAssembler(2, encoding, print_logger.log_text),
            )
            self._lines = [out, err]
            sys.stdout = PrintedStream(out, "<stdout>", "strict", line_buffering=False)
            sys.stderr = PrintedStream(err, "<stderr>", "backslashreplace", line_buffering=True)
        self.save_state(prepared)

    def save_state(self, prepared: PreparedLogging | None = None) -> None:
        """Save streams and logging as they are now, for all tasks: hooks may have configured them.

        :param prepared: given if no code of the app has run.
        """
        self._saved = _LoggingState(prepared)
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


def _complete(child: str, record: logging.LogRecord) -> None:
    """Add what formats of `worker_logging` may name: the child, and the task at work."""
    if record.process == os.getpid():
        record.processName = child
    task = _task_context.current_task()
    record.task_name, record.task_id = (NO_VALUE, NO_VALUE) if task is None else (task.name, task.id)


def _flush(stream: object) -> None:
    """Flush a stream that a task has put in place of ours."""
    try:
        stream.flush()  # type: ignore[attr-defined]  # it may not be a stream
    except Exception:
        return
