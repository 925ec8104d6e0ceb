"""How a record of `logging` becomes text, in the parent and in children: by a format, as JSON, in colour.

A record is formatted in the process in which it was logged, since only there are the values of its `extra` and the task
at work. What travels to the parent is the text.
"""

import datetime as dt
import json
import logging
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from hybridpool import _task_context
from hybridpool._child.text_streams import MAX_RECORD_CHARS

#: format of a log line, in parent and children (Celery, worker_log_format)
FORMAT: Final = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
#: what stands for the message in a line of one of several tasks, if there is no format for lines of tasks
TASK_MESSAGE: Final = "%(task_name)s[%(task_id)s]: %(message)s"
#: what a line says for a value that its record does not have: a task, outside of tasks, or a key of `extra`
NO_VALUE: Final = "-"

_FIELD: Final = re.compile(r"%\((\w+)\)")
#: fields of every record, which are not `extra`
_STANDARD: Final = frozenset({*vars(logging.LogRecord("", 0, "", 0, "", None, None)), "message", "asctime", "taskName"})
#: fields that we add to records
_OURS: Final = frozenset({"child", "task_name", "task_id", "traceback"})
#: SGR codes; INFO is as it is
_COLOURS: Final = ((logging.CRITICAL, "1;31"), (logging.ERROR, "31"), (logging.WARNING, "33"))
_DEBUG_COLOUR: Final = "2"


def percent_formatter(layout: str) -> logging.Formatter:
    """Return a formatter for a %-format; a field that a record does not have is shown as `NO_VALUE`."""
    return logging.Formatter(layout, defaults=missing_values(layout))


def missing_values(layout: str) -> dict[str, str] | None:
    """Return what a %-format shows for fields that not every record has; None: it names no others."""
    return {name: NO_VALUE for name in fields_of(layout) if name not in _STANDARD} or None


def fields_of(layout: str) -> list[str]:
    """Return the names of fields in a %-format."""
    return _FIELD.findall(layout)


def names_task(layout: str) -> bool:
    """Tell whether a format has a field of the task."""
    return not {"task_name", "task_id"}.isdisjoint(fields_of(layout))


def coloured(level: int, text: str) -> str:
    """Return a whole record, whose own control characters were escaped, in the colour of its level."""
    code = next((code for least, code in _COLOURS if level >= least), _DEBUG_COLOUR if level < logging.INFO else "")
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


class LineFormatter(logging.Formatter):
    """Formats a line in a child."""

    def __init__(self, layout: str, child: str, task_layout: str = "") -> None:
        """Format.

        :param task_layout: of lines that a task logs; empty: the same, and the task is not looked up for each line.
        """
        super().__init__(layout, defaults=missing_values(layout))
        self._child = child
        self._pid = os.getpid()
        if not task_layout and names_task(layout):
            task_layout = layout
        self._of_task = percent_formatter(task_layout) if task_layout else None

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; inside a task, with the task's name and id."""
        if record.process == self._pid or record.process is None:
            record.processName = self._child
        task = _task_context.current_task() if self._of_task is not None else None
        if task is None or self._of_task is None:
            return super().format(record)
        # The names that Celery's worker_task_log_format has.
        record.task_name, record.task_id = task.name, task.id
        return self._of_task.format(record)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object on one line.

    Keys: time, level, logger, process, message; with a task: task, task_id; and if the record has them: exception,
    stack, extra.
    """

    def __init__(self, child: str = "") -> None:
        """:param child: the process's name; empty: as the record has it."""
        super().__init__()
        self._child = child
        self._pid = os.getpid()

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        process: str | None = getattr(record, "child", None)
        if process is None:
            is_own = self._child and record.process in (self._pid, None)
            process = self._child if is_own else record.processName
        message, exception = record.getMessage(), _exception_of(self, record)
        traceback = getattr(record, "traceback", None)
        if traceback is not None:
            message, exception = message.removesuffix(f"\n{traceback}"), str(traceback)
        told: dict[str, object] = {
            "time": utc(record.created),
            "level": record.levelname,
            "logger": record.name,
            "process": process,
            "message": _cut(message),
        }
        task = _task_context.current_task()
        task_name, task_id = (task.name, task.id) if task is not None else _task_of(record)
        if task_name is not None:
            told |= {"task": task_name, "task_id": task_id}
        if exception:
            told["exception"] = _cut(exception)
        if record.stack_info:
            told["stack"] = _cut(record.stack_info)
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD and key not in _OURS}
        if extra:
            told["extra"] = extra
        return json_line(told)


def json_line(told: Mapping[str, object]) -> str:
    """Return an object as one line of printable text; a value that JSON does not have is shown as text."""
    try:
        return _dumps(told, _shown)
    except (TypeError, ValueError, RecursionError):
        # A key that is not a text, NaN, an object that holds itself.
        return _dumps({key: _plain(value) for key, value in told.items()}, _shown)


def _dumps(told: Mapping[str, object], default: Any) -> str:
    text = json.dumps(told, ensure_ascii=False, allow_nan=False, default=default)
    # Control characters, overrides of the direction of writing, lone surrogates: as \uXXXX.
    return text if text.isprintable() else json.dumps(told, allow_nan=False, default=default)


def utc(moment: float) -> str:
    """Return a moment as ISO 8601 has it, in UTC, with milliseconds."""
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="milliseconds")


def _task_of(record: logging.LogRecord) -> tuple[str | None, str | None]:
    return getattr(record, "task_name", None), getattr(record, "task_id", None)


def _exception_of(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info and not record.exc_text:
        record.exc_text = formatter.formatException(record.exc_info)
    return record.exc_text or ""


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {_shown(key): one if type(one) in (str, int, bool) else _shown(one) for key, one in value.items()}
    return value if type(value) is str else _shown(value)


def _shown(value: object) -> str:
    try:
        return _cut(str(value))
    except Exception:
        return f"<{type(value).__qualname__} that cannot be shown>"


def _cut(text: str) -> str:
    """Cut a text: a line that were cut as a whole would not be JSON any more."""
    if len(text) <= MAX_RECORD_CHARS:
        return text
    return f"{text[:MAX_RECORD_CHARS]}… ({len(text) - MAX_RECORD_CHARS} characters more)"
