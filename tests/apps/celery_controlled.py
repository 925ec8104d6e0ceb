"""A Celery app whose workers, ours and Celery's, are told what to do by remote control."""

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.worker.control import control_command, inspect_command
from kombu.entity import Exchange, Queue

NAME = os.environ["GUEST_QUEUE"]
#: Celery's library is untyped
queue: Any = Queue
exchange: Any = Exchange

app = Celery("celery_controlled", broker=os.environ["GUEST_BROKER"], backend=os.environ["GUEST_BACKEND"])
app.conf.update(
    task_default_queue=NAME,
    task_queues=[queue(NAME, exchange(NAME), NAME), queue(f"{NAME}.new", exchange(f"{NAME}.new"), "key")],
    worker_pool_restarts=True,
    worker_prefetch_multiplier=10,
    result_backend_transport_options={"retry_policy": {"timeout": 5.0}},
)


@app.task  # type: ignore[untyped-decorator]  # Celery is untyped
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@app.task(rate_limit="100/s", time_limit=600)  # type: ignore[untyped-decorator]
def limited() -> float:
    """Return the time."""
    return time.time()


@app.task  # type: ignore[untyped-decorator]
def hold(path: str, **_: Any) -> str:
    """Wait for a file."""
    Path(f"{path}.entered").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return path


@app.task  # type: ignore[untyped-decorator]
def where() -> tuple[int, int]:
    """Tell this process and its parent."""
    return os.getpid(), os.getppid()


@inspect_command(args=[("word", str)], alias="echo_too")  # type: ignore[untyped-decorator]
def echo(state: Any, word: str) -> dict[str, Any]:
    """Return what came."""
    return {"word": word, "app": state.app.main, "hostname": state.hostname}


@control_command()  # type: ignore[untyped-decorator]
def fail(state: Any) -> None:
    """Raise."""
    raise LookupError("not here")
