"""Messages that no Celery client sends, for a Celery app in our worker: each ends, and the worker goes on."""

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import amqp

from hybridpool._brokers.rabbitmq.amqp.table import write_table
from tests.interop.guests import client_of, new_queue, sig, worker_of
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE

JSON: Final = b"application/json"
#: with headers
PARTS: Final[dict[str, Any]] = {"group": "group", "group_index": 0}


class Raw(amqp.Message):
    """A message with these bytes for its properties."""

    def __init__(self, body: bytes, properties: bytes) -> None:
        super().__init__(body)
        self._raw = properties

    def _serialize_properties(self) -> bytes:
        return self._raw


def properties(table: bytes, content_type: bytes) -> bytes:
    """Encode a content type, the encoding UTF-8, and headers."""
    texts = b"".join(bytes([len(text)]) + text for text in (content_type, b"utf-8"))
    return struct.pack(">H", 1 << 15 | 1 << 14 | 1 << 13) + texts + table


def nested(depth: int) -> dict[str, Any]:
    """Return dicts in dicts."""
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"x": found}
    return found


def with_types(headers: Mapping[str, Any]) -> bytes:
    """Write headers, and one more of each type, with an odd value."""
    fields = {
        "b": b"\xff",
        "s": b"\xff\xff",
        "i": b"\xff" * 4,
        "l": b"\xff" * 8,
        "d": struct.pack(">d", 1e300),
        "D": b"\xff" * 5,
        "T": b"\x7f" + b"\xff" * 7,
        "t": b"\x05",
        "x": struct.pack(">I", 2) + b"\xff\x00",
        "S": struct.pack(">I", 2) + b"\xff\x00",
    }
    plain = write_table(headers)[4:]
    plain += b"".join(b"\x04odd" + letter.encode() * 2 + value for letter, value in fields.items())
    return struct.pack(">I", len(plain)) + plain


def with_bytes(**odd: str) -> Callable[[Mapping[str, Any]], bytes]:
    """Write headers, these among them; a Q in one stands for a byte that is not UTF-8."""
    return lambda headers: write_table({**headers, **odd}).replace(b"Q", b"\xff")


#: by name: the state in which it ends (None: nothing is told, as in Celery), and what is odd of it
CASES: Final[dict[str, tuple[str | None, dict[str, Any]]]] = {
    "args-5": ("FAILURE", {"body": [5, {}, {}]}),
    "args-text": ("SUCCESS", {"body": ["ab", {}, {}]}),
    "args-null": ("FAILURE", {"body": [None, {}, {}]}),
    "kwargs-list": ("FAILURE", {"body": [[1, 2], [1], {}]}),
    "kwargs-null": ("FAILURE", {"body": [[1, 2], None, {}]}),
    "embed-list": ("FAILURE", {"body": [[1, 2], {}, [1]]}),
    "embed-text": ("FAILURE", {"body": [[1, 2], {}, "text"]}),
    "embed-keys": (None, {"body": [[1, 2], {}, {"properties": 5, "delivery_info": 7, "id": 5, "get": 3}]}),
    "body-dict": ("FAILURE", {"body": {}}),
    "chord-text": ("SUCCESS", {"body": [[1, 2], {}, {"chord": "text"}], **PARTS}),
    "chord-of-a-failure": ("FAILURE", {"task": "fail", "body": [["no"], {}, {"chord": "text"}], **PARTS}),
    "chain-5": ("FAILURE", {"body": [[1, 2], {}, {"chain": 5}]}),
    "callbacks-text": ("FAILURE", {"body": [[1, 2], {}, {"callbacks": "text"}]}),
    "errbacks-5": ("FAILURE", {"task": "fail", "body": [["no"], {}, {"errbacks": 5}]}),
    "retries": ("SUCCESS", {"task": "retried", "body": [[10], {}, {}], "retries": 1_000_000_000}),
    "retries-auto": ("FAILURE", {"task": "autoretried", "body": [[], {}, {}], "retries": 1_000_000_000}),
    "retries-text": ("FAILURE", {"retries": "3"}),
    "eta-9999": (None, {"eta": "9999-12-31T23:59:59.999999-12:00"}),
    "eta-0001": ("SUCCESS", {"eta": "0001-01-01T00:00:00+14:00"}),
    "eta-text": ("FAILURE", {"eta": "soon"}),
    "expires-0001": ("REVOKED", {"expires": "0001-01-01T00:00:00+14:00"}),
    "expires-9999": ("SUCCESS", {"expires": "9999-12-31T23:59:59.999999-12:00"}),
    "limit-1e300": ("SUCCESS", {"timelimit": [1e300, 1e300]}),
    "limit-text": ("FAILURE", {"timelimit": "5"}),
    "task-large": ("FAILURE", {"task": "x" * 100_000}),
    "task-control": ("FAILURE", {"task": "a\nb\x1b[31m\x00"}),
    "task-bytes": (None, {"write": with_bytes(task="celery_app.Q")}),
    "id-bytes": (None, {"write": with_bytes(id="Q")}),
    "root-bytes": ("FAILURE", {"write": with_bytes(root_id="Q")}),
    "header-bytes": ("SUCCESS", {"write": with_bytes(shadow="Q")}),
    "name-bytes": ("SUCCESS", {"write": with_bytes(Q="")}),
    "group-5": ("FAILURE", {"group": 5}),
    "method-names": ("SUCCESS", {"get": 5, "update": "x", "pop": [1]}),
    "deep": ("SUCCESS", {"deep": nested(300)}),
    "large": ("SUCCESS", {"big": "b" * 100_000}),
    "types": ("SUCCESS", {"shadow": {"a": [1]}, "origin": b"\xff", "argsrepr": 5, "kwargsrepr": []}),
    "stamps-5": (None, {"stamps": 5}),
    "types-of-amqp": ("FAILURE", {"write": with_types}),
    "content-type-bytes": ("FAILURE", {"content_type": b"application/\xff"}),
    "content-type-parameter": ("FAILURE", {"content_type": JSON + b"; charset=\xff"}),
    "content-type-long": ("FAILURE", {"content_type": b"a" * 255}),
    "compression-5": ("SUCCESS", {"compression": 5}),
    "no-json": ("FAILURE", {"raw": b"\xff\xfe"}),
    "deep-json": ("FAILURE", {"raw": b"[[" + b"[" * 50_000 + b"]" * 50_000 + b"],{},{}]"}),
    "surrogate": ("FAILURE", {"task": "fail", "raw": b'[["\\ud800"],{},{}]'}),
    "empty": ("FAILURE", {"raw": b""}),
}


def send(console: BrokerConsole, name: str, odd: Mapping[str, Any], address: Mapping[str, Any]) -> None:
    """Publish one."""
    headers = dict(odd)
    body = json.dumps(headers.pop("body", [[1, 2], {}, {}])).encode()
    body = headers.pop("raw", body)
    task = headers.pop("task", "add")
    task = task if len(task) > 100 or "\n" in task else f"celery_app.{task}"
    write, content_type = headers.pop("write", write_table), headers.pop("content_type", JSON)
    table = write({"lang": "py", "task": task, "id": f"odd-{name}", **headers})
    console.publish(Raw(body, properties(table, content_type)), **address)


def test_odd_messages(rabbit_node: Node, redis: Redis) -> None:
    """Each odd message has the end that it has in Celery, or a plainer one; none ends the worker or stays in it."""
    queue = new_queue()
    with (
        worker_of(rabbit_node.url, redis.url, queue, "-c2", "-l", "INFO") as worker,
        client_of(rabbit_node.url, redis.url, queue) as client,
        BrokerConsole(rabbit_node.url) as console,
    ):
        for name, (_, odd) in CASES.items():
            send(console, name, odd, {"routing_key": queue})
        console.bind(queue, f"{queue}-topic", "#")
        send(console, "routing-key", {}, {"exchange": f"{queue}-topic", "routing_key": b"\xff"})
        expected = {name: state for name, (state, _) in CASES.items() if state} | {"routing-key": "SUCCESS"}

        def others() -> dict[str, str]:
            states = {name: client.AsyncResult(f"odd-{name}").state for name in expected}
            return {name: state for name, state in states.items() if state != expected[name]}

        wait_for(lambda: not others(), PATIENCE)
        assert others() == {}
        assert sig(client, "add", 1, 1).apply_async().get(timeout=PATIENCE) == 2
        assert not worker.seen("cannot be settled|could not be passed on")
        assert not worker.seen(r"Process .* exited with")
    with BrokerConsole(rabbit_node.url) as console:
        # the worker has ended: what it had not settled would be back
        assert console.depth(queue) == 0
