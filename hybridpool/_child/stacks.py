"""The stacks of this process, parent or child: of its threads and of its asyncio tasks, as text.

asyncio is not imported for it: where it is not loaded there are no tasks.
"""

import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Final

#: code in here is the library's
_OWN_FOLDER: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep
#: threads or tasks of one stack that are named
_MAX_NAMES: Final = 10

Awaits = Callable[[FrameType], object]


def stacks(labels: Mapping[int, str] | None = None, awaits: Awaits = lambda _: None, tasks: Any = None) -> str:
    """Return all stacks of this process. Threads and tasks that stand at the same place are shown together.

    :param labels: what threads do, by their ids.
    :param awaits: returns what the code of a frame awaits, if the interpreter does not tell.
    :param tasks: names of asyncio tasks by the tasks; others have the name that asyncio gave them.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found: dict[str, list[str]] = {}
    for ident, frame in sys._current_frames().items():  # pyright: ignore[reportPrivateUsage]  # documented
        told = (labels or {}).get(ident)
        name = f"Thread {names.get(ident, 'unknown')} ({ident})" + (f", {told}" if told else "")
        found.setdefault("".join(traceback.format_stack(_outside_handler(frame))), []).append(name)
    for task in sorted(_asyncio_tasks(), key=lambda one: str(one.get_name())):
        lines = [line for frame in _frames(task.get_coro(), awaits) for line in traceback.format_stack(frame, limit=1)]
        name = (tasks or {}).get(task) or task.get_name()
        found.setdefault("".join(lines), []).append(f"Task {name}")
    return "".join(f"{_joined(names)}:\n{stack}" for stack, names in found.items()).rstrip("\n")


def _joined(names: list[str]) -> str:
    more = len(names) - _MAX_NAMES
    return "\n".join(names[:_MAX_NAMES]) + (f"\nand {more} more" if more > 0 else "")


def _outside_handler(frame: FrameType) -> FrameType:
    """Return the frame that was interrupted by the signal in whose handler the stacks are asked for; else the frame."""
    inner: FrameType | None = frame
    while inner is not None and inner.f_code.co_filename.startswith(_OWN_FOLDER):
        if inner.f_code.co_name == "_on_attention":
            return inner.f_back or frame
        inner = inner.f_back
    return frame


def _asyncio_tasks() -> list[Any]:
    """Return the tasks of the loop that runs in this thread."""
    asyncio, events = sys.modules.get("asyncio"), sys.modules.get("asyncio.events")
    if asyncio is None or events is None or events._get_running_loop() is None:
        return []
    return list(asyncio.all_tasks())


def _frames(awaited: object, awaits: Awaits) -> list[FrameType]:
    """Return the frames of a coroutine that waits, the outermost first."""
    found: list[FrameType] = []
    while awaited is not None:
        frame = _first(awaited, "cr_frame", "gi_frame", "ag_frame")
        following = _first(awaited, "cr_await", "gi_yieldfrom", "ag_await")
        if isinstance(frame, FrameType):
            found.append(frame)
            following = following or awaits(frame)
        awaited = following
    return found


def _first(value: object, *names: str) -> object:
    return next((found for name in names if (found := getattr(value, name, None)) is not None), None)
