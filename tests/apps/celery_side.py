"""A Celery app, for a real `celery worker` that our client sends to."""

import os
from typing import Any

from celery import Celery

app = Celery("celery_side", broker=os.environ["CELERY_SIDE_BROKER"], backend="rpc://")
app.conf.task_default_queue = os.environ["CELERY_SIDE_QUEUE"]
app.conf.broker_connection_retry_on_startup = True


@app.task  # type: ignore[untyped-decorator]  # Celery is untyped
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@app.task  # type: ignore[untyped-decorator]
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    """Give back what came."""
    return [list(args), kwargs]


@app.task  # type: ignore[untyped-decorator]
def fail(text: str) -> None:
    """Raise what every client knows."""
    raise ValueError(text)


@app.task(bind=True)  # type: ignore[untyped-decorator]
def who(self: Any) -> list[Any]:
    """Tell what Celery made of the message."""
    request = self.request
    return [request.id, request.root_id, request.parent_id, request.retries, request.argsrepr]


@app.task  # type: ignore[untyped-decorator]
def noop() -> None:
    """Do nothing."""
