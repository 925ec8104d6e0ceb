"""Messages for every system: one is sent by the system's own client, taken out again, and copied under new ids.

So all backlogs are written by the same hand, quickly, and are what each system would have sent.
"""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import amqp
import attrs

from tests.benchmarks.worker_systems import System
from tests.rabbit import wait_for

#: seconds that one message may take from a client to its queue
PATIENCE = 20.0
#: stands in a template for the moment of sending; in JSON it is written as here
SENT = 1111111111.125
#: an id of any kind: what follows the first is replaced wherever it stands
_IDS = re.compile(rb"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")


@attrs.frozen
class Template:
    """A message to copy."""

    queue: str
    body: bytes
    properties: Mapping[str, Any]

    @property
    def ids(self) -> list[bytes]:
        """Every id in it, of a task or of a message, once."""
        plain = self.body + repr(self.properties).encode()
        return sorted(set(_IDS.findall(plain)))

    def copy(self, ids: list[bytes], sent: float | None = None) -> Any:
        """Make another message of the same kind.

        :param ids: as `ids`, which takes a while.
        :param sent: what to put for SENT.
        """
        body, new = self.body, {}
        for old in ids:
            fresh = uuid.uuid4()
            new[old.decode()] = str(fresh) if b"-" in old else fresh.hex
            body = body.replace(old, new[old.decode()].encode())
        if sent is not None:
            body = body.replace(repr(SENT).encode(), f"{sent:.6f}".encode())
        make: Any = amqp.Message
        return make(body, **_renamed(self.properties, new))


def _renamed(value: Any, new: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(inner, new) for key, inner in value.items()}
    return new.get(value, value) if isinstance(value, str) else value


class BrokerConsole:
    """A connection that puts messages into queues and looks at them."""

    def __init__(self, broker: str, environment: Mapping[str, str]) -> None:
        url = urlsplit(broker)
        # the library's types are not right
        connect: Any = amqp.Connection
        self._connection = connect(f"{url.hostname}:{url.port}", userid=url.username, password=url.password)
        self._connection.connect()
        self._channel = self._connection.channel()
        self._environment = environment

    def template(self, system: System, queue: str, task: str, *args: object) -> Template:
        """Have the system's own client send a call, and take the message; the queue is as it declared it.

        :raises RuntimeError: if no message comes.
        """
        words = [sys.executable, "-m", "tests.benchmarks.worker_send", system.sender, task]
        sender = {**self._environment, "BENCH_QUEUE": queue}
        done = subprocess.run(
            words, input=repr(list(args)), env=sender, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode or not wait_for(lambda: self.depth(queue) == 1, PATIENCE):
            raise RuntimeError(f"{system.name} sent nothing: {done.stderr.strip()[-300:]}")
        got = self._channel.basic_get(queue, no_ack=True)
        body = got.body.encode() if isinstance(got.body, str) else bytes(got.body)
        return Template(queue, body, dict(got.properties))

    def put(self, template: Template, count: int) -> None:
        """Publish so many copies, and wait until they are all in the broker's hands."""
        ids = template.ids
        for _ in range(count):
            self._channel.basic_publish(template.copy(ids), routing_key=template.queue)
        # a question on the same channel is answered after all that was said before
        self.depth(template.queue)

    def put_paced(self, template: Template, moments: Iterable[float]) -> None:
        """Publish a copy at each moment that is yielded, which stands in it."""
        ids = template.ids
        for moment in moments:
            self._channel.basic_publish(template.copy(ids, moment), routing_key=template.queue)

    def depth(self, queue: str) -> int:
        """Tell how many messages are ready; -1 if there is no such queue."""
        try:
            return int(self._channel.queue_declare(queue, passive=True).message_count)
        except amqp.NotFound:
            self._channel = self._connection.channel()
            return -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._connection.close()


def plain_environment() -> dict[str, str]:
    """Return this environment without settings of ours."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("HYBRIDPOOL_", "BENCH_"))}
