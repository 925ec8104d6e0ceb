"""The benchmark's tasks as tasks of ours."""

import os

from hybridpool import App
from tests.benchmarks import worker_work as work

work.begin()
app = App("bench", broker=os.environ[work.BROKER], task_default_queue=os.environ[work.QUEUE])
for _name in work.TASKS:
    app.task(name=_name)(getattr(work, _name))


def send(task: str, *args: object) -> None:
    """Send one call."""
    app.send_task(task, args)
    app.close()
