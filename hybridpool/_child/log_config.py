"""`worker_logging`: a user's configuration for `logging.config.dictConfig`, applied in the parent and in each child.

There is one writer. So a handler that writes to standard output or error keeps its format, filters and level, and its
stream is replaced by one that passes whole records to the writer. Handlers that write elsewhere stay as they are.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from hybridpool._child import printable
from hybridpool._child.text_streams import PrintedStream

#: takes whole lines
Writes = Callable[[str], object]


class RecordStream:
    """What a handler writes to in place of standard output or error: each text is a record."""

    def __init__(self, write: Writes) -> None:
        self._write = write

    def write(self, text: str) -> int:
        """Pass a record on; a handler writes it at once, with its end."""
        whole = printable.record(text)
        if whole:
            self._write(whole + "\n")
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def isatty(self) -> bool:
        """Tell handlers that they do not write to a terminal: control characters would be escaped."""
        return False


def apply(
    config: Mapping[str, Any],
    ours: logging.Handler,
    write: Writes,
    complete: Callable[[logging.LogRecord], None],
) -> list[logging.Handler]:
    """Configure this process.

    :param ours: the handler of the root logger. It stays if the configuration gives the root logger no handlers.
    :param write: takes what handlers would write to standard output or error.
    :param complete: adds fields to a record before a handler of the configuration gets it.
    :returns: the handlers that prints go to.
    :raises Exception: what `dictConfig` raises, or what it calls.
    """
    import logging.config as logging_config  # imported here: few have such a configuration, and it is large

    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    logging_config.dictConfig({"version": 1, "disable_existing_loggers": False, **config})
    # Both names mean the root logger.
    of_root = (config.get("root"), (config.get("loggers") or {}).get(""))
    has_handlers = any(one and one.get("handlers") for one in of_root)
    if not has_handlers:
        # A level alone takes all handlers away.
        root.handlers[:] = [*before, *(one for one in root.handlers if one not in before)]
    for logger in (logging.getLogger("hybridpool"), *_below("hybridpool")):
        logger.disabled = False

    def complete_first(record: logging.LogRecord) -> bool:
        complete(record)
        return True

    for handler in all_handlers():
        if handler is not ours:
            handler.addFilter(complete_first)
    redirect_consoles(write)
    return list(root.handlers) if has_handlers else [ours]


def redirect_consoles(write: Writes, handlers: Iterable[logging.Handler] | None = None) -> None:
    """Have every handler of a logger that writes to standard output or error pass its records on.

    :param handlers: the only ones that may write there; None: search all loggers.
    """
    for handler in all_handlers() if handlers is None else handlers:
        if is_console(handler):
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(RecordStream(write))
            else:
                handler.console.file = RecordStream(write)  # type: ignore[attr-defined]  # a RichHandler


def is_console(handler: logging.Handler) -> bool:
    """Tell whether a handler writes to standard output or error."""
    if isinstance(handler, logging.FileHandler):
        return False
    if isinstance(handler, logging.StreamHandler):
        stream: object = handler.stream
    else:
        # as a RichHandler has it
        stream = getattr(getattr(handler, "console", None), "file", None)
    return isinstance(stream, PrintedStream) or (
        stream is not None and stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    )


def consoles_below_root() -> list[logging.Handler]:
    """Return the handlers that write to standard output or error, of all loggers but the root logger."""
    handlers = [handler for logger in _below("") for handler in logger.handlers if is_console(handler)]
    return list(dict.fromkeys(handlers))


def all_handlers() -> Iterator[logging.Handler]:
    """Give each handler of any logger once."""
    seen: set[int] = set()
    for logger in (logging.getLogger(), *_below("")):
        for handler in list(logger.handlers):
            if id(handler) not in seen:
                seen.add(id(handler))
                yield handler


def _below(name: str) -> list[logging.Logger]:
    prefix = f"{name}." if name else ""
    loggers = logging.getLogger().manager.loggerDict.items()
    return [one for key, one in loggers if isinstance(one, logging.Logger) and key.startswith(prefix)]
