"""What a Celery app's tasks publish goes through the parent: as they wrote it, confirmed, over its connections."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from celery import Celery, chain, chord
from celery.exceptions import ChordError
from kombu.exceptions import OperationalError

from tests.interop.event_log import EventLog
from tests.interop.guests import client_of, new_queue, worker_of
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Worker

APP = "celery_publishing"
#: seconds for which the worker's clients wait for a connection
TIMEOUT_S = 1
#: of a message: all that a client can say about it
OPTIONS = {
    "priority": 3,
    "delivery_mode": 1,
    "expiration": 600.0,
    "headers": {"x-own": "header", "x-number": 5, "x-list": [1, {"a": None}]},
    "app_id": "shop",
    "message_id": "m-1",
    "type": "a type",
    "timestamp": 1_700_000_000,
    "correlation_id": "c-1",
    "reply_to": "somewhere",
    "task_id": "t-1",
    "serializer": "pickle",
    "compression": "zlib",
}


@pytest.fixture(scope="module")
def queue() -> str:
    """The queue of this module's worker."""
    return new_queue()


@pytest.fixture(scope="module")
def worker(rabbit_node: Node, redis: Redis, queue: str) -> Iterator[Worker]:
    """Our worker, with an app that publishes."""
    with worker_of(rabbit_node.url, redis.url, queue, "-c2", f"--connection-timeout={TIMEOUT_S}s", app=APP) as started:
        yield started


@pytest.fixture
def client(worker: Worker, rabbit_node: Node, redis: Redis, queue: str) -> Iterator[Celery]:
    """A Celery client."""
    with client_of(rabbit_node.url, redis.url, queue) as app:
        yield app


@pytest.fixture
def console(rabbit_node: Node) -> Iterator[BrokerConsole]:
    """Who looks into queues."""
    with BrokerConsole(rabbit_node.url) as made:
        yield made


def run(client: Celery, name: str, *args: object) -> object:
    """Run a task, and wait for its result."""
    return client.send_task(f"{APP}.{name}", args).get(timeout=PATIENCE)


def test_message_is_the_same(client: Celery, console: BrokerConsole) -> None:
    """Properties, headers and body are those of the message that a Celery client sends."""
    ours, theirs = new_queue(), new_queue()
    run(client, "send", ours, OPTIONS)
    client.send_task("told", (1,), {"two": 2}, queue=theirs, **OPTIONS)
    got, wanted = console.take(ours), console.take(theirs)
    assert got.properties == wanted.properties
    assert (got.properties["priority"], got.properties["expiration"], got.properties["app_id"]) == (3, "600000", "shop")
    differing = {name for name, value in got.headers.items() if wanted.headers.get(name) != value}
    # The task that sent it is this one's parent.
    assert differing == {"origin", "root_id", "parent_id"}
    assert got.headers["x-list"] == [1, {"a": None}]
    assert got.body == wanted.body
    for name in (ours, theirs):
        console.delete(name)


def test_many_are_confirmed_before_the_outcome(client: Celery, console: BrokerConsole) -> None:
    """When a task's success is known, all that it has sent is in its queue, in order."""
    name, count = new_queue(), 1000
    run(client, "send_many", name, count)
    assert console.depth(name) == count
    assert [json.loads(console.take(name).body)[0] for _ in range(count)] == [[number] for number in range(count)]
    console.delete(name)


def test_connection_lost(client: Celery, rabbit_node: Node, tmp_path: Path) -> None:
    """What a task sends while the connection is lost arrives; the task does not notice."""
    name, path = new_queue(), tmp_path / "enough"
    result = client.send_task(f"{APP}.send_until", (name, str(path)))
    with BrokerConsole(rabbit_node.url) as console:
        assert wait_for(lambda: console.depth(name) > 100, PATIENCE)
    rabbit_node.ctl("close_all_connections", "the test closes it")
    with BrokerConsole(rabbit_node.url) as console:
        before = console.depth(name)
        assert wait_for(lambda: console.depth(name) > before, PATIENCE)
        path.touch()
        count = result.get(timeout=PATIENCE)
        # Each at least once: a confirmation may have been lost.
        came = {json.loads(console.take(name).body)[0][0] for _ in range(console.depth(name))}
        assert came == set(range(count))
        console.delete(name)


def test_broker_away(client: Celery, worker: Worker, rabbit_node: Node, tmp_path: Path) -> None:
    """What follows from a task that ends while the broker is away is sent afterwards: chains and chords go on."""
    path = tmp_path / "enough"
    held = [client.signature(f"{APP}.hold", (str(path), number)) for number in (1, 2)]
    results = [
        chain(held[0], client.signature(f"{APP}.echo"), app=client).apply_async(),
        chord([held[1]], client.signature(f"{APP}.echo"), app=client).apply_async(),
    ]
    assert wait_for(lambda: all(Path(f"{path}-{number}").exists() for number in (1, 2)), PATIENCE)
    rabbit_node.ctl("stop_app")
    try:
        path.touch()
        # The pauses before the last attempt to connect are over.
        assert wait_for(lambda: sum(pauses(worker)[:-1]) > 2 * TIMEOUT_S, PATIENCE)
    finally:
        rabbit_node.ctl("start_app")
    assert [result.get(timeout=PATIENCE) for result in results] == [1, [2]]


def pauses(worker: Worker) -> list[float]:
    """Return the seconds between attempts to connect, as the log says them."""
    return [float(found) for found in re.findall(r"Trying again in ([\d.]+) seconds", worker.text)]


def test_beside_the_task(client: Celery, console: BrokerConsole, queue: str) -> None:
    """Threads, processes that a task has forked, and hooks publish as well."""
    name = new_queue()
    assert run(client, "send_from_thread", name) == "fork 0"
    assert sorted(console.take(name).headers["task"] for _ in range(2)) == ["fork", "thread"]
    assert wait_for(lambda: console.depth(f"{queue}-init") >= 2, PATIENCE)
    for one in (name, f"{queue}-init"):
        console.delete(one)


def test_what_is_declared(client: Celery, console: BrokerConsole) -> None:
    """An exchange and a queue that nobody has declared are, with their binding, before something is sent to them."""
    name = new_queue()
    run(client, "send_by_topic", name)
    assert console.take(name).headers["task"] == "topic"
    console.delete(name)


def test_what_the_broker_refuses(client: Celery) -> None:
    """What cannot be published raises `OperationalError`: at the call if it is mandatory, or else at the task's end."""
    assert "NO_ROUTE" in str(run(client, "send_mandatory", new_queue()))
    with pytest.raises(OperationalError, match="NOT_FOUND"):
        run(client, "send_astray")
    with pytest.raises(OperationalError, match="NOT_FOUND"):
        run(client, "retry_astray")


def test_what_the_broker_refuses_afterwards(client: Celery, worker: Worker) -> None:
    """A chord's body that cannot be sent has failed; a recorded success stays one, and the log says what is missing."""
    echo = client.signature(f"{APP}.echo", (1,))
    astray = client.signature(f"{APP}.echo", exchange="there-is-none", routing_key="x")
    result = chord([echo, echo], astray, app=client).apply_async()
    with pytest.raises(ChordError, match="NOT_FOUND"):
        result.get(timeout=PATIENCE)
    assert [part.get(timeout=PATIENCE) for part in result.parent] == [1, 1]
    assert run(client, "send_afterwards") == "done"
    worker.see(r"send_afterwards\[.*\] has ended, but a message was not sent: .*NOT_FOUND")


def test_events_of_a_task(client: Celery, console: BrokerConsole, worker: Worker, rabbit_node: Node) -> None:
    """A task's own events, and `task-sent` of a task that it sends, reach Celery's `Receiver` through the parent."""
    name = new_queue()
    with EventLog(client) as log:
        result = client.send_task(f"{APP}.send_events", (name,))
        pid = result.get(timeout=PATIENCE)
        progress = log.wait(lambda event: event["type"] == "task-progress")
        opened = log.wait(lambda event: event["type"] == "shop-opened")
        sent = log.wait(lambda event: event["type"] == "task-sent")
    assert (progress["uuid"], progress["percent"], progress["pid"]) == (result.id, 50, pid)
    assert progress["hostname"] in worker.text
    assert (opened["hostname"], opened["till"], opened["pid"]) == ("till@shop", 3, pid)
    assert (sent["name"], sent["queue"], sent["parent_id"], sent["pid"]) == ("told", name, result.id, pid)
    assert [event["type"] for event in log.events].count("task-sent") == 1
    assert console.take(name).headers["id"] == sent["uuid"]
    assert not [child for child in worker.children() if connections(child, rabbit_node)]
    console.delete(name)


def test_connections(client: Celery, worker: Worker, rabbit_node: Node) -> None:
    """The worker has two connections to the broker, however many children publish; one that consumes has its own."""
    run(client, "send_many", name := new_queue(), 1)
    children = [child for child in worker.children() if connections(child, rabbit_node)]
    assert not children
    assert len(connections(worker.main, rabbit_node)) == 2
    assert run(client, "talk", new_queue()) == {"said": "hello"}
    answers = run(client, "ping")
    assert isinstance(answers, list)
    assert {"ok": "pong"} in [answer for one in answers for answer in one.values()]
    with BrokerConsole(rabbit_node.url) as console:
        console.delete(name)


def connections(process: psutil.Process, node: Node) -> list[object]:
    """Return the connections of a process to a broker."""
    return [one for one in process.net_connections("tcp") if getattr(one.raddr, "port", 0) == node.port]
