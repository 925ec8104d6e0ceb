"""Tasks of all three lanes."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from hybridpool import App, RunningTask, current_task
from hybridpool.errors import HybridpoolError, SoftTimeLimitExceeded, TaskCancelled

app = App("lanes", result_backend="rpc://")
log = logging.getLogger(__name__)


class Session:
    """What coroutines of one child share."""

    def __init__(self) -> None:
        self.uses = 0


@app.lifespan
async def session() -> AsyncGenerator[Session]:
    """Have a session."""
    made = Session()
    yield made
    print(f"the session ends after {made.uses} uses")


async def through(gate: str, tag: str = "") -> None:
    """Say that it runs, then wait until the gate lets it go."""
    with Path(gate, "entered").open("w") as entered:
        entered.write(f"{task_here().child} {os.getpid()} {tag}\n")
    loop, fd = asyncio.get_running_loop(), os.open(Path(gate, "release"), os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            readable = asyncio.Event()
            loop.add_reader(fd, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(fd)
            try:
                if os.read(fd, 1):
                    return
            except BlockingIOError:
                # Another one was let through.
                continue
    finally:
        os.close(fd)


def task_here() -> RunningTask:
    """Return the task at work."""
    task = current_task()
    assert task is not None
    return task


@app.task
async def hold(gate: str, tag: str) -> list[object]:
    """Wait at the gate; return process, child and id."""
    session.value.uses += 1
    await through(gate, tag)
    return [os.getpid(), task_here().child, task_here().id]


@app.task(concurrency=2)
async def hold_two(gate: str, tag: str) -> None:
    """Wait at the gate, at most two at once."""
    await through(gate, tag)


@app.task(lane="thread")
def wait_on_a_thread() -> list[object]:
    """Return process, child and thread."""
    return [os.getpid(), task_here().child, threading.current_thread().name]


@app.task(lane="process")
async def alone() -> str:
    """Return the child."""
    await asyncio.sleep(0)
    return task_here().child


@app.task
def compute() -> str:
    """Return the child."""
    return task_here().child


@app.task
def naps() -> None:
    """Wait, in a prefork child."""
    time.sleep(0.12)


@app.task(bind=True, max_retries=2, default_retry_delay=0)
async def retrying(self: RunningTask) -> int:
    """Fail twice."""
    await asyncio.sleep(0)
    if self.retries < 2:
        self.retry()
    return self.retries


@app.task
async def talks(word: str) -> None:
    """Log and print."""
    log.info("log %s", word)
    await asyncio.sleep(0)
    print(f"print {word}")


@app.task
async def sends(count: int) -> list[str]:
    """Send tasks, waiting for the broker and not."""
    sent = [(await compute.enqueue()).id for _ in range(count)]
    return [*sent, *(compute.delay().id for _ in range(count))]


@app.task
async def stops(gate: str) -> str:
    """Wait at the gate; say what ended it."""
    try:
        await through(gate)
    except SoftTimeLimitExceeded:
        return "soft limit"
    except TaskCancelled as why:
        print(f"stopped: {why}")
        raise
    return "opened"


@app.task(acks_late=False)
async def hold_early(gate: str, tag: str) -> None:
    """Wait at the gate; its message is acknowledged before."""
    await through(gate, tag)


@app.task
async def waits_for_a_result() -> str:
    """Ask for the result of another task."""
    try:
        return str(await (await compute.enqueue()).get(timeout=5))
    except HybridpoolError as error:
        return str(error)


@app.task
async def kills_its_process(gate: str) -> None:
    """Wait at the gate, then end the process from its own code."""
    await through(gate, "killer")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
async def holds_the_loop(path: str) -> None:
    """Compute until it is stopped."""
    Path(path).write_text("begun")
    while True:
        pass
