"""Celery's events as they come from the broker, and Celery's own state that follows them."""

import json
import threading
import uuid
from collections.abc import Callable
from typing import Any, Self

import attrs
from celery import Celery
from celery.events.state import State

from tests.rabbit import wait_for
from tests.workers import PATIENCE


@attrs.frozen
class Published:
    """One message of the events exchange."""

    routing_key: str
    headers: dict[str, Any]
    content_type: str
    delivery_mode: int
    body: Any


class EventLog:
    """Everything that is published to the events exchange, and Celery's `State` that follows it."""

    def __init__(self, client: Celery) -> None:
        self.published: list[Published] = []
        #: all events, in the order in which they came
        self.events: list[dict[str, Any]] = []
        self.state: State = client.events.State()
        self._client = client
        self._ending = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(PATIENCE)

    def of(self, task_id: str) -> list[dict[str, Any]]:
        """Return the events of a task that its worker has sent; a client's may come before or after these."""
        return [event for event in list(self.events) if event.get("uuid") == task_id and event["type"] != "task-sent"]

    def types(self, task_id: str) -> list[str]:
        """Return the types of a task's events."""
        return [event["type"].removeprefix("task-") for event in self.of(task_id)]

    def come(self, task_id: str, count: int) -> None:
        """Wait until so many events of a task have come."""
        assert wait_for(lambda: len(self.types(task_id)) >= count, PATIENCE), self.types(task_id)

    def see(self, task_id: str, *types: str) -> list[dict[str, Any]]:
        """Wait until a task's events have these types, in this order, and return them."""
        self.come(task_id, len(types))
        assert self.types(task_id) == list(types)
        return self.of(task_id)

    def wait(self, which: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for an event, and return it."""
        assert wait_for(lambda: any(map(which, list(self.events))), PATIENCE), self.events
        return next(event for event in self.events if which(event))

    def _follow(self) -> None:
        with self._client.connection_for_read() as connection:
            receiver = self._client.events.Receiver(connection, app=self._client)
            receiver.queue.name = f"{receiver.queue.name}.{uuid.uuid4().hex}"

            def take(message: Any) -> None:
                body = json.loads(message.body)
                self.published.append(
                    Published(
                        message.delivery_info["routing_key"],
                        dict(message.headers),
                        message.content_type,
                        message.properties["delivery_mode"],
                        body,
                    )
                )
                for event in body if isinstance(body, list) else [body]:
                    # Celery's workers take elections by themselves.
                    if not event["type"].startswith("worker-elect"):
                        self.state.event(receiver.event_from_message(dict(event))[1])
                    self.events.append(event)

            with connection.Consumer([receiver.queue], on_message=take, no_ack=True):
                self._ready.set()
                while not self._ending.is_set():
                    try:
                        connection.drain_events(timeout=0.1)
                    except TimeoutError:
                        continue
