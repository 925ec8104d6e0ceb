"""The two log lines of every task, written past `logging`, where a record costs as much as handing over a task."""

import sys
import time
from collections.abc import Callable

from hybridpool._child.log_formats import FORMAT
from hybridpool._child.printable import one_line


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
