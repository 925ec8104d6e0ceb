"""A Celery app for scenarios that a Celery worker and ours run alike; its settings come from the environment."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task, chord, signals
from celery.exceptions import Reject

app = Celery("smoke_app", broker=os.environ["SMOKE_BROKER"], backend=os.environ["SMOKE_BACKEND"])
app.conf.task_default_queue = os.environ["SMOKE_QUEUE"]
app.conf.update(json.loads(os.environ.get("SMOKE_CONF", "{}")))


@app.task  # type: ignore[untyped-decorator]
def identity(x: Any) -> Any:
    """Return it."""
    return x


@app.task  # type: ignore[untyped-decorator]
def hold(path: str) -> bool:
    """Say that this runs, and wait for a file."""
    with Path(f"{path}.entered").open("a") as file:
        file.write("x")
    while not Path(path).exists():
        time.sleep(0.01)
    return True


@app.task  # type: ignore[untyped-decorator]
def fail() -> None:
    """Raise."""
    raise ValueError("no way")


@app.task  # type: ignore[untyped-decorator]
def total(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


@app.task  # type: ignore[untyped-decorator]
def die() -> None:
    """End this process as the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(max_retries=2, default_retry_delay=0)  # type: ignore[untyped-decorator]
def die_with_retries() -> None:
    """Do the same, with attempts left."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task  # type: ignore[untyped-decorator]
def die_once(path: str) -> str:
    """Do the same, in the first delivery."""
    if not Path(path).exists():
        Path(path).touch()
        os._exit(1)
    return "survived"


@app.task  # type: ignore[untyped-decorator]
def leave() -> None:
    """Leave the process."""
    raise SystemExit(1)


@app.task(time_limit=1)  # type: ignore[untyped-decorator]
def too_long() -> None:
    """Run over the hard limit."""
    time.sleep(600)


@app.task(soft_time_limit=1, time_limit=30)  # type: ignore[untyped-decorator]
def soft() -> None:
    """Run over the soft limit, and do not care."""
    time.sleep(600)


@app.task(bind=True)  # type: ignore[untyped-decorator]
def replaced(self: Task, by: Any) -> None:
    """Be another task."""
    raise self.replace(app.signature(by))


@app.task(bind=True)  # type: ignore[untyped-decorator]
def retried(self: Task) -> int:
    """Succeed in the second attempt."""
    if self.request.retries < 1:
        raise self.retry(exc=ValueError("not yet"), countdown=1, max_retries=1)
    return int(self.request.retries)


@app.task(bind=True, acks_late=True)  # type: ignore[untyped-decorator]
def reject_once(self: Task) -> str:
    """Have the message requeued, and succeed in its second delivery."""
    if not self.request.delivery_info["redelivered"]:
        raise Reject("later", requeue=True)
    return "second pass"


@app.task(bind=True, acks_late=True)  # type: ignore[untyped-decorator]
def store_and_reject(self: Task) -> str:
    """Store a success, and have the message requeued all the same."""
    if not self.request.delivery_info["redelivered"]:
        self.backend.store_result(self.request.id, "first pass", "SUCCESS")
        raise Reject("later", requeue=True)
    return "second pass"


@app.task  # type: ignore[untyped-decorator]
def note(path: str) -> None:
    """Write down that this ran."""
    with Path(path).open("a") as file:
        file.write("x")


@app.task  # type: ignore[untyped-decorator]
def nested(n: int) -> str:
    """Start a chord inside a task."""
    return str(chord([identity.s(i) for i in range(n)], total.s()).delay().id)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _worker_init(**_: Any) -> None:
    print("signal worker_init", flush=True)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _worker_process_init(**_: Any) -> None:
    print("signal worker_process_init", flush=True)


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _worker_process_shutdown(**_: Any) -> None:
    print("signal worker_process_shutdown", flush=True)


@signals.task_success.connect  # type: ignore[untyped-decorator]
def _task_success(**_: Any) -> None:
    print("signal task_success", flush=True)
