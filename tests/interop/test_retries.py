"""Retries between Celery and us: its client sees ours, ours sees Celery's, and one goes on where the other left off."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import MaxRetriesExceededError, Reject
from celery.result import AsyncResult

from tests.interop.test_celery_client import celery_client
from tests.queues import BrokerConsole
from tests.rabbit import Node
from tests.workers import PATIENCE, Program, Worker, client_of

APP = "tests.apps.retrying"


@pytest.fixture(scope="module")
def queue() -> str:
    """The queue of our worker."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def worker(rabbit_node: Node, queue: str) -> Iterator[Worker]:
    """Our worker."""
    with Worker(rabbit_node.url, queue, "-c1", app=APP) as started:
        yield started


@pytest.fixture
def client(worker: Worker, rabbit_node: Node, queue: str) -> Iterator[Celery]:
    """A Celery client on our worker's queue."""
    with celery_client(rabbit_node.url, queue) as app:
        yield app


@pytest.fixture
def journal(tmp_path: Path) -> str:
    """Where attempts are written down."""
    return str(tmp_path / "journal")


def states(result: AsyncResult) -> tuple[object, list[tuple[str, Any]]]:
    """Wait for a result; returns it, and each state that came on the way, with what came along."""
    seen: list[dict[str, Any]] = []
    value = result.get(timeout=PATIENCE, on_message=seen.append, propagate=False)
    return value, [(meta["status"], meta["result"]) for meta in seen]


def test_states(client: Celery, journal: str) -> None:
    """A Celery client sees RETRY, with the exception, for each retry, and then SUCCESS."""
    sent = client.send_task(f"{APP}.succeed_at", (journal, 3))
    value, seen = states(sent)
    assert value == [f"{sent.id} {retries}" for retries in range(3)]
    assert [state for state, _ in seen] == ["RETRY", "RETRY", "SUCCESS"]
    assert seen[0][1] == {"exc_type": "Away", "exc_message": ["attempt 1"], "exc_module": APP}
    assert sent.state == "SUCCESS"


def test_the_end(client: Celery, journal: str) -> None:
    """A Celery client sees FAILURE, with the last exception, when a task is out of retries."""
    value, seen = states(client.send_task(f"{APP}.succeed_at", (journal, 10)))
    assert (type(value).__name__, str(value)) == ("Away", "attempt 5")
    assert [state for state, _ in seen] == ["RETRY"] * 4 + ["FAILURE"]


def test_max_retries_exceeded(client: Celery) -> None:
    """A Celery client gets MaxRetriesExceededError when a task has retried too often."""
    with pytest.raises(MaxRetriesExceededError, match="was retried 0 times"):
        client.send_task(f"{APP}.give_up").get(timeout=PATIENCE)


def test_reject_and_ignore(client: Celery, worker: Worker, queue: str, broker_url: str, journal: str) -> None:
    """A Celery client gets Reject for a rejected task, and no answer for an ignored one."""
    with pytest.raises(Reject) as rejected:
        client.send_task(f"{APP}.rejected", ("no stock",)).get(timeout=PATIENCE)
    assert rejected.value.reason == "no stock"
    ignored = client.send_task(f"{APP}.ignored", (journal,))
    worker.see(rf"{ignored.id}\] ignored")
    assert client.send_task(f"{APP}.add", (2, 3)).get(timeout=PATIENCE) == 5
    assert ignored.state == "PENDING"
    with BrokerConsole(broker_url) as console:
        console.until_depth(f"{queue}.dead", 1)
        console.delete(f"{queue}.dead")


# ---- with Celery's worker --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def celery_queue(rabbit_node: Node) -> Iterator[str]:
    """A real Celery worker; gives its queue."""
    name = f"test-{uuid.uuid4().hex}"
    quick = ("--without-mingle", "--without-gossip", "--without-heartbeat")
    words = [sys.executable, "-m", "celery", "-A", "celery_retrying", "worker", "-c1", "-P", "prefork", *quick]
    env = {"CELERY_SIDE_BROKER": rabbit_node.url, "CELERY_SIDE_QUEUE": name}
    with Program([*words, "-l", "INFO"], env=env) as program:
        program.see(r"ready\.$")
        # it is killed at the end: an orderly stop of Celery takes five seconds
        yield name


def test_celery_begins_and_we_finish(celery_queue: str, worker: Worker, queue: str, broker_url: str) -> None:
    """A task that Celery's worker retried runs on our worker at its time, with its count of retries."""
    with celery_client(broker_url, celery_queue) as client:
        sent = client.send_task("handed.over", ("ümläut",), {"queue": queue})
        value, seen = states(sent)
    assert value == ["ümläut", sent.id, 1]
    assert [state for state, _ in seen] == ["RETRY", "SUCCESS"]
    worker.see(rf"Task handed\.over\[{sent.id}\] received")


def test_our_client_waits_for_celerys_retries(celery_queue: str, broker_url: str) -> None:
    """Our client waits through the retries of Celery's worker for the result."""
    with client_of(broker_url, celery_queue) as app:
        assert app.send_task("again", (3,)).get(PATIENCE) == 2
