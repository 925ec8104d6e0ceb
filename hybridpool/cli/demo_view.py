"""What the demo shows while it runs: the children, how far it is, the last lines of the log.

On a terminal a picture that is drawn again and again; elsewhere the plain lines of the worker's own log. A picture is
put together on the loop and drawn in a thread, so a terminal that is slow does not stop the worker.
"""

import contextlib
import logging
import re
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.to_thread
import attrs
import psutil
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hybridpool import events
from hybridpool.child.voice import FORMAT
from hybridpool.cli.demo_app import AT_WORK
from hybridpool.monitor import log
from hybridpool.monitor.sink import Sink

#: seconds between two pictures
_PICTURE_EVERY: Final = 0.1
_CHILDREN_SHOWN: Final = 8
_LINES_SHOWN: Final = 12
#: a line in the log's format, taken apart: time of day, level, process, text
_LINE: Final = re.compile(r"\[\S+ (\S+): (\w+)/([^\]]+)\] (.*)")
_LEVEL_STYLES: Final = {"INFO": "green", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}
_STATE_STYLES: Final = {"starting": "yellow", "busy": "bold green", "retiring": "yellow", "killed": "red"}


class View(Protocol):
    """Shows how far the demo is, and hears the facts it cares for."""

    def __call__(self, fact: events.Fact) -> None: ...

    def progress(self, done: int, total: int) -> None:
        """Tell how many tasks have been answered."""


@attrs.define
class Row:
    """What is shown of one child."""

    pid: int
    state: str = "starting"
    task: str = ""
    tasks: int = 0
    #: bytes that it shares with nobody
    memory: int = 0


@asynccontextmanager
async def shown(console: Console, title: str) -> AsyncGenerator[View]:
    """Show what happens while the block lasts."""
    if not console.is_terminal or console.is_dumb_terminal:
        sink = Sink(1)
        log.set_up(sink, logging.INFO)
        yield Lines(sink)
        sink.flush()
        return
    picture = Picture(title)
    with Live(picture.draw(), console=console, auto_refresh=False) as live:
        async with anyio.create_task_group() as beside:
            beside.start_soon(_redraw, picture, live)
            yield picture
            beside.cancel_scope.cancel()
        live.update(picture.draw())


class Lines:
    """The plain log of a worker, less two lines for each task."""

    def __init__(self, sink: Sink) -> None:
        self._face = log.LogFace(sink.write)
        self._told = 0

    def __call__(self, fact: events.Fact) -> None:
        if not isinstance(fact, events.TaskReceived | events.TaskSucceeded):
            self._face(fact)

    def progress(self, done: int, total: int) -> None:
        """Tell every fifth part of the way."""
        if done * 5 // total > self._told:
            self._told = done * 5 // total
            log.log.info("%d of %d tasks done", done, total)


class Picture(logging.Handler):
    """What is to be seen at the moment."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._begun = time.perf_counter()
        self._done, self._total = 0, 1
        self._lines: deque[str] = deque(maxlen=_LINES_SHOWN)
        self._face = log.LogFace(self._say)
        self.children: dict[str, Row] = {}
        self.setFormatter(logging.Formatter(FORMAT))
        root = logging.getLogger()
        root.handlers[:] = [self]
        root.setLevel(logging.INFO)

    def __call__(self, fact: events.Fact) -> None:
        match fact:
            case events.TaskReceived():
                return
            case events.TaskSucceeded(child=child):
                self.children[child].tasks += 1
                return
            case events.TaskFailed(child=child):
                self.children[child].tasks += 1
            case events.ChildSpawned(child, pid):
                self.children[child] = Row(pid)
            case events.ChildReady(child):
                self.children[child].state = "idle"
            case events.ChildRetired(child, _, reason):
                self.children[child].state = "retiring"
                self.children[child].task = reason
            case events.ChildGone(child, _, cause, expected):
                row = self.children[child]
                row.state, row.task = ("gone", row.task) if expected else ("killed", cause)
            case _:
                pass
        self._face(fact)

    def progress(self, done: int, total: int) -> None:
        """Move the bar."""
        self._done, self._total = done, total

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of the log; of a traceback only what it is about."""
        record.processName = getattr(record, "child", record.processName)
        self._say(self.format(record).partition("\n")[0])

    def _say(self, text: str) -> None:
        self._lines.extend(text.splitlines())

    def draw(self) -> RenderableType:
        """Put the picture together."""
        way = Table.grid(padding=(0, 2), expand=True)
        way.add_column(ratio=1)
        bar = ProgressBar(total=self._total, completed=self._done, complete_style="green")
        way.add_row(bar, f"{self._done}/{self._total} tasks", f"{time.perf_counter() - self._begun:.1f} s")
        lines = Text("\n", overflow="ellipsis", no_wrap=True).join(_colour(line) for line in self._lines)
        panel = Panel(lines, title="log", title_align="left", border_style="dim", height=_LINES_SHOWN + 2)
        return Group(self._table(), way, panel)

    def _table(self) -> Table:
        table = Table(title=self._title, title_justify="left", expand=True, border_style="dim", header_style="bold")
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


async def _redraw(picture: Picture, live: Live) -> None:
    while True:
        alive = {name: row.pid for name, row in picture.children.items() if row.state in ("idle", "busy")}
        seen = await anyio.to_thread.run_sync(_look_at, alive)
        for name, (task, memory) in seen.items():
            row = picture.children[name]
            # it may have been told to go meanwhile
            if row.state in ("idle", "busy"):
                row.state, row.task, row.memory = "busy" if task else "idle", task, memory
        live.update(picture.draw())
        await anyio.to_thread.run_sync(live.refresh)
        await anyio.sleep(_PICTURE_EVERY)


def _look_at(pids: dict[str, int]) -> dict[str, tuple[str, int]]:
    """Return task at work and own memory of those that are still there."""
    seen: dict[str, tuple[str, int]] = {}
    for name, pid in pids.items():
        with contextlib.suppress(OSError, psutil.Error):
            title = Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
            task = title.removeprefix(AT_WORK) if title.startswith(AT_WORK) else ""
            seen[name] = task, psutil.Process(pid).memory_full_info().uss
    return seen


def _colour(line: str) -> Text:
    parts = _LINE.fullmatch(line)
    if parts is None:
        return Text(line)
    clock, level, who, text = parts.groups()
    style = _LEVEL_STYLES.get(level, "")
    return Text.assemble((f"{clock} ", "dim"), (f"{level:<7} ", style), (f"{who:<17} ", "cyan"), text)
