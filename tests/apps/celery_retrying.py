"""A Celery app whose tasks are retried, here or by a worker on another queue."""

import os
from typing import Any

from celery import Celery

app = Celery("celery_retrying", broker=os.environ["CELERY_SIDE_BROKER"], backend="rpc://")
app.conf.task_default_queue = os.environ["CELERY_SIDE_QUEUE"]
app.conf.broker_connection_retry_on_startup = True


@app.task(name="handed.over", bind=True, typing=False)  # type: ignore[untyped-decorator]  # Celery is untyped
def hand_over(self: Any, word: str, queue: str) -> None:
    """Have another worker make the next attempt, in a second."""
    raise self.retry(exc=OSError("not here"), args=[word], kwargs={}, countdown=1, queue=queue)


@app.task(name="again", autoretry_for=(OSError,), bind=True, default_retry_delay=0)  # type: ignore[untyped-decorator]
def again(self: Any, attempt: int) -> int:
    """Fail until the n-th attempt."""
    if self.request.retries + 1 < attempt:
        raise OSError(f"attempt {self.request.retries + 1}")
    return int(self.request.retries)
