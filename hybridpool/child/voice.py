"""What user code logs and prints: whole formatted lines, sent to the parent, who alone writes to terminal or file.

So lines of different children never mix, at any length, and a line that was sent survives its child. Output
that does not pass through Python's logging or sys.stdout (a C library, a subprocess) goes to the real descriptors.
"""

import io
import logging
import sys
from collections.abc import Callable
from typing import Final

from hybridpool.child.frames import ChildOrders
from hybridpool.child.words import plain

Say = Callable[[str], None]

#: how a log line looks, in parent and children (Celery, worker_log_format)
FORMAT: Final = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"

#: the logger of lines that a task printed; Celery's name for the same thing is celery.redirected
PRINTED: Final = "hybridpool.printed"


class _LineFormatter(logging.Formatter):
    def __init__(self, layout: str, child: str) -> None:
        super().__init__(layout)
        self._child = child

    def format(self, record: logging.LogRecord) -> str:
        record.processName = self._child
        return super().format(record)


class _SayHandler(logging.Handler):
    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = plain(self.format(record))
        except Exception as error:
            # A log call whose arguments do not fit its text; with raiseExceptions off it would vanish.
            record.msg = f"a log call cannot be shown: {record.msg!r} with {record.args!r}: {error!r}"
            record.args, record.exc_info = None, None
            line = plain(self.format(record))
        self._say(line + "\n")


class _Printed(io.TextIOBase):
    """A stand-in for sys.stdout that turns each finished line into a log record."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._begun = ""
        self._log = logging.getLogger(PRINTED)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in the stub
        return self._encoding

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._log.warning("%s", line)
        return len(text)

    def finish(self) -> None:
        """Say a line that was begun and not ended; called after each task."""
        if self._begun:
            self.write("\n")


class Voice:
    """Redirects logging and printing of this process, once, at birth."""

    def __init__(self, child: str, orders: ChildOrders, say: Say) -> None:
        root = logging.getLogger()
        handler = _SayHandler(say)
        handler.setFormatter(_LineFormatter(orders.log_format, child))
        root.handlers[:] = [handler]
        root.setLevel(orders.log_level)
        # What a handler itself fails with must not come back through the handler.
        self._printed: list[_Printed] = []
        if orders.redirect_stdouts:
            logging.raiseExceptions = False
            encoding = getattr(sys.__stdout__, "encoding", None) or "utf-8"
            sys.stdout, sys.stderr = _Printed(1, encoding), _Printed(2, encoding)
            self._printed = [sys.stdout, sys.stderr]

    def finish(self) -> None:
        """Say what was begun: a print without a newline ends with its task."""
        for stream in self._printed:
            stream.finish()
