"""The demo on a terminal: the children, the progress, the last lines of the log."""

import logging
import re
import time
from collections import deque
from typing import Final

import attrs
from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hybridpool import events
from hybridpool._child.log_formats import FORMAT
from hybridpool._child.printable import one_line
from hybridpool._observe import log

_CHILDREN_SHOWN: Final = 8
_LINES_SHOWN: Final = 12
#: lines for title, header, bar, borders and the cursor
_FRAME_LINES: Final = 10
#: a line in the log's format, taken apart: time of day, level, process, text
_LINE: Final = re.compile(r"\[\S+ (\S+): (\w+)/([^\]]+)\] (.*)")
#: a task's id; its first four characters are unique enough here
_ID: Final = re.compile(r"\[(\w{4})[\w-]{32}\]")
_LEVEL_STYLES: Final = {"INFO": "green", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}
_STATE_STYLES: Final = {"starting": "yellow", "busy": "bold green", "retiring": "yellow", "killed": "red"}


@attrs.define
class Row:
    """What is shown of one child."""

    pid: int = 0
    state: str = "starting"
    task: str = ""
    tasks: int = 0
    #: bytes that it shares with no other process
    memory: int = 0


class Picture(logging.Handler):
    """The display for a terminal: the present state. It is also the root handler of the log."""

    def __init__(self, title: str, height: int) -> None:
        super().__init__()
        self._title = title
        self._begun = time.perf_counter()
        self._done, self._total = 0, 1
        self._height = min(_LINES_SHOWN, max(3, height - _CHILDREN_SHOWN - _FRAME_LINES))
        self._lines: deque[str] = deque(maxlen=self._height)
        self._listener = log.LogListener(self._say)
        self.children: dict[str, Row] = {}
        self.setFormatter(logging.Formatter(FORMAT))
        root = logging.getLogger()
        root.handlers[:] = [self]
        root.setLevel(logging.INFO)

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.TaskReceived():
                return
            case events.TaskSucceeded(child=child):
                self.children[child].tasks += 1
                return
            case events.TaskFailed(child=child):
                self.children[child].tasks += 1
            case events.ChildSpawned(child, pid):
                # ChildReady, which the child sends, can arrive before ChildSpawned, which the zygote sends
                self.children.setdefault(child, Row()).pid = pid
            case events.ChildReady(child):
                self.children.setdefault(child, Row()).state = "idle"
            case events.ChildRetired(child, _, reason):
                row = self.children[child]
                row.state, row.task = "retiring", reason
            case events.ChildGone(child, _, cause, expected):
                row = self.children[child]
                row.state, row.task = ("gone", row.task) if expected else ("killed", cause)
            case _:
                pass
        self._listener(event)

    def progress(self, done: int, total: int) -> None:
        """Move the bar."""
        self._done, self._total = done, total

    def emit(self, record: logging.LogRecord) -> None:
        """Take one log record; of one with a traceback only the first line."""
        record.processName = getattr(record, "child", None) or record.processName
        self._say(one_line(self.format(record).partition("\n")[0]))

    def _say(self, text: str) -> None:
        self._lines.extend(text.splitlines())

    def draw(self) -> RenderableType:
        """Render the present state."""
        progress = Table.grid(padding=(0, 2), expand=True)
        progress.add_column(ratio=1)
        bar = ProgressBar(total=self._total, completed=self._done, complete_style="green")
        progress.add_row(bar, f"{self._done}/{self._total} tasks", f"{time.perf_counter() - self._begun:.1f} s")
        lines = Text("\n", overflow="ellipsis", no_wrap=True).join(_colour(line) for line in self._lines)
        panel = Panel(lines, title="log", title_align="left", border_style="dim", height=self._height + 2)
        return Group(self._table(), progress, panel)

    def _table(self) -> Table:
        table = Table(
            title=self._title,
            title_justify="left",
            title_style="bold cyan",
            box=ROUNDED,
            border_style="dim",
            expand=True,
        )
        table.add_column("child", min_width=18)
        table.add_column("pid", justify="right")
        table.add_column("state", min_width=9)
        table.add_column("task at work", ratio=1, no_wrap=True)
        table.add_column("done", justify="right")
        table.add_column("own memory", justify="right")
        recent = list(self.children.items())[-_CHILDREN_SHOWN:]
        for name, row in recent:
            state = Text(row.state, style=_STATE_STYLES.get(row.state, ""))
            memory = f"{row.memory / 2**20:.1f} MiB" if row.memory else ""
            style = "dim" if row.state in ("gone", "killed") else ""
            table.add_row(name, str(row.pid), state, row.task, str(row.tasks), memory, style=style)
        for _ in range(_CHILDREN_SHOWN - len(recent)):
            table.add_row()
        return table


def _colour(line: str) -> Text:
    parts = _LINE.fullmatch(line)
    if parts is None:
        return Text(line)
    clock, level, who, text = parts.groups()
    style = _LEVEL_STYLES.get(level, "")
    return Text.assemble(
        (f"{clock} ", "dim"), (f"{level:<7} ", style), (f"{who:<17} ", "cyan"), _ID.sub(r"[\1…]", text)
    )
