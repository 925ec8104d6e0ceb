"""The stacks of this process, parent or child: of its threads and of its asyncio tasks, as text.

asyncio is not imported for it: where it is not loaded there are no tasks.
"""

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any, Final

#: code in here is the library's
_OWN_FOLDER: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep
#: threads or tasks of one stack that are named
_MAX_NAMES: Final = 10

#: names, and their frames, the outermost first
_Frames = Iterable[tuple[str, list[FrameType]]]


def stacks(labels: Mapping[int, str] | None = None, tasks: Any = None) -> str:
    """Return all stacks of this process. Threads and tasks that stand at the same place are shown together.

    :param labels: what threads do, by their ids.
    :param tasks: names of asyncio tasks by the tasks; others have the name that asyncio gave them.
    """
    return _described(_thread_frames(labels or {}), _task_frames(tasks or {}), _formatted)


def stacks_of_calls(labels: Mapping[int, str] | None = None, tasks: Any = None) -> str:
    """As `stacks`, for a child: each stack begins with the code that the child runs."""
    frames = _thread_frames(labels or {}), _task_frames(tasks or {})
    return _described(*frames, lambda frames: _formatted(_without_ours(frames)))


def _described(threads: _Frames, tasks: _Frames, formatted: Callable[[list[FrameType]], str]) -> str:
    found: dict[str, list[str]] = {}
    for name, frames in (*threads, *tasks):
        found.setdefault(formatted(frames), []).append(name)
    return "".join(f"{_joined(names)}:\n{stack}" for stack, names in found.items()).rstrip("\n")


def _thread_frames(labels: Mapping[int, str]) -> _Frames:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, innermost in sys._current_frames().items():  # pyright: ignore[reportPrivateUsage]  # documented
        frames: list[FrameType] = []
        frame: FrameType | None = _before_the_report(innermost)
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        told = labels.get(ident)
        yield f"Thread {names.get(ident, 'unknown')} ({ident})" + (f", {told}" if told else ""), frames[::-1]


def _task_frames(names: Mapping[Any, str]) -> _Frames:
    for task in sorted(_asyncio_tasks(), key=lambda one: str(one.get_name())):
        yield f"Task {names.get(task) or task.get_name()}", _frames(task.get_coro())


def _formatted(frames: list[FrameType]) -> str:
    return "".join(line for frame in frames for line in traceback.format_stack(frame, limit=1))


def _without_ours(frames: list[FrameType]) -> list[FrameType]:
    """Return the frames from the first one on that is not the child's own code; the last one if there is none."""
    for at, frame in enumerate(frames):
        if not frame.f_code.co_filename.startswith(_OWN_FOLDER) and frame.f_code.co_filename != threading.__file__:
            return frames[at:]
    return frames[-1:]


def _joined(names: list[str]) -> str:
    more = len(names) - _MAX_NAMES
    return "\n".join(names[:_MAX_NAMES]) + (f"\nand {more} more" if more > 0 else "")


def _before_the_report(frame: FrameType) -> FrameType:
    """Return the frame that asked for the stacks, or that the handler of the signal has interrupted; else the frame."""
    found = frame
    inner: FrameType | None = frame
    while inner is not None and inner.f_code.co_filename.startswith(_OWN_FOLDER):
        if inner.f_code.co_name in ("_report_stacks", "_on_attention"):
            found = inner.f_back or frame
        inner = inner.f_back
    return found


def _asyncio_tasks() -> list[Any]:
    """Return the tasks of the loop that runs in this thread."""
    asyncio, events = sys.modules.get("asyncio"), sys.modules.get("asyncio.events")
    if asyncio is None or events is None or events._get_running_loop() is None:
        return []
    return list(asyncio.all_tasks())


def _frames(awaited: object) -> list[FrameType]:
    """Return the frames of a coroutine that waits, the outermost first."""
    found: list[FrameType] = []
    while awaited is not None:
        frame = _first(awaited, "cr_frame", "gi_frame", "ag_frame")
        following = _first(awaited, "cr_await", "gi_yieldfrom", "ag_await")
        if isinstance(frame, FrameType):
            found.append(frame)
        awaited = following
    return found


def _first(value: object, *names: str) -> object:
    return next((found for name in names if (found := getattr(value, name, None)) is not None), None)
