"""The app of the fault tests with tasks of the async and the thread lane, and so with children of these lanes."""

import asyncio
import time
from typing import Final

from tests.faults.apps import POLL, app, exists, fatal, journalled

#: by whose name the tasks are called, as the others of the app are
APP: Final = "tests.faults.apps"


@app.task(name=f"{APP}.waits")
async def waits(until: str) -> None:
    """Wait, beside others on one event loop, until a file exists."""
    with journalled():
        while not exists(until):  # noqa: ASYNC110  another process makes it, and announces nothing
            await asyncio.sleep(POLL)


@app.task(name=f"{APP}.waits_in_thread", lane="thread")
def waits_in_thread(until: str) -> None:
    """Wait, beside others in one process, until a file exists."""
    with journalled():
        while not exists(until):
            time.sleep(POLL)


@app.task(name=f"{APP}.fatal_in_loop")
async def fatal_in_loop(how: str) -> None:
    """End the child, with all coroutines in it."""
    fatal(how)


@app.task(name=f"{APP}.fatal_in_thread", lane="thread")
def fatal_in_thread(how: str) -> None:
    """End the child, with all threads in it."""
    fatal(how)
