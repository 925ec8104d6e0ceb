"""Tasks of all three lanes."""

import asyncio
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from hybridpool import App, RunningTask, current_task
from hybridpool.errors import HybridpoolError, SoftTimeLimitExceeded, TaskCancelled
from tests.pipes import take_byte

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
    await take_byte(Path(gate, "release"))


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


@app.task(lane="process")
async def hold_alone(gate: str, tag: str) -> str:
    """Wait at the gate, in a prefork child."""
    await through(gate, tag)
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
async def closes_descriptors() -> str:
    """Close all but the standard ones."""
    os.closerange(3, 4096)
    return "closed"


@app.task
async def uses_up_descriptors() -> None:
    """Leave none to this process."""
    _use_up_descriptors()


@app.task(lane="thread")
def uses_up_descriptors_on_a_thread() -> None:
    """Leave none to this process."""
    _use_up_descriptors()


def _use_up_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            os.dup(0)
    except OSError:
        return


@app.task
async def length(text: str) -> int:
    """Return how long a text is."""
    return len(text)


@app.task(lane="thread")
def length_on_a_thread(text: str) -> int:
    """Return how long a text is."""
    return len(text)


@app.task
async def holds_the_loop_without_signals() -> None:
    """Block all signals; when the one that concerns this child is heard again, compute until it is stopped."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ()):  # noqa: ASYNC110  nothing announces it
        await asyncio.sleep(0.01)
    while True:
        pass


@app.task
async def holds_the_loop(path: str) -> None:
    """Compute until it is stopped."""
    Path(path).write_text("begun")
    while True:
        pass
