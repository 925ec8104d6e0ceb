"""A Celery app in our worker: what Celery has around tasks: queues, routes, serializers, a database, old messages."""

import datetime as dt
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, group
from celery.exceptions import NotRegistered

from tests.interop.guests import client_of, new_queue, worker_of
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.workers import PATIENCE, Worker


@pytest.fixture(scope="module")
def queue() -> str:
    """The queue of this module's workers."""
    return new_queue()


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Results in a database."""
    return f"db+sqlite:///{tmp_path_factory.mktemp('results') / 'results.sqlite'}"


@pytest.fixture(scope="module")
def worker(rabbit_node: Node, backend: str, queue: str) -> Iterator[Worker]:
    """Our worker, with the app."""
    with worker_of(rabbit_node.url, backend, queue, "-c2", "-n", "one@test", app="celery_wide") as started:
        with BrokerConsole(rabbit_node.url) as console:
            # The finisher, which is made when it is needed first, is there before a test that needs it.
            console.call(queue, "celery_wide.gone")
        started.see(r"Finisher-1 \(pid \d+\) ready")
        yield started


@pytest.fixture
def client(worker: Worker, rabbit_node: Node, backend: str, queue: str) -> Iterator[Celery]:
    """A Celery client that has the app's settings of queues."""
    with client_of(rabbit_node.url, backend, queue) as app:
        app.conf.task_create_missing_queues = True
        app.conf.result_accept_content = ["json", "pickle"]
        yield app


def send(client: Celery, name: str, *args: object, **options: object) -> Any:
    """Send by name to the topic exchange, without declaring a queue; return the result."""
    queue = client.conf.task_default_queue
    route = {"exchange": f"{queue}.topic", "routing_key": f"{queue}.usual", "declare": [], **options}
    return client.send_task(f"celery_wide.{name}", args, **route).get(timeout=PATIENCE)


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_serializers(client: Celery, serializer: str) -> None:
    """A message in each serializer that the app accepts is run, compressed or not; the database has the result."""
    assert send(client, "add", 1, 2, serializer=serializer, compression="zlib") == 3
    assert send(client, "kind", {"a": 1}, serializer=serializer) == "dict"


def test_pid_of_started(client: Celery) -> None:
    """While a task runs, the result backend shows the pid of its own child, and not of the zygote."""
    shown, own = send(client, "pids")
    assert shown == own


def test_models(client: Celery) -> None:
    """A task of pydantic models gets and gives them."""
    assert send(client, "order", {"id": 7, "tags": ["a", "b"]}) == {"order": 7, "count": 2}


def test_maps(client: Celery) -> None:
    """Map, starmap and chunks run."""
    star, plain, chunks = send(client, "mapped")
    results = [client.AsyncResult(one).get(timeout=PATIENCE) for one in (star, plain)]
    assert results == [[2, 4], ["int", "str"]]
    assert client.GroupResult.restore(chunks).get(timeout=PATIENCE) == [[0, 2], [4, 6]]


def test_topics(client: Celery, queue: str, worker: Worker) -> None:
    """A queue with a pattern gets what matches it; a delayed message reaches it as Celery sends it."""
    key = f"{queue}.report.daily"
    assert send(client, "report", routing_key=key) == [f"{queue}.topic", key, {}]
    began = time.monotonic()
    eta = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    digits = ".".join(format(1, "028b"))
    sent = send(
        client, "report", exchange="celery_delayed_27", routing_key=f"{digits}.{key}", headers={"eta": eta.isoformat()}
    )
    assert sent[1].endswith(key)
    assert time.monotonic() - began >= 1.0


def test_direct_and_broadcast(client: Celery, queue: str, worker: Worker, rabbit_node: Node, backend: str) -> None:
    """Each worker has a queue of its own (`worker_direct`), and gets each message that is broadcast."""
    assert send(client, "report", exchange="C.dq2", routing_key="one@test")[:2] == ["C.dq2", "one@test"]
    with worker_of(rabbit_node.url, backend, queue, "-c1", "-n", "two@test", app="celery_wide") as other:
        options = {"exchange": f"{queue}.all", "routing_key": "all", "declare": [], "ignore_result": True}
        client.send_task("celery_wide.told", ["all"], **options)
        worker.see(r"told all to one@test")
        other.see(r"told all to two@test")


def test_stamps(client: Celery, queue: str) -> None:
    """A task sees the stamps of its message."""
    report = client.signature("celery_wide.report")
    report.set(exchange=f"{queue}.topic", routing_key=f"{queue}.usual", declare=[])
    report.stamp(batch="test")
    both = group([report.clone(), report.clone()], app=client)
    stamps = [stamps for _, _, stamps in both.apply_async().get(timeout=PATIENCE)]
    assert [one["batch"] for one in stamps] == ["test", "test"]


def test_protocol_one(client: Celery, queue: str, rabbit_node: Node, worker: Worker) -> None:
    """A message of protocol 1 is run, in its time; with its callback; an unknown task fails as another does."""
    eta = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.5)
    then = client.signature("celery_wide.add", args=(10,)).set(exchange=f"{queue}.topic", routing_key=f"{queue}.usual")
    body = {"id": str(uuid.uuid4()), "args": [1, 2], "kwargs": {}, "retries": 0, "utc": True}
    with BrokerConsole(rabbit_node.url) as console:
        for task, more in (
            ("add", {"eta": eta.replace(tzinfo=None).isoformat(), "callbacks": [dict(then)]}),
            ("missing", {"id": "first-missing"}),
        ):
            console.put(queue, json.dumps({**body, "task": f"celery_wide.{task}", **more}).encode(), {})
        assert client.AsyncResult(body["id"]).get(timeout=PATIENCE) == 3
        assert dt.datetime.now(dt.UTC) >= eta
        worker.see(r"Task celery_wide.add\[\S+\] succeeded in \S+: 13")
        with pytest.raises(NotRegistered):
            client.AsyncResult("first-missing").get(timeout=PATIENCE)
        console.put(queue, b"\x80\x04}.", {}, "application/x-python-serialize")
        assert wait_for(lambda: console.depth(f"{queue}.dead") == 3, PATIENCE)
