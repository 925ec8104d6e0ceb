"""The app of the fault table for Celery: as it comes, or, if the environment says so, with late acknowledgement."""

import os
from collections.abc import Sequence

from celery import Celery

from tests.benchmarks import faults_work as work

app = Celery("faults", broker=os.environ[work.BROKER])
app.conf.task_default_queue = os.environ[work.QUEUE]
# else it warns of what it will do by itself in its next major version
app.conf.broker_connection_retry_on_startup = True
if "FAULTS_CELERY_LATE" in os.environ:
    app.conf.task_acks_late = True
    app.conf.task_reject_on_worker_lost = True


@app.task
def number(name: str, gate: str) -> None:
    """Do a numbered piece of work."""
    work.work(name, gate)


def send(calls: Sequence[tuple[str, str]]) -> None:
    """Send all calls in their order."""
    for call in calls:
        app.send_task(f"{__name__}.number", call)
