"""The Celery app of the long run with faults: each task writes down in Redis that it ran."""

import os
from typing import Any

import redis
from celery import Celery

app = Celery("hosted_chaos_app", broker=os.environ["SMOKE_BROKER"], backend=os.environ["SMOKE_BACKEND"])
app.conf.update(
    task_default_queue=os.environ["SMOKE_QUEUE"],
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # What a task sends must outlive the node, and the time that it takes to start again.
    broker_transport_options={"confirm_publish": True},
    task_publish_retry_policy={"max_retries": 300, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.5},
    worker_max_tasks_per_child=200,
)
_journal = redis.Redis.from_url(os.environ["SMOKE_BACKEND"])


@app.task(bind=True)  # type: ignore[untyped-decorator]
def step(self: Any, x: int, y: int = 0) -> int:
    """Add."""
    _journal.hincrby("runs", self.request.id)
    return x + y


@app.task(bind=True)  # type: ignore[untyped-decorator]
def total(self: Any, numbers: list[int]) -> int:
    """Add what the tasks of a chord have returned."""
    _journal.hincrby("runs", self.request.id)
    return sum(numbers)
