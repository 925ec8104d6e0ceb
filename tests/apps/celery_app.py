"""A Celery app as its users write them, run by our worker."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task, chord, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

app = Celery("celery_app", broker=os.environ["GUEST_BROKER"], backend=os.environ["GUEST_BACKEND"])
app.conf.task_default_queue = os.environ["GUEST_QUEUE"]
app.conf.result_extended = True


class Counting(Task):  # type: ignore[misc]  # Celery is untyped
    """A base class that adds to what a task does."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Tell the log."""
        print(f"on_success {self.name} {retval}")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Tell the log."""
        print(f"on_failure {self.name} {exc!r}")


@app.task  # type: ignore[untyped-decorator]
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@app.task  # type: ignore[untyped-decorator]
def total(numbers: list[int]) -> int:
    """Add many numbers."""
    return sum(numbers)


@app.task(base=Counting)  # type: ignore[untyped-decorator]
def fail(text: str) -> None:
    """Raise."""
    raise ValueError(text)


@app.task(base=Counting)  # type: ignore[untyped-decorator]
def counted(x: int) -> int:
    """Return the number."""
    return x


@app.task(bind=True)  # type: ignore[untyped-decorator]
def who(self: Any) -> dict[str, Any]:
    """Tell what the task knows of its message."""
    request = self.request
    return {
        "id": request.id,
        "hostname": request.hostname,
        "queue": request.delivery_info["routing_key"],
        "priority": request.delivery_info["priority"],
        "headers": request.headers,
        "pid": os.getpid(),
    }


@app.task(bind=True, max_retries=3)  # type: ignore[untyped-decorator]
def retried(self: Any, times: int) -> int:
    """Ask for so many more attempts."""
    if self.request.retries < times:
        raise self.retry(exc=ValueError("not yet"), countdown=0)
    return int(self.request.retries)


@app.task(autoretry_for=(KeyError,), retry_backoff=False, default_retry_delay=0, max_retries=2)  # type: ignore[untyped-decorator]
def autoretried() -> None:
    """Fail each time."""
    raise KeyError("gone")


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def ignored() -> int:
    """Return what is not kept."""
    return 1


@app.task(bind=True)  # type: ignore[untyped-decorator]
def stored_itself(self: Any) -> None:
    """Store a state of its own."""
    self.update_state(state="CUSTOM", meta={"by": "itself"})
    raise Ignore


@app.task(bind=True, acks_late=True)  # type: ignore[untyped-decorator]
def rejected(self: Any, path: str = "") -> str:
    """Reject the message: for good, or once."""
    if path and Path(path).exists():
        return "came back"
    if path:
        Path(path).touch()
    raise Reject("no", requeue=bool(path))


@app.task(acks_late=True, acks_on_failure=False)  # type: ignore[untyped-decorator]
def refused() -> None:
    """Fail, and have the message rejected for it."""
    raise ValueError("refused")


@app.task(bind=True)  # type: ignore[untyped-decorator]
def replaced(self: Any, x: int) -> None:
    """Be another task."""
    raise self.replace(add.s(x, 1))


@app.task  # type: ignore[untyped-decorator]
def noted(context: Any, error: Any, traceback: Any, path: str) -> None:
    """Write down that another task failed."""
    Path(path).write_text(f"{type(error).__name__} {error}")


@app.task  # type: ignore[untyped-decorator]
def die() -> None:
    """End this process as the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=True)  # type: ignore[untyped-decorator]
def die_late() -> None:
    """Do the same, with the message unacknowledged."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=True, reject_on_worker_lost=True)  # type: ignore[untyped-decorator]
def die_always(path: str) -> None:
    """Do the same, and ask for further deliveries."""
    with Path(path).open("a") as file:
        file.write(".")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=True, reject_on_worker_lost=True)  # type: ignore[untyped-decorator]
def held_late(path: str) -> int:
    """Write down this process, and return when a file is there."""
    with Path(f"{path}-pids").open("a") as file:
        file.write(f"{os.getpid()}\n")
    while not Path(path).exists():
        time.sleep(0.01)
    return 1


class DiesAfterwards(app.Task):  # type: ignore[misc, name-defined]
    """A task that ends its process as soon as its success is recorded."""

    def on_success(self, *_: Any) -> None:
        """End this process."""
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(base=DiesAfterwards, acks_late=True, reject_on_worker_lost=True)  # type: ignore[untyped-decorator]
def die_afterwards(path: str) -> str:
    """Succeed, and die."""
    with Path(path).open("a") as file:
        file.write(".")
    return "done"


@app.task(retry_on_worker_lost=True, max_retries=1, default_retry_delay=0)  # type: ignore[untyped-decorator]
def die_retried() -> None:
    """Do the same, with one more attempt."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task  # type: ignore[untyped-decorator]
def leave(code: int) -> None:
    """Leave the process."""
    raise SystemExit(code)


@app.task(time_limit=1.0, base=Counting)  # type: ignore[untyped-decorator]
def too_long() -> None:
    """Run over the hard limit."""
    time.sleep(600)


@app.task(soft_time_limit=0.5)  # type: ignore[untyped-decorator]
def soft() -> str:
    """Run over the soft limit, and clean up."""
    try:
        time.sleep(600)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "never"


@app.task  # type: ignore[untyped-decorator]
def hold(path: str) -> None:
    """Wait for a file."""
    Path(f"{path}.entered").touch()
    while not Path(path).exists():
        time.sleep(0.01)


@app.task  # type: ignore[untyped-decorator]
def nested(n: int) -> Any:
    """Start a chord inside a task."""
    return chord([add.s(i, i) for i in range(n)], total.s()).delay().id


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _worker_init(sender: Any, **_: Any) -> None:
    print(f"signal worker_init {sender.app.main}")


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _process_init(**_: Any) -> None:
    print("signal worker_process_init")


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _process_shutdown(**_: Any) -> None:
    print("signal worker_process_shutdown")


@signals.task_prerun.connect  # type: ignore[untyped-decorator]
def _prerun(task: Any, **_: Any) -> None:
    print(f"signal task_prerun {task.name}")


@signals.task_postrun.connect  # type: ignore[untyped-decorator]
def _postrun(task: Any, state: Any, **_: Any) -> None:
    print(f"signal task_postrun {task.name} {state}")


@signals.task_success.connect  # type: ignore[untyped-decorator]
def _success(sender: Any, **_: Any) -> None:
    print(f"signal task_success {sender.name}")


@signals.task_failure.connect  # type: ignore[untyped-decorator]
def _failure(sender: Any, exception: Any, **_: Any) -> None:
    print(f"signal task_failure {sender.name} {exception!r}")


@signals.task_revoked.connect  # type: ignore[untyped-decorator]
def _revoked(sender: Any, request: Any, terminated: Any, expired: Any, **_: Any) -> None:
    time.sleep(float(os.environ.get("GUEST_SLOW", "0")))
    print(f"signal task_revoked {sender.name} {terminated} {expired} {request.id}")
