"""A real Celery on the other end: its client sends to our worker, our client sends to its worker."""

import datetime as dt
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import kombu.pools
import pytest
from billiard.exceptions import WorkerLostError
from celery import Celery
from celery.exceptions import NotRegistered, TaskRevokedError
from celery.result import AsyncResult
from kombu.entity import Queue

from hybridpool import App
from hybridpool.errors import NotRegistered as OurNotRegistered
from tests.queues import BrokerConsole
from tests.rabbit import Node
from tests.workers import PATIENCE, Program, Worker, client_of

#: what JSON does not have, and Celery's client sends all the same
VALUES = [
    dt.datetime(2026, 3, 1, 12, 30, 15, 250, tzinfo=dt.UTC),
    dt.datetime(2026, 3, 1, 12, 30),  # noqa: DTZ001  a naive one must stay naive
    dt.date(2026, 3, 1),
    dt.time(12, 30, 15),
    uuid.UUID("12345678-1234-4234-9234-123456789abc"),
    Decimal("3.140"),
    b"text",
    b"\x00\xff\xfe",
]
TYPES = ["datetime", "datetime", "date", "time", "UUID", "Decimal", "bytes", "bytes"]

#: a call, and what must come back: a value, or an exception
Case = tuple[str, tuple[Any, ...], dict[str, Any], object]


@contextmanager
def celery_client(broker: str, queue: str) -> Iterator[Celery]:
    """Give a Celery client that leaves no connection behind."""
    app = Celery("client", broker=broker, backend="rpc://", set_as_current=False)
    app.conf.task_default_queue = queue
    try:
        yield app
    finally:
        app.backend.result_consumer.stop()
        app.close()
        kombu.pools.reset()  # type: ignore[no-untyped-call]


def queue_of(name: str, arguments: dict[str, Any] | None = None) -> Queue:
    """Return a queue as Celery programs declare them."""
    return Queue(name, queue_arguments=arguments)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def queue() -> str:
    """The queue of this file's worker."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def worker(rabbit_node: Node, queue: str) -> Iterator[Worker]:
    """Our worker."""
    with Worker(rabbit_node.url, queue, "-c2", "-l", "INFO", ready=0) as started:
        started.see(r"ready\.$")
        yield started


@pytest.fixture
def client(worker: Worker, rabbit_node: Node, queue: str) -> Iterator[Celery]:
    """A Celery client on the worker's queue."""
    with celery_client(rabbit_node.url, queue) as app:
        yield app


# ---- Celery's client → our worker ------------------------------------------------------------------------------------


def test_issue_line(client: Celery) -> None:
    """A Celery client's call runs on our worker, and `get` returns its result."""
    assert client.send_task("worker.add", (2, 3)).get(timeout=PATIENCE) == 5


def cases() -> Iterator[Case]:
    """Yield a thousand calls of all kinds, and what each must give."""
    for number in range(1000):
        kinds: list[Callable[[int], Case]] = [
            lambda n: ("worker.add", (n, 1), {}, n + 1),
            lambda n: ("worker.add", (), {"x": n, "y": 2}, n + 2),
            lambda n: ("worker.echo", (n, "ümläut ✓ 🐇"), {"schlüssel": [None, True, 0.5]}, None),
            lambda n: ("worker.fail", (f"no {n}",), {}, ValueError(f"no {n}")),
            lambda n: ("worker.big", (n * 10,), {}, "x" * n * 10),
        ]
        name, args, kwargs, expected = kinds[number % len(kinds)](number)
        yield name, args, kwargs, [list(args), kwargs] if name == "worker.echo" else expected
    megabyte = "ä" * 500_000
    yield "worker.echo", (megabyte,), {}, [[megabyte], {}]


def test_a_thousand_tasks(client: Celery, queue: str, broker_url: str) -> None:
    """A thousand calls of a Celery client each get the answer and the state that Celery's own worker would give."""
    sent: list[tuple[Case, AsyncResult]] = [(case, client.send_task(case[0], case[1], case[2])) for case in cases()]
    for (name, args, _, expected), result in sent:
        value = result.get(timeout=PATIENCE, propagate=False)
        if isinstance(expected, Exception):
            assert (type(value), value.args) == (type(expected), expected.args)
            assert result.state == "FAILURE"
        else:
            assert value == expected, (name, str(args)[:80])
            assert result.state == "SUCCESS"
    with BrokerConsole(broker_url) as console:
        assert console.depth(queue) == 0
        assert console.depth(f"{queue}.dead") == -1


def test_values(client: Celery) -> None:
    """Dates, UUIDs, Decimals and bytes keep their types in the task and in its answer."""
    assert client.send_task("worker.shapes", VALUES).get(timeout=PATIENCE) == TYPES
    assert client.send_task("worker.echo", VALUES).get(timeout=PATIENCE) == [VALUES, {}]


def test_exceptions(client: Celery) -> None:
    """A Celery client gets the task's exception with its type, its arguments and its traceback."""
    failed = client.send_task("worker.fail", ("no way",))
    with pytest.raises(ValueError, match="no way"):
        failed.get(timeout=PATIENCE)
    assert failed.traceback.startswith("Traceback (most recent call last):\n")
    assert re.search(r'File ".*worker\.py", line \d+, in fail\n    raise ValueError\(text\)\n', failed.traceback)
    assert failed.traceback.rstrip().endswith("ValueError: no way")
    # a type that the client has not imported: Celery makes one of that name
    unlucky = client.send_task("worker.fail_unlucky", ("thirteen",)).get(timeout=PATIENCE, propagate=False)
    assert (type(unlucky).__name__, unlucky.args) == ("Unlucky", ("thirteen", 13))
    with pytest.raises(TypeError, match="object has no JSON form"):
        client.send_task("worker.unsendable").get(timeout=PATIENCE)


def test_refusals(client: Celery, queue: str, broker_url: str) -> None:
    """A Celery client gets an exception for an unknown task, wrong arguments, and an expired task."""
    with pytest.raises(NotRegistered, match=r"worker\.ad"):
        client.send_task("worker.ad", (2, 3)).get(timeout=PATIENCE)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        client.send_task("worker.add", (2,)).get(timeout=PATIENCE)
    late = client.send_task("worker.add", (2, 3), expires=dt.datetime.now(dt.UTC) - dt.timedelta(hours=1))
    with pytest.raises(TaskRevokedError, match="expired"):
        late.get(timeout=PATIENCE)
    assert late.state == "REVOKED"
    with BrokerConsole(broker_url) as console:
        console.until_depth(f"{queue}.dead", 2)
        console.take(f"{queue}.dead")
        console.take(f"{queue}.dead")
        console.delete(f"{queue}.dead")


def test_child_lost(broker_url: str, queue_name: str) -> None:
    """A Celery client gets WorkerLostError when a task's child dies."""
    with Worker(broker_url, queue_name, "-c1"), celery_client(broker_url, queue_name) as client:
        with pytest.raises(WorkerLostError, match=r"Worker exited prematurely: signal 9 \(SIGKILL\)"):
            client.send_task("worker.kill_self").get(timeout=PATIENCE)
        assert client.send_task("worker.add", (2, 3)).get(timeout=PATIENCE) == 5


def test_ignored_result(client: Celery, worker: Worker) -> None:
    """No answer is sent for a call that ignores its result."""
    ignored = client.send_task("worker.add", (2, 3), ignore_result=True)
    assert client.send_task("worker.add", (3, 4)).get(timeout=PATIENCE) == 7
    worker.see(rf"Task worker\.add\[{ignored.id}\] succeeded")
    assert ignored.get(timeout=1) is None


def test_queue_that_celery_declared(broker_url: str, queue_name: str) -> None:
    """A queue that a Celery client declared first, with other arguments, is used as it is, with one warning."""
    with celery_client(broker_url, queue_name) as client:
        client.conf.task_queues = [queue_of(queue_name, {"x-max-priority": 5})]
        first = client.send_task("worker.add", (2, 3), priority=3)
        with Worker(broker_url, queue_name, "-c1") as worker:
            assert first.get(timeout=PATIENCE) == 5
            told = worker.see(
                rf"WARNING/MainProcess\] Queue {queue_name} exists with other arguments and is used as it is"
            )
            assert "x-max-priority" in told[0].string
            assert len(worker.seen("exists with other arguments")) == 1
            assert client.send_task("worker.add", (3, 4)).get(timeout=PATIENCE) == 7


def test_queue_that_we_declared(broker_url: str, queue_name: str) -> None:
    """A Celery client can declare and use a queue that our worker declared first."""
    with Worker(broker_url, queue_name, "-c1"), celery_client(broker_url, queue_name) as client:
        client.conf.task_queues = [queue_of(queue_name)]
        assert client.send_task("worker.add", (2, 3)).get(timeout=PATIENCE) == 5


# ---- our client → Celery's worker ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def celery_worker(rabbit_node: Node) -> Iterator[str]:
    """A real Celery worker; gives its queue."""
    name = f"test-{uuid.uuid4().hex}"
    quick = ("--without-mingle", "--without-gossip", "--without-heartbeat")
    words = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "celery_side",
        "worker",
        "-c1",
        "-P",
        "prefork",
        "-l",
        "INFO",
        *quick,
    ]
    env = {"CELERY_SIDE_BROKER": rabbit_node.url, "CELERY_SIDE_QUEUE": name}
    with Program(words, env=env) as program:
        program.see(r"ready\.$")
        # it is killed at the end: an orderly stop of Celery takes five seconds
        yield name


@pytest.fixture
def ours(celery_worker: str, broker_url: str) -> Iterator[App]:
    """Our client on Celery's queue."""
    with client_of(broker_url, celery_worker) as app:
        yield app


def test_our_call(ours: App) -> None:
    """Our client's calls run on Celery's worker, and their results come back."""
    assert ours.send_task("celery_side.add", (2,), {"y": 3}).get(PATIENCE) == 5
    handles = [ours.send_task("celery_side.add", (number, 1)) for number in range(100)]
    assert [handle.get(PATIENCE) for handle in handles] == list(range(1, 101))


def test_our_values(ours: App) -> None:
    """Values that our client sends to Celery's worker come back equal."""
    sent = [*VALUES, "ümläut ✓ 🐇", None, 0.5, {"a": [1, 2]}, "ä" * 500_000]
    assert ours.send_task("celery_side.echo", sent, {"schlüssel": 1}).get(PATIENCE) == [sent, {"schlüssel": 1}]


def test_our_head(ours: App) -> None:
    """Celery's worker sees our call's ID as its own and as its root, and no parent."""
    handle = ours.send_task("celery_side.who")
    assert handle.get(PATIENCE) == [handle.id, handle.id, None, 0, "()"]


def test_exceptions_of_celery(ours: App) -> None:
    """Exceptions of Celery's worker arrive with their type and traceback; an unknown task raises NotRegistered."""
    with pytest.raises(ValueError, match="no way") as failed:
        ours.send_task("celery_side.fail", ("no way",)).get(PATIENCE)
    assert "in fail\n    raise ValueError(text)" in failed.value.__notes__[0]
    with pytest.raises(OurNotRegistered, match=r"celery_side\.nothing"):
        ours.send_task("celery_side.nothing").get(PATIENCE)
