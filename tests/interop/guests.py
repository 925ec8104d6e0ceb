"""A Celery app in our worker, and a Celery client that sends to it."""

import gc
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kombu.pools
from celery import Celery
from celery.canvas import Signature

from tests.workers import Worker


def new_queue() -> str:
    """Return a name that no other test uses."""
    return f"guest-{uuid.uuid4().hex}"


def worker_of(
    broker: str, backend: str, queue: str, *options: str, app: str = "celery_app", env: dict[str, str] | None = None
) -> Worker:
    """Start a worker for an app of tests/apps, and wait until it consumes."""
    told = {"GUEST_BROKER": broker, "GUEST_BACKEND": backend, "GUEST_QUEUE": queue, **(env or {})}
    worker = Worker(broker, queue, *(options or ("-c2",)), app=app, env=told, ready=0)
    try:
        worker.see(r"ready\.$")
    except BaseException:
        worker.destroy()
        raise
    return worker


@contextmanager
def client_of(broker: str, backend: str, queue: str) -> Iterator[Celery]:
    """Give a Celery client that knows no task, and leaves no connection behind."""
    app = Celery("client", broker=broker, backend=backend, set_as_current=False)
    app.conf.task_default_queue = queue
    try:
        yield app
    finally:
        # A result that is collected later would unsubscribe, and open a connection for that.
        gc.collect()
        consumer: Any = getattr(app.backend, "result_consumer", None)
        if backend.startswith("rpc") and consumer._consumer is not None:
            consumer.stop()
        if backend.startswith("redis"):
            consumer.subscribed_to = set()
            consumer.stop()
            app.backend.client.close()
            app.backend.client.connection_pool.disconnect()
        app.close()
        kombu.pools.reset()  # type: ignore[no-untyped-call]


def sig(client: Celery, name: str, *args: Any, **options: Any) -> Signature:
    """Return a signature of a task of `celery_app`."""
    return client.signature(f"celery_app.{name}", args=args, **options)
