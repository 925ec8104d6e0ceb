"""The benchmark's tasks as a Celery app with Celery's default settings, which Celery's worker runs, and ours."""

import os

from celery import Celery, chain

from tests.benchmarks import worker_work as work

work.begin()
app = Celery("bench", broker=os.environ[work.BROKER])
app.conf.task_default_queue = os.environ[work.QUEUE]
for _name in work.TASKS:
    app.task(name=_name)(getattr(work, _name))


def send(task: str, *args: object) -> None:
    """Send one call; of "chain" three no-ops, one after the other."""
    if task == "chain":
        chain(*(app.signature("noop", immutable=True) for _ in range(3))).apply_async()
    else:
        app.send_task(task, args)
