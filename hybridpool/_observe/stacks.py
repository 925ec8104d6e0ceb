"""The stacks of this process: of its threads and of its asyncio tasks, as text."""

import asyncio
import sys
import threading
import traceback
from types import FrameType


def stacks() -> str:
    """Return all stacks of this process; for the thread of the running loop."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():  # pyright: ignore[reportPrivateUsage]  # documented
        parts.append(f"Thread {names.get(ident, 'unknown')} ({ident}):\n{''.join(traceback.format_stack(frame))}")
    for task in sorted(asyncio.all_tasks(), key=asyncio.Task.get_name):
        lines = [line for frame in _frames(task) for line in traceback.format_stack(frame, limit=1)]
        parts.append(f"Task {task.get_name()}:\n{''.join(lines)}")
    return "".join(parts).rstrip("\n")


def _frames(task: asyncio.Task[object]) -> list[FrameType]:
    """Return the frames of a task that waits, the outermost first."""
    found: list[FrameType] = []
    awaited: object = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if isinstance(frame, FrameType):
            found.append(frame)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return found
