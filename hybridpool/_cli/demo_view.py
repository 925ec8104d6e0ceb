"""The demo's display while it runs: on a terminal a picture that is redrawn, elsewhere plain lines.

A picture is rendered on the loop and drawn in a thread, so a slow terminal does not stop the worker.
"""

import contextlib
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

import anyio
import anyio.to_thread
import psutil
from rich.console import Console
from rich.live import Live

from hybridpool import events
from hybridpool._cli.demo_app import AT_WORK
from hybridpool._cli.demo_picture import Picture
from hybridpool._observe import log
from hybridpool._observe.log_sink import Sink

#: seconds between two pictures
_REDRAW_INTERVAL_S: Final = 0.1


class Lines:
    """The display without a terminal: a worker's log without the two lines for each task."""

    def __init__(self, sink: Sink) -> None:
        self._listener = log.LogListener(sink.write)
        self._fifths_logged = 0

    def __call__(self, event: events.Event) -> None:
        if not isinstance(event, events.TaskReceived | events.TaskSucceeded):
            self._listener(event)

    def progress(self, done: int, total: int) -> None:
        """Log the progress, five times in all."""
        if done * 5 // total > self._fifths_logged:
            self._fifths_logged = done * 5 // total
            log.log.info("%d of %d tasks done", done, total)


#: listens to events and shows the progress
View: TypeAlias = Lines | Picture


@asynccontextmanager
async def shown(console: Console, title: str) -> AsyncGenerator[View]:
    """Display events while the block runs."""
    if not console.is_terminal or console.is_dumb_terminal:
        sink = Sink(1)
        log.set_up(sink, logging.INFO)
        yield Lines(sink)
        sink.flush()
        return
    picture = Picture(title, console.height)
    with Live(picture.draw(), console=console, auto_refresh=False) as live:
        async with anyio.create_task_group() as beside:
            beside.start_soon(_redraw, picture, live)
            yield picture
            beside.cancel_scope.cancel()
        live.update(picture.draw())


async def _redraw(picture: Picture, live: Live) -> None:
    while True:
        alive = {name: row.pid for name, row in picture.children.items() if row.state in ("idle", "busy")}
        seen = await anyio.to_thread.run_sync(_look_at, alive)
        for name, (task, memory) in seen.items():
            row = picture.children[name]
            # it may have been retired meanwhile
            if row.state in ("idle", "busy"):
                row.state, row.task, row.memory = "busy" if task else "idle", task, memory
        live.update(picture.draw())
        await anyio.to_thread.run_sync(live.refresh)
        await anyio.sleep(_REDRAW_INTERVAL_S)


def _look_at(pids: dict[str, int]) -> dict[str, tuple[str, int]]:
    """Return the running task and the own memory of each process that still exists."""
    seen: dict[str, tuple[str, int]] = {}
    for name, pid in pids.items():
        with contextlib.suppress(OSError, psutil.Error):
            title = Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
            task = title.removeprefix(AT_WORK) if title.startswith(AT_WORK) else ""
            seen[name] = task, psutil.Process(pid).memory_full_info().uss
    return seen
