"""Blocking work in a daemon thread: a file on a dead network share must not keep the program from exiting.

A pool of threads is joined when the program ends, and `anyio.to_thread` waits for it even when its caller is cancelled.
Here the caller may be cancelled at any time; the thread then runs on alone.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def run_in_daemon_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, and return its value or raise its error.

    :raises OSError: if there can be no more threads.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]  # the function's own value

    def work() -> None:
        value, error = None, None
        try:
            value = function()
        except Exception as failure:  # noqa: BLE001  # raised in the caller
            error = failure
        with suppress(RuntimeError):  # the loop is closed, so there is no caller any more
            loop.call_soon_threadsafe(settle, value, error)

    try:
        threading.Thread(target=work, name="hybridpool file access", daemon=True).start()
    except RuntimeError as error:
        raise OSError(str(error)) from error
    return await done
