"""The two log lines of every task, written past `logging`, where a record costs as much as handing over a task."""

import os
import sys
import time
from collections.abc import Callable
from typing import Final

from hybridpool._child.log_formats import FORMAT, fields_of, json_line, utc
from hybridpool._child.printable import one_line

#: the logger that these lines seem to come from
LOGGER: Final = "hybridpool.worker"
#: fields that `FormattedLines` knows
_FIELDS: Final = frozenset(
    {"asctime", "levelname", "levelno", "name", "process", "processName", "message", "task_name", "task_id"}
)


def is_quick(layout: str) -> bool:
    """Tell whether `FormattedLines` can write lines of this format."""
    return _FIELDS.issuperset(fields_of(layout))


class QuickLines:
    """Writes lines as `FORMAT` has them, level INFO."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        # named as `logging` does, which does not import multiprocessing for that either: it takes 2 MB
        known = sys.modules.get("multiprocessing")
        self._process: str = known.current_process().name if known else "MainProcess"
        #: the second that `_moment` shows
        self._second = -1
        self._moment = ""
        # everything but the moment's last digits, the process and the text is the same in each line
        before, after = FORMAT.replace("%(levelname)s", "INFO").split("%(asctime)s")
        self._layout = before + "%s,%03d" + after.replace("%(processName)s", "%s").replace("%(message)s", "%s") + "\n"

    def received(self, name: str, task_id: str) -> None:
        """Write that a task was received."""
        self._line(self._process, f"Task {one_line(name)}[{one_line(task_id)}] received")

    def succeeded(self, name: str, task_id: str, child: str, runtime: float, text: str) -> None:
        """Write that a task succeeded."""
        told = f"Task {one_line(name)}[{one_line(task_id)}] succeeded in {runtime:.6f}s: {one_line(text)}"
        self._line(child or self._process, told)

    def _line(self, process: str, text: str) -> None:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        self._write(self._layout % (self._moment, (now - second) * 1000, process, text))


class FormattedLines(QuickLines):
    """Writes lines in another format, of a few fields."""

    def __init__(self, write: Callable[[str], None], layout: str) -> None:
        super().__init__(write)
        self._other_layout = layout + "\n"
        self._constant = {"levelname": "INFO", "levelno": 20, "name": LOGGER, "process": os.getpid()}

    def received(self, name: str, task_id: str) -> None:
        """Write that a task was received."""
        name, task_id = one_line(name), one_line(task_id)
        self._format(self._process, f"Task {name}[{task_id}] received", name, task_id)

    def succeeded(self, name: str, task_id: str, child: str, runtime: float, text: str) -> None:
        """Write that a task succeeded."""
        name, task_id = one_line(name), one_line(task_id)
        told = f"Task {name}[{task_id}] succeeded in {runtime:.6f}s: {one_line(text)}"
        self._format(child or self._process, told, name, task_id)

    def _format(self, process: str, text: str, name: str, task_id: str) -> None:
        now = time.time()
        moment = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))},{int(now % 1 * 1000):03d}"
        values = {"asctime": moment, "processName": process, "message": text, "task_name": name, "task_id": task_id}
        self._write(self._other_layout % (self._constant | values))


class JsonLines(FormattedLines):
    """Writes lines as `JsonFormatter` does."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(write, "")

    def _format(self, process: str, text: str, name: str, task_id: str) -> None:
        told = {
            "time": utc(time.time()),
            "level": "INFO",
            "logger": LOGGER,
            "process": process,
            "message": text,
            "task": name,
            "task_id": task_id,
        }
        self._write(json_line(told) + "\n")
