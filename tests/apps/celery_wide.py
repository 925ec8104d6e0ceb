"""A Celery app that uses what Celery has around tasks: queues of all kinds, routes, serializers, a database."""

import os
from typing import Any

from celery import Celery
from kombu.common import Broadcast
from kombu.entity import Exchange, Queue
from pydantic import BaseModel

NAME = os.environ["GUEST_QUEUE"]
#: Celery's libraries are untyped
queue: Any = Queue
exchange: Any = Exchange
broadcast: Any = Broadcast
topic = exchange(f"{NAME}.topic", type="topic")
QUORUM = {"x-queue-type": "quorum"}

app = Celery("celery_wide", broker=os.environ["GUEST_BROKER"], backend=os.environ["GUEST_BACKEND"])
app.conf.update(
    accept_content=["json", "pickle"],
    result_extended=True,
    task_default_exchange=topic.name,
    task_default_exchange_type="topic",
    task_default_queue=NAME,
    task_default_routing_key=f"{NAME}.usual",
    task_queues=[
        queue(NAME, topic, f"{NAME}.usual", queue_arguments=QUORUM),
        queue(f"{NAME}.reports", topic, f"{NAME}.report.#", queue_arguments=QUORUM),
        broadcast(f"{NAME}.all"),
    ],
    task_routes={
        "celery_wide.report": {"exchange": topic.name, "routing_key": f"{NAME}.report.daily"},
        "celery_wide.told": {"queue": f"{NAME}.all", "exchange": f"{NAME}.all"},
    },
    task_track_started=True,
    worker_direct=True,
)


class Order(BaseModel):
    """What comes in."""

    id: int
    tags: list[str] = []


class Receipt(BaseModel):
    """What goes out."""

    order: int
    count: int


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@app.task
def kind(value: Any) -> str:
    """Tell what came."""
    return type(value).__name__


@app.task(pydantic=True)
def order(placed: Order) -> Receipt:
    """Take and give models."""
    return Receipt(order=placed.id, count=len(placed.tags))


@app.task(bind=True)
def pids(self: Any) -> list[int]:
    """Tell the pid that the result backend shows while this runs, and that of this process."""
    return [self.AsyncResult(self.request.id).info["pid"], os.getpid()]


@app.task(bind=True)
def report(self: Any) -> list[Any]:
    """Tell how the message came."""
    info = self.request.delivery_info
    return [info["exchange"], info["routing_key"], self.request.stamps]


@app.task(bind=True)
def told(self: Any, text: str) -> None:
    """Tell the log, in each worker."""
    print(f"told {text} to {self.request.hostname}")


@app.task
def mapped() -> Any:
    """Send a map, a starmap and chunks."""
    sent = add.starmap([(1, 1), (2, 2)]), kind.map([1, "a"]), add.chunks([(i, i) for i in range(4)], 2).group()
    return [one.apply_async().id for one in sent[:2]] + [sent[2].apply_async().save().id]
