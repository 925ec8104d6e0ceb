"""A Celery app with many settings: some are honoured, of others the worker says that they are not."""

import os
import time
from typing import Any

from celery import Celery, bootsteps, signals
from kombu.entity import Exchange, Queue

NAME = os.environ["GUEST_QUEUE"]
#: Celery's library is untyped
queue: Any = Queue
exchange: Any = Exchange
#: rejected messages go to another queue
FAILED = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{NAME}.failed"}

app = Celery("celery_settings", broker=os.environ["GUEST_BROKER"], backend=os.environ["GUEST_BACKEND"])
app.conf.update(
    accept_content=["json", "pickle"],
    task_acks_late=True,
    task_acks_on_failure=False,
    task_default_queue=NAME,
    task_queues=[
        queue(NAME, exchange(NAME), NAME, queue_arguments=FAILED),
        queue(f"{NAME}.news", exchange(f"{NAME}.news", type="topic"), routing_key="news.#", max_priority=5),
        queue(f"{NAME}.mine", exclusive=True),
    ],
    task_soft_time_limit=1,
    worker_concurrency=3,
    worker_eta_task_limit=5,
    worker_lost_wait=5,
    worker_max_tasks_per_child=2,
    worker_pool_restarts=True,
    worker_send_task_events=True,
    worker_soft_shutdown_timeout=0.1,
)
app.steps["worker"].add(type("Step", (bootsteps.StartStopStep,), {}))


@app.task  # type: ignore[untyped-decorator]  # Celery is untyped
def pid() -> int:
    """Tell the child."""
    return os.getpid()


@app.task  # type: ignore[untyped-decorator]
def echo(value: Any) -> Any:
    """Give back what came."""
    return value


@app.task  # type: ignore[untyped-decorator]
def kind(value: Any) -> str:
    """Tell what came."""
    return type(value).__name__


@app.task(rate_limit="10/m")  # type: ignore[untyped-decorator]
def limited() -> None:
    """Have a rate limit."""


@app.task  # type: ignore[untyped-decorator]
def fail() -> None:
    """Raise."""
    raise ValueError("no")


@app.task  # type: ignore[untyped-decorator]
def slow() -> None:
    """Run over the soft limit, and do nothing about it."""
    time.sleep(600)


@signals.heartbeat_sent.connect  # type: ignore[untyped-decorator]
def _beat(**_: Any) -> None:
    """Listen to what is not sent."""


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _ready(sender: Any, **_: Any) -> None:
    """Send a task, as apps do."""
    print(f"signal worker_ready {sender.hostname}")
    sender.app.send_task("celery_settings.echo", ["at the start"], exchange="", routing_key=NAME, declare=[])


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stopping(sender: Any, how: str, **_: Any) -> None:
    print(f"signal worker_shutting_down {sender} {how}")


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _stopped(sender: Any, **_: Any) -> None:
    print(f"signal worker_shutdown {sender.hostname}")
