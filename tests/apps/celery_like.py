"""An app of ours whose tasks end in each of the ways that events tell of."""

import asyncio
import os
import signal
import time
from pathlib import Path

from hybridpool import App, RunningTask

app = App("celery_like", result_backend="rpc://")


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@app.task
def send_add() -> None:
    """Send a call from inside a task."""
    add.delay(1, 1)


@app.task
def fail() -> None:
    """Raise."""
    raise ValueError("no")


@app.task(bind=True)
def retried(self: RunningTask) -> int:
    """Ask for one more attempt."""
    if not self.retries:
        raise self.retry(countdown=0)
    return self.retries


@app.task
def die_once(path: str) -> None:
    """End this process as the kernel would, the first time."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)


@app.task
async def later() -> None:
    """Wait on the event loop."""
    await asyncio.sleep(0.05)


@app.task
def hold(path: str) -> None:
    """Wait for a file."""
    while not Path(path).exists():
        time.sleep(0.01)
