"""A Celery app whose tasks publish, in all the ways that there are."""

import os
import threading
import time
from pathlib import Path
from typing import Any

from celery import Celery, signals
from kombu import entity
from kombu.exceptions import OperationalError

app = Celery("celery_publishing", broker=os.environ["GUEST_BROKER"], backend=os.environ["GUEST_BACKEND"])
app.conf.task_default_queue = os.environ["GUEST_QUEUE"]


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def at_start(**_: Any) -> None:
    """Publish outside of a task."""
    app.send_task("hello", queue=f"{app.conf.task_default_queue}-init")


@app.task  # type: ignore[untyped-decorator]
def send(queue: str, options: dict[str, Any]) -> None:
    """Send a task as told."""
    app.send_task("told", (1,), {"two": 2}, queue=queue, **options)


@app.task  # type: ignore[untyped-decorator]
def send_many(queue: str, count: int) -> None:
    """Send many, one after the other."""
    for number in range(count):
        app.send_task("one", (number,), queue=queue)


@app.task  # type: ignore[untyped-decorator]
def send_until(queue: str, path: str) -> int:
    """Send one after the other until a file is there; return how many."""
    number = 0
    while not Path(path).exists():
        app.send_task("one", (number,), queue=queue)
        number += 1
    return number


@app.task  # type: ignore[untyped-decorator]
def send_from_thread(queue: str) -> str:
    """Send from another thread, and from a process that was forked."""
    thread = threading.Thread(target=app.send_task, args=("thread",), kwargs={"queue": queue})
    thread.start()
    thread.join()
    pid = os.fork()
    if not pid:
        app.send_task("fork", queue=queue)
        os._exit(0)
    return f"fork {os.waitpid(pid, 0)[1]}"


@app.task  # type: ignore[untyped-decorator]
def send_by_topic(name: str) -> None:
    """Send to a queue and an exchange that nobody has declared."""
    kinds: Any = entity
    exchange = kinds.Exchange(f"{name}-topic", "topic")
    app.send_task("topic", queue=kinds.Queue(name, exchange, routing_key="a.#"), routing_key="a.b")


@app.task  # type: ignore[untyped-decorator]
def send_astray() -> None:
    """Send to an exchange that does not exist: the broker says so when it is too late to raise here."""
    app.send_task("astray", exchange="there-is-none", routing_key="x")


class SendsAfterwards(app.Task):  # type: ignore[misc, name-defined]
    """A task that sends a message astray when its success is recorded."""

    def on_success(self, *_: Any) -> None:
        """Send."""
        app.send_task("astray", exchange="there-is-none", routing_key="x")


@app.task(base=SendsAfterwards)  # type: ignore[untyped-decorator]
def send_afterwards() -> str:
    """Succeed."""
    return "done"


@app.task(bind=True)  # type: ignore[untyped-decorator]
def retry_astray(self: Any) -> None:
    """Be tried again by a message that the broker does not take."""
    self.retry(exchange="there-is-none", routing_key="x", countdown=0)


@app.task  # type: ignore[untyped-decorator]
def hold(path: str, value: int) -> int:
    """Say that it runs, and return when a file is there."""
    Path(f"{path}-{value}").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return value


@app.task  # type: ignore[untyped-decorator]
def echo(value: Any) -> Any:
    """Return what it is given."""
    return value


@app.task  # type: ignore[untyped-decorator]
def send_mandatory(queue: str) -> str:
    """Send what no queue takes, and catch the error."""
    try:
        app.send_task("nowhere", exchange="amq.direct", routing_key=queue, mandatory=True)
    except OperationalError as error:
        return str(error)
    return "sent"


@app.task(bind=True)  # type: ignore[untyped-decorator]
def send_events(self: Any, queue: str) -> int:
    """Send events of its own, and a task of which an event tells."""
    self.send_event("task-progress", percent=50)
    with app.events.default_dispatcher(hostname="till@shop") as dispatcher:
        dispatcher.send("shop-opened", till=3)
    app.conf.task_send_sent_event = True
    try:
        app.send_task("told", (1,), {"two": 2}, queue=queue)
    finally:
        app.conf.task_send_sent_event = False
    return os.getpid()


@app.task  # type: ignore[untyped-decorator]
def ping() -> Any:
    """Ask the workers, by a queue that belongs to one connection."""
    return app.control.ping(timeout=2.0)


@app.task  # type: ignore[untyped-decorator]
def talk(name: str) -> Any:
    """Consume over a connection of its own."""
    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue(name)
        queue.put({"said": "hello"})
        message = queue.get(timeout=20)
        message.ack()
        queue.close()
        connection.default_channel.queue_delete(name)
    return message.payload
