"""Queues seen with another client's eyes (py-amqp, which Celery uses): raw messages in and out, how many there are."""

import json
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import amqp
import attrs

from tests.rabbit import wait_for
from tests.workers import PATIENCE


@attrs.frozen
class Message:
    """What lay in a queue."""

    body: bytes
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    redelivered: bool


class BrokerConsole:
    """A connection for one test."""

    def __init__(self, broker: str) -> None:
        url = urlsplit(broker)
        self._connection = amqp.Connection(f"{url.hostname}:{url.port}", userid=url.username, password=url.password)
        self._connection.connect()
        self._channel = self._connection.channel()

    def declare(self, queue: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Make a durable queue."""
        self._channel.queue_declare(queue, durable=True, auto_delete=False, arguments=dict(arguments or {}))

    def delete(self, queue: str) -> None:
        """Remove a queue with its messages."""
        self._channel.queue_delete(queue)

    def put(
        self, queue: str, body: bytes, headers: Mapping[str, Any], content_type: str | None = "application/json"
    ) -> None:
        """Publish to a queue."""
        properties = {} if content_type is None else {"content_type": content_type, "content_encoding": "utf-8"}
        message = amqp.Message(body, application_headers=dict(headers), delivery_mode=2, **properties)
        self._channel.basic_publish(message, routing_key=queue)

    def publish(self, message: amqp.Message, **address: Any) -> None:
        """Publish a message as it is."""
        self._channel.basic_publish(message, **address)

    def bind(self, queue: str, exchange: str, key: str) -> None:
        """Make a topic exchange, and bind a queue to it; the exchange is gone with the binding."""
        self._channel.exchange_declare(exchange, "topic", durable=False, auto_delete=True)
        self._channel.queue_bind(queue, exchange, key)

    def call(self, queue: str, task: str, *args: object, body: bytes | None = None, **headers: Any) -> str:
        """Publish a task message of protocol 2; returns its id."""
        task_id = str(uuid.uuid4())
        plain = json.dumps([args, {}, {}]).encode() if body is None else body
        self.put(queue, plain, {"lang": "py", "task": task, "id": task_id, **headers})
        return task_id

    def order(self, order: Mapping[str, Any]) -> None:
        """Tell all workers something, as `celery control` does; they must have declared the exchange."""
        message = amqp.Message(json.dumps(order).encode(), content_type="application/json", content_encoding="utf-8")
        self._channel.basic_publish(message, exchange="celery.pidbox")

    def depth(self, queue: str) -> int:
        """Tell how many messages are ready; -1 if the queue does not exist."""
        try:
            return int(self._channel.queue_declare(queue, passive=True).message_count)
        except amqp.NotFound:
            self._channel = self._connection.channel()
            return -1

    def until_depth(self, queue: str, depth: int, within: float = PATIENCE) -> None:
        """Wait until so many messages are ready; the broker announces nothing, so each look asks it."""
        if not wait_for(lambda: self.depth(queue) == depth, within):
            raise AssertionError(f"{queue} holds {self.depth(queue)} messages after {within:g} s, not {depth}")

    def take(self, queue: str) -> Message:
        """Take one message out.

        :raises AssertionError: if there is none.
        """
        got = self._channel.basic_get(queue, no_ack=True)
        assert got is not None, f"{queue} is empty"
        properties = dict(got.properties)
        headers = properties.pop("application_headers", {})
        body = got.body.encode() if isinstance(got.body, str) else bytes(got.body)
        return Message(body, headers, properties, bool(got.delivery_info["redelivered"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._connection.close()
