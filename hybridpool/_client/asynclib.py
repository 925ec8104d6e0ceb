"""Finds out which event loop library runs, for code that runs on the loop of a user's program.

Client and pool need asyncio, whatever other library the program has loaded.
"""

import asyncio
import importlib
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

from hybridpool.errors import HybridpoolError

#: asyncio's task groups uncancel the task around them
_UNCANCELS: Final = sys.version_info >= (3, 13)


def running_loop(what: str, error: type[HybridpoolError]) -> asyncio.AbstractEventLoop:
    """Return the event loop that runs here.

    :param what: what needs the loop, for the error.
    :raises HybridpoolError: of the type `error`, if there is none, or if it is trio's.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        other = _other_library()
        found = f"this program runs on {other}" if other else "no event loop runs in this thread"
        raise error(f"{what} needs asyncio, and {found}") from None


def plain_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error of hybridpool that a group of exceptions holds, however deep; else the group.

    A user's mistake is one line, whichever task groups it passed through; a fault of hybridpool is shown whole.
    """
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, HybridpoolError) else group


def _other_library() -> str | None:
    # A program that runs on another library has loaded sniffio.
    sniffio = sys.modules.get("sniffio")
    if sniffio is None:
        return None
    with suppress(Exception):
        return str(sniffio.current_async_library())
    return None


def declare_asyncio() -> None:
    """Declare in this task's context that it runs on asyncio. Call it first in a task that registers callbacks.

    anyio asks sniffio, if that is installed, and sniffio looks at asyncio's current task. A callback of the
    loop has no current task, only the context of the task that registered it. Only `anyio.run` names the library there:
    `asyncio.run`, uvicorn and notebooks do not.
    """
    with suppress(ImportError):
        importlib.import_module("sniffio").current_async_library_cvar.set("asyncio")


@contextmanager
def without_stale_cancellation() -> Generator[None]:
    """Forget the cancellations of this task that a task group inside the block has dealt with.

    Before Python 3.13 an `asyncio.TaskGroup` whose task fails while the group is being left cancels the task around it
    and does not take that back: `Task.cancelling()` stays 1. A cancel scope of anyio around it, as the one of a pool's
    own tasks, would then take its own cancellation for one from outside, and raise `CancelledError` at the end.
    A cancellation that is still to be delivered is not lost by this: it is delivered by another flag.
    """
    task = None if _UNCANCELS else asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        yield
    except asyncio.CancelledError:
        raise
    except BaseException:
        _uncancel(task, before)
        raise
    else:
        _uncancel(task, before)


def _uncancel(task: "asyncio.Task[object] | None", before: int) -> None:
    while task is not None and task.cancelling() > before:
        task.uncancel()
