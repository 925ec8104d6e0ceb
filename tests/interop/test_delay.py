"""Delays between Celery and us: its countdowns in our worker, and shared delay queues, whichever side declared them."""

import datetime as dt
import re
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.transport.native_delayed_delivery import (
    bind_queue_to_native_delayed_delivery_exchange,
    declare_native_delayed_delivery_exchanges_and_queues,
)

from tests.interop.test_celery_client import celery_client
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.workers import PATIENCE, Worker, client_of

#: seconds by which clocks may differ over a delay
ROUNDING = 0.05
POSTPONED = r"came \d+\.\d s before its time; the broker holds it"


@pytest.fixture(scope="module")
def queue() -> str:
    """The queue of this file's worker."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def worker(rabbit_node: Node, queue: str) -> Iterator[Worker]:
    """Our worker."""
    with Worker(rabbit_node.url, queue, "-c2", app="delayed.app", ready=2) as started:
        yield started


@pytest.fixture
def client(worker: Worker, rabbit_node: Node, queue: str) -> Iterator[Celery]:
    """A Celery client on the worker's queue."""
    with celery_client(rabbit_node.url, queue) as app:
        yield app


@pytest.fixture
def stamps(tmp_path: Path) -> Path:
    """Where tasks note when they run."""
    return tmp_path / "stamps"


@pytest.fixture
def fresh(rabbit_node: Node) -> Iterator[str]:
    """A virtual host without a ladder; gives its address."""
    name = f"test-{uuid.uuid4().hex}"
    rabbit_node.ctl("add_vhost", name)
    rabbit_node.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    yield rabbit_node.url.removesuffix("//") + f"/{name}"
    rabbit_node.ctl("delete_vhost", name)


def times(stamps: Path) -> list[float]:
    """Return when tasks ran."""
    return [float(line) for line in stamps.read_text().splitlines()]


def until_idle(node: Node, queue: str) -> None:
    """Wait until the queue has no message, ready or delivered."""
    row = re.compile(rf"^{queue}\t0\t0$", re.MULTILINE)
    columns = ("name", "messages_ready", "messages_unacknowledged")
    assert wait_for(lambda: bool(row.search(node.ctl("list_queues", *columns))), PATIENCE)


# ---- Celery's client → our worker ------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["countdown", "eta", "a moment"])
def test_not_before_its_time(client: Celery, stamps: Path, queue: str, broker_url: str, option: str) -> None:
    """A Celery client's call with a countdown or an ETA runs once, and not before its time."""
    # the last: so near that the worker itself waits for it
    seconds = 0.7 if option == "a moment" else 2
    began = time.monotonic()
    if option == "eta":
        when: dict[str, Any] = {"eta": dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)}
    else:
        when = {"countdown": seconds}
    ran = client.send_task("delayed.stamp", (str(stamps),), **when).get(timeout=PATIENCE)
    assert ran - began >= seconds - ROUNDING
    assert client.send_task("delayed.stamp", (str(stamps),)).get(timeout=PATIENCE) > ran
    assert len(times(stamps)) == 2
    with BrokerConsole(broker_url) as console:
        assert console.depth(queue) == 0
        assert console.depth(f"{queue}.dead") == -1


def test_nothing_is_held_in_the_worker(
    client: Celery, worker: Worker, rabbit_node: Node, stamps: Path, queue: str
) -> None:
    """A countdown of a Celery client leaves no unacknowledged message in the worker."""
    before = len(worker.seen(POSTPONED))
    for _ in range(30):
        client.send_task("delayed.stamp", (str(stamps),), countdown=3600)
    worker.see(POSTPONED, before + 30)
    until_idle(rabbit_node, queue)
    client.send_task("delayed.stamp", (str(stamps),)).get(timeout=PATIENCE)
    assert len(times(stamps)) == 1


def test_expires_before_its_time(client: Celery, stamps: Path) -> None:
    """A task that expires before its ETA is revoked, does not run, and its caller is told."""
    late = client.send_task("delayed.stamp", (str(stamps),), countdown=3, expires=2)
    with pytest.raises(TaskRevokedError, match="expired"):
        late.get(timeout=PATIENCE)
    assert not stamps.exists()


def test_worker_killed_meanwhile(broker_url: str, rabbit_node: Node, queue_name: str, stamps: Path) -> None:
    """Countdowns that a killed worker had seen run once each on the next worker."""
    with celery_client(broker_url, queue_name) as client:
        with Worker(broker_url, queue_name, "-c1", app="delayed.app") as first:
            began = time.monotonic()
            waiting = [client.send_task("delayed.stamp", (str(stamps),), countdown=6) for _ in range(5)]
            first.see(POSTPONED, 5)
            until_idle(rabbit_node, queue_name)
            first.send(signal.SIGKILL)
            first.wait()
        with Worker(broker_url, queue_name, "-c1", app="delayed.app"):
            ran = [result.get(timeout=PATIENCE) for result in waiting]
    assert min(ran) - began >= 6 - ROUNDING
    assert sorted(times(stamps)) == sorted(ran)


# ---- one ladder ------------------------------------------------------------------------------------------------------


def quorum_queue(name: str) -> Queue:
    """Return a queue for which Celery delays natively."""
    exchange = Exchange(name, type="topic")  # type: ignore[no-untyped-call]
    arguments = {"x-queue-type": "quorum"}
    return Queue(name, exchange, routing_key=name, queue_arguments=arguments)  # type: ignore[no-untyped-call]


def declare_queue(broker: str, name: str) -> None:
    """Declare such a queue as Celery does."""
    connection: Any = Connection(broker)  # type: ignore[no-untyped-call]
    with connection:
        quorum_queue(name).bind(connection.channel()).declare()  # type: ignore[no-untyped-call]


def declare_ladder(broker: str, name: str, kind: str) -> None:
    """Declare the ladder and its way to a queue as a Celery worker does when it starts."""
    connection: Any = Connection(broker)  # type: ignore[no-untyped-call]
    with connection:
        declare_native_delayed_delivery_exchanges_and_queues(connection, kind)
        bind_queue_to_native_delayed_delivery_exchange(connection, quorum_queue(name))


def check_both(broker: str, name: str, stamps: Path) -> None:
    """Fail unless delayed calls of either client run once each, in their time, in our worker."""
    with client_of(broker, name) as ours, celery_client(broker, name) as celerys:
        celerys.conf.task_queues = [quorum_queue(name)]
        before = len(times(stamps)) if stamps.exists() else 0
        began = time.monotonic()
        mine = [ours.send_task("delayed.stamp", (str(stamps),), countdown=2) for _ in range(5)]
        theirs = [celerys.send_task("delayed.stamp", (str(stamps),), countdown=2) for _ in range(5)]
        ran = [handle.get(PATIENCE) for handle in mine] + [result.get(timeout=PATIENCE) for result in theirs]
        # Celery counts whole seconds from a moment that has passed already, and leaves the rest to the worker
        assert min(ran) - began >= 2 - ROUNDING
        celerys.send_task("delayed.stamp", (str(stamps),)).get(timeout=PATIENCE)
        assert len(times(stamps)) == before + 11


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_ladder_that_celery_declared(fresh: str, queue_name: str, stamps: Path, kind: str) -> None:
    """Our delays and Celery's both work, once each, on delay queues that Celery declared."""
    declare_queue(fresh, queue_name)
    declare_ladder(fresh, queue_name, kind)
    with Worker(fresh, queue_name, "-c1", app="delayed.app"):
        check_both(fresh, queue_name, stamps)


@pytest.mark.slow
def test_ladder_for_celerys_clients(fresh: str, queue_name: str, stamps: Path) -> None:
    """A Celery client's countdown over a quorum queue works where no Celery worker has declared the delay queues."""
    declare_queue(fresh, queue_name)
    with Worker(fresh, queue_name, "-c1", "--default-queue-type=quorum", app="delayed.app"):
        check_both(fresh, queue_name, stamps)


@pytest.mark.slow
def test_ladder_that_we_declared(fresh: str, queue_name: str, stamps: Path) -> None:
    """Celery can declare its delay queues after ours, and both programs' delays work."""
    declare_queue(fresh, queue_name)
    with Worker(fresh, queue_name, "-c1", app="delayed.app"):
        with client_of(fresh, queue_name) as ours:
            ours.send_task("delayed.stamp", (str(stamps),), countdown=2**28)
        check_both(fresh, queue_name, stamps)
        declare_ladder(fresh, queue_name, "quorum")
        check_both(fresh, queue_name, stamps)
