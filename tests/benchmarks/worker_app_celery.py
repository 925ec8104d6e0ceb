"""The benchmark's tasks as Celery's."""

import os

from celery import Celery

from tests.benchmarks import worker_work as work

work.begin()
app = Celery("bench", broker=os.environ[work.BROKER])
app.conf.task_default_queue = os.environ[work.QUEUE]
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True
for _name in work.TASKS:
    app.task(name=_name)(getattr(work, _name))


def send(task: str, *args: object) -> None:
    """Send one call."""
    app.send_task(task, args)
