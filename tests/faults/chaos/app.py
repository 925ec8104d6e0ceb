"""The tasks of the chaos run, beside those of `tests.faults.apps`; and which process runs them, in the same journal.

A line ``w1.0 pid child-of-zygote time`` says that a child was started in the first run of worker 1.
"""

import asyncio
import contextvars
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hybridpool import RunningTask, current_task
from hybridpool.errors import BrokerError, Reject, TaskCancelled
from tests.faults.apps import DEATHS, app, journalled, number, write
from tests.faults.ledger import tell as say

__all__ = ["app"]

#: in the environment of a worker: its name
WHO: Final = "CHAOS_WHO"
#: in the environment of a worker: a folder for marks that outlive an attempt
MARKS: Final = "CHAOS_MARKS"
#: words of the journal
RAISED: Final = "raised"
ASKED: Final = "asked"
REJECTED: Final = "rejected"
#: of a call that a task sends: another try
SENT: Final = "sent"
#: the copy that a task forked did not end
STRAY: Final = "orphan"
#: what a copy returns, raises and prints
COPY: Final = "of the forked copy"
CHILD_OF: Final = "child-of-"

#: lines that each thread of a noisy task logs and prints, and the seconds between two of them
NOISE: Final = 300
NOISE_GAP: Final = 0.001
#: seconds that a copy gets for its end
COPY_LASTS: Final = 5.0
#: seconds that a coroutine holds its loop; of a limit; and that a call goes on after it was told to stop
HOLDS_S: Final = 0.4
LIMIT_S: Final = 0.3
LATE_S: Final = 4.0
#: seconds without a descriptor, and bytes that do not go without one
STARVED_FOR: Final = 0.2
MUCH: Final = 200_000

log = logging.getLogger("chaos")


class MeantError(Exception):
    """What a task raises that shall fail."""


@app.worker_process_init
def tell_whose() -> None:
    """Let the account know which worker, and which zygote, this child belongs to."""
    write(os.environ[WHO], f"{CHILD_OF}{os.getppid()}")


@app.task
def slow(seconds: float) -> None:
    """Be so long at work that something happens meanwhile."""
    with journalled():
        time.sleep(seconds)


@app.task(throws=(MeantError,))
def raises() -> None:
    """Fail, as it is meant to."""
    running = current_task()
    assert running is not None
    write(running.id, "start")
    write(running.id, RAISED)
    raise MeantError(running.id)


@app.task(bind=True)
def retries(running: RunningTask, countdown: float) -> None:
    """Ask for one more attempt, and succeed in that."""
    write(running.id, "start")
    if not running.retries:
        write(running.id, ASKED)
        running.retry(countdown=countdown)
    write(running.id, "done")


def _name() -> str:
    running = current_task()
    assert running is not None
    return running.id


@app.task
def noisy() -> None:
    """Leave threads behind that log and print while other tasks run in this child."""
    with journalled() as task_id:
        for say_it in (log.info, say):
            threading.Thread(target=_say_often, args=(say_it, task_id), daemon=True).start()


def _say_often(say_it: Callable[[str], object], text: str) -> None:
    for _ in range(NOISE):
        say_it(f"still here: {text}")
        time.sleep(NOISE_GAP)


@app.task
def sends(way: str, count: int) -> int:
    """Send calls from threads that have this task's context, and wait for all of them."""
    with journalled() as task_id:
        names = [f"{task_id}.{number}" for number in range(count)]
        if way == "asyncio":
            asyncio.run(_send_all(names))
        else:
            threads = [threading.Thread(target=contextvars.copy_context().run, args=(_send, name)) for name in names]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return count


async def _send_all(names: list[str]) -> None:
    await asyncio.gather(*(asyncio.to_thread(_send, name) for name in names))


def _send(name: str) -> None:
    while True:
        write(name, SENT)
        try:
            number.options(task_id=name, ignore_result=True).delay()
        except BrokerError:
            time.sleep(NOISE_GAP)
        else:
            return


@app.task
def forks(how: str) -> str:
    """Fork, as a library may; the copy goes on as if it were the child."""
    task_id = _name()
    write(task_id, "start")
    copy = os.fork()
    if not copy:
        return _as_copy(how)
    deadline = time.monotonic() + COPY_LASTS
    while os.waitpid(copy, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            write(task_id, STRAY)
            os.kill(copy, signal.SIGKILL)
            os.waitpid(copy, 0)
            break
        time.sleep(NOISE_GAP)
    write(task_id, "done")
    return task_id


def _as_copy(how: str) -> str:
    match how:
        case "raises":
            raise MeantError(COPY)
        case "exits":
            sys.exit(0)
        case "prints":
            for _ in range(20):
                say(COPY)
                log.info(COPY)
        case "stays a moment":
            time.sleep(STARVED_FOR)
        case _:
            pass
    return COPY


@app.task(throws=(MeantError,))
def starved(how: str) -> str:
    """End when there is no descriptor left, as after a leak; there is one again a moment later."""
    with journalled() as task_id:
        pass
    _, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    threading.Timer(STARVED_FOR, resource.setrlimit, (resource.RLIMIT_NOFILE, before)).start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    match how:
        case "returns much":
            return "x" * MUCH
        case "logs much":
            log.info("%s", "y" * MUCH)
        case "raises":
            raise MeantError(f"no descriptor left: {'z' * MUCH}")
        case _:
            pass
    return task_id


@app.task
async def waits(seconds: float) -> None:
    """Wait beside other coroutines."""
    with journalled():
        await asyncio.sleep(seconds)


@app.task
async def kills_loop(how: str) -> None:
    """End the child with all coroutines in it."""
    with journalled():
        DEATHS[how]()


@app.task(throws=(TaskCancelled,))
async def holds(lasts: bool) -> None:
    """Hold the loop: for a moment, or until it is interrupted."""
    with journalled():
        until = time.monotonic() + HOLDS_S
        while lasts or time.monotonic() < until:
            pass


@app.task(time_limit=LIMIT_S)
async def overruns() -> None:
    """Wait for longer than the limit."""
    with journalled():
        await asyncio.sleep(60)


@app.task(time_limit=LIMIT_S)
async def overruns_for_long() -> None:
    """Wait for longer than the limit, and do not stop when told to."""
    with journalled():
        try:
            await asyncio.sleep(60)
        except TaskCancelled:
            await asyncio.sleep(LATE_S)


@app.task(lane="thread")
def waits_in_thread(seconds: float) -> None:
    """Wait beside other threads."""
    with journalled():
        time.sleep(seconds)


@app.task(lane="thread")
def kills_threads() -> None:
    """End the child with all threads in it."""
    with journalled():
        os._exit(3)


@app.task(lane="thread", time_limit=LIMIT_S)
def overruns_in_thread() -> None:
    """Wait for longer than the limit where nothing interrupts it."""
    with journalled():
        time.sleep(LATE_S)


@app.task(concurrency=2)
async def few_at_once(seconds: float) -> None:
    """Wait beside one other of its kind."""
    with journalled():
        await asyncio.sleep(seconds)


@app.task
def large(size: int) -> str:
    """Return more than the broker takes."""
    with journalled():
        pass
    return "x" * size


@app.task(bind=True)
def grows(running: RunningTask, size: int) -> None:
    """Ask for one more attempt, with more arguments than the broker takes."""
    write(running.id, "start")
    write(running.id, ASKED)
    running.retry(countdown=0, args=(size, "x" * size), max_retries=1)


@app.task
def named(name: str) -> str:
    """Be one of several calls of the same id."""
    write(name, "start")
    write(name, "done")
    return name


@app.task
def rejects() -> None:
    """Be rejected once; the operator who replays the dead letter has removed the cause."""
    task_id = _name()
    write(task_id, "start")
    mark = Path(os.environ[MARKS], task_id)
    if not mark.exists():
        mark.touch()
        write(task_id, REJECTED)
        raise Reject("no stock")
    write(task_id, "done")
