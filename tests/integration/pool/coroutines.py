"""Coroutine functions, and functions that wait, for pools in tests."""

import asyncio
import contextvars
import gc
import os
import resource
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from hybridpool import current_task
from hybridpool.errors import SoftTimeLimitExceeded, TaskCancelled
from tests.integration.pool.functions import enter, tell
from tests.pipes import take_byte

_something: contextvars.ContextVar[object] = contextvars.ContextVar("something")
_left: "list[weakref.ref[_Left]]" = []
_mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="")


async def hold(gate: str, value: Any = None) -> Any:
    """Wait at the gate, and let others run meanwhile."""
    enter(gate)
    await take_byte(gate + ".go")
    return value


async def who() -> tuple[int, str]:
    """Return the process, and the child's name."""
    task = current_task()
    assert task is not None
    return os.getpid(), task.child


async def own_context(gate: str, text: str) -> str:
    """Set a variable, wait, and return what it is then."""
    _mark.set(text)
    await hold(gate)
    return _mark.get()


class _Left:
    """Something that a call leaves in its context."""


async def leaves_something() -> None:
    """Put an object into this call's context, in a child that collects no garbage from then on."""
    gc.disable()
    left = _Left()
    _left.append(weakref.ref(left))
    _something.set(left)
    await asyncio.sleep(0)


async def count_left() -> int:
    """Count the objects that calls have left and that still exist."""
    return sum(one() is not None for one in _left)


async def fails() -> None:
    """Raise."""
    raise LookupError("not there")


async def ends_softly(gate: str) -> str:
    """Wait for ever; say what ended it."""
    try:
        await hold(gate)
    except SoftTimeLimitExceeded as limit:
        task = asyncio.current_task()
        assert task is not None
        return f"{limit} {task.cancelling()}"
    return "nothing"


async def in_a_group(gate: str, journal: str) -> None:
    """Wait in the tasks of a group; write down that each was cancelled."""

    async def member() -> None:
        try:
            await hold(gate)
        except asyncio.CancelledError:
            tell(journal, "cancelled\n")
            raise

    async with asyncio.TaskGroup() as group:
        group.create_task(member())
        group.create_task(member())


async def cleans_up(gate: str, journal: str) -> None:
    """Wait for ever; when it is cancelled, do something that takes turns of the loop."""
    try:
        await hold(gate)
    except TaskCancelled:
        await asyncio.sleep(0)
        tell(journal, "clean\n")
        raise


async def never_stops(gate: str) -> None:
    """Wait for ever, whatever is raised."""
    enter(gate)
    while True:
        try:
            await asyncio.Event().wait()
        except BaseException:  # noqa: BLE001  # that is the point
            continue


async def holds_the_loop(gate: str) -> str:
    """Compute for ever; say what ended it."""
    enter(gate)
    try:
        while True:
            pass
    except SoftTimeLimitExceeded as limit:
        return str(limit)


async def holds_the_loop_in_a_subtask(gate: str) -> None:
    """Compute for ever, in a task of the loop's own."""

    async def spin() -> None:
        enter(gate)
        while True:
            pass

    await asyncio.create_task(spin())


async def blocks_in_c(gate: str) -> None:
    """Hold the loop inside a function in C, where no handler of a signal runs."""
    enter(gate)
    sum(range(10**15))


async def dies(gate: str) -> None:
    """Wait at the gate, and end the process by its own code."""
    await hold(gate)
    os._exit(3)


async def stops_the_loop() -> str:
    """Stop the loop."""
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    return "stopped"


async def exits_in_a_subtask() -> None:
    """Raise SystemExit in a task of its own."""

    async def leave() -> None:
        raise SystemExit(4)

    await asyncio.create_task(leave())


async def cancels_the_loops_own() -> str:
    """Cancel every task of the loop that no call has made."""
    calls = {task for task in asyncio.all_tasks() if type(task.get_coro()).__name__ == "_Flight"}
    for task in asyncio.all_tasks() - calls:
        task.cancel()
    return "cancelled"


async def forks() -> str:
    """Fork; both come back from here."""
    pid = os.fork()
    if pid:
        await asyncio.to_thread(os.waitpid, pid, 0)
    return "parent" if pid else "copy"


def hold_thread(gate: str, value: Any = None) -> Any:
    """Wait at the gate, on a thread."""
    enter(gate)
    with Path(gate + ".go").open("rb", buffering=0) as go:
        go.read(1)
    return value


def hold_stubbornly(gate: str) -> None:
    """Wait at the gate, on a thread, whatever is raised."""
    try:
        hold_thread(gate)
    except TaskCancelled:
        with Path(gate + ".go").open("rb", buffering=0) as go:
            go.read(1)


def allow_no_more_threads() -> None:
    """Leave this process too little memory for another thread's stack."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 4 * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def thread_name() -> str:
    """Return the name of the thread."""
    return threading.current_thread().name


def loops_on_a_thread(gate: str) -> str:
    """Run Python code for ever; say what ended it."""
    enter(gate)
    try:
        while True:
            time.sleep(0.001)
    except SoftTimeLimitExceeded as limit:
        return str(limit)


def dies_on_a_thread(gate: str) -> None:
    """Wait at the gate, and end the process."""
    hold_thread(gate)
    os._exit(3)
