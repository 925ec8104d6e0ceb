"""A Celery app in our worker: what its tasks can do, over Redis and over rpc. Celery's own client asks."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery, chain, chord, group
from celery.canvas import Signature
from celery.exceptions import Reject

from tests.interop.guests import client_of, new_queue, sig, worker_of
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Worker


@pytest.fixture(scope="module", params=["redis", "rpc"])
def backend(request: pytest.FixtureRequest) -> str:
    """Where results go."""
    if request.param == "rpc":
        return "rpc://"
    server: Redis = request.getfixturevalue("redis")
    return server.url


@pytest.fixture(scope="module")
def queue(backend: str) -> str:
    """The queue of this backend's worker."""
    return new_queue()


@pytest.fixture(scope="module")
def worker(rabbit_node: Node, backend: str, queue: str) -> Iterator[Worker]:
    """Our worker, with the Celery app."""
    with worker_of(rabbit_node.url, backend, queue) as started:
        yield started


@pytest.fixture
def client(worker: Worker, rabbit_node: Node, backend: str, queue: str) -> Iterator[Celery]:
    """A Celery client."""
    with client_of(rabbit_node.url, backend, queue) as app:
        yield app


def value_of(made: Signature) -> object:
    """Send it, and wait for its result."""
    return made.apply_async().get(timeout=PATIENCE)


def canvas(client: Celery, kind: str) -> Signature:
    """Return a canvas of each kind; `EXPECTED` is what must come back."""
    add = [sig(client, "add", i, i) for i in range(4)]
    total = sig(client, "total")
    kinds: dict[str, Signature] = {
        "task": sig(client, "add", 1, 2),
        "kwargs": client.signature("celery_app.add", kwargs={"x": 1, "y": 2}),
        "chain": chain(sig(client, "add", 1, 2), sig(client, "add", 3), sig(client, "add", 4), app=client),
        "group": group(add, app=client),
        "chord": chord(add, total, app=client),
        "chain of chords": chain(
            sig(client, "add", 1, 1),
            group((sig(client, "add", i) for i in range(3)), app=client),
            total,
            sig(client, "add", 100),
            app=client,
        ),
        "replaced": sig(client, "replaced", 1),
        "retried": sig(client, "retried", 2),
        "soft": sig(client, "soft"),
    }
    return kinds[kind]


EXPECTED = {
    "task": 3,
    "kwargs": 3,
    "chain": 10,
    "group": [0, 2, 4, 6],
    "chord": 12,
    "chain of chords": 109,
    "replaced": 2,
    "retried": 2,
    "soft": "cleaned up",
}
#: Celery's rpc has no chords, and sends the result of a task in another's place to the worker and not to the client
NOT_OVER_RPC = ("chord", "chain of chords", "replaced")


def test_canvas(client: Celery, backend: str) -> None:
    """Tasks, chains, groups, chords, replaced and retried tasks give a Celery client what Celery gives it."""
    kinds = [kind for kind in EXPECTED if backend != "rpc://" or kind not in NOT_OVER_RPC]
    assert {kind: value_of(canvas(client, kind)) for kind in kinds} == {kind: EXPECTED[kind] for kind in kinds}


def test_failure(client: Celery, worker: Worker) -> None:
    """A failure comes with its type, arguments and traceback; the log tells it once."""
    result = sig(client, "fail", "no way").apply_async()
    with pytest.raises(ValueError, match="no way"):
        result.get(timeout=PATIENCE)
    assert result.state == "FAILURE"
    assert re.search(r'File ".*celery_app\.py", line \d+, in fail', result.traceback)
    worker.see(rf"fail\[{result.id}\] raised unexpected: ValueError\('no way'\)")
    worker.see(r"on_failure celery_app.fail ValueError\('no way'\)")
    assert len(worker.seen(rf"\[{result.id}\] raised unexpected")) == 1


def test_link(client: Celery, worker: Worker, tmp_path: Path) -> None:
    """`link` runs after a success and `link_error` after a failure, here with Celery's newer signature."""
    linked = sig(client, "counted", 1).apply_async(link=client.signature("celery_app.add", args=(41,)))
    assert linked.get(timeout=PATIENCE) == 1
    worker.see(r"Task celery_app.add\[.*\] succeeded in .*: 42")
    path = tmp_path / "error"
    failed = sig(client, "fail", "linked").apply_async(link_error=sig(client, "noted", str(path)))
    failed.get(timeout=PATIENCE, propagate=False)
    assert wait_for(lambda: path.exists() and path.read_text() == "ValueError linked", PATIENCE)


def test_retries_end(client: Celery, worker: Worker) -> None:
    """`autoretry_for` gives the attempts that `max_retries` allows, and then the exception."""
    result = sig(client, "autoretried").apply_async()
    with pytest.raises(KeyError, match="gone"):
        result.get(timeout=PATIENCE)
    assert len(worker.seen(rf"autoretried\[{result.id}\] received")) == 3
    worker.see(rf"autoretried\[{result.id}\] retry: Retry in 0s: KeyError", 2)


def test_ignore_result(client: Celery, worker: Worker) -> None:
    """A task with `ignore_result` runs, and its result is not stored."""
    result = sig(client, "ignored").apply_async()
    worker.see(rf"ignored\[{result.id}\] succeeded")
    assert value_of(sig(client, "add", 1, 1)) == 2
    assert result.state == "PENDING"


def test_ignored(client: Celery, worker: Worker, backend: str) -> None:
    """A task that raises Ignore keeps the state that it has stored itself."""
    result = sig(client, "stored_itself").apply_async()
    worker.see(rf"stored_itself\[{result.id}\] ignored")
    assert wait_for(lambda: bool(result.state == "CUSTOM"), PATIENCE)
    assert result.info == {"by": "itself"}
    if backend == "rpc://":
        result.forget()


def test_reject(client: Celery, worker: Worker, queue: str, broker_url: str, tmp_path: Path) -> None:
    """A task that rejects its message fails for good, or is delivered again."""
    rejected = sig(client, "rejected").apply_async()
    assert isinstance(rejected.get(timeout=PATIENCE, propagate=False), Reject)
    assert rejected.state == "FAILURE"
    assert value_of(sig(client, "rejected", str(tmp_path / "once"))) == "came back"
    with BrokerConsole(broker_url) as console:
        assert wait_for(lambda: console.depth(queue) == 0, PATIENCE)


def test_custom_class(client: Celery, worker: Worker) -> None:
    """The methods of a custom task class are called."""
    assert value_of(sig(client, "counted", 5)) == 5
    worker.see("on_success celery_app.counted 5")


def test_request(client: Celery, worker: Worker, queue: str) -> None:
    """A bound task sees its id, the worker's name, its queue, priority and custom headers, and runs in a child."""
    result = sig(client, "who").apply_async(priority=3, headers={"tenant": "a"})
    seen = result.get(timeout=PATIENCE)
    assert seen["id"] == result.id
    assert seen["queue"] == queue
    assert seen["priority"] == 3
    assert seen["headers"]["tenant"] == "a"
    assert re.search(rf"{re.escape(seen['hostname'])} ready\.", worker.text)
    assert seen["pid"] in {child.pid for child in worker.children()}


def test_compression(client: Celery) -> None:
    """A compressed body is decoded by Celery's own code."""
    assert sig(client, "add", "a" * 5000, "b").apply_async(compression="zlib").get(timeout=PATIENCE) == "a" * 5000 + "b"


def test_large_body(client: Celery) -> None:
    """A body of megabytes arrives whole."""
    text = "ä" * 3_000_000
    assert sig(client, "counted", text).apply_async().get(timeout=PATIENCE) == text


def test_countdown(client: Celery, worker: Worker) -> None:
    """A call with a countdown runs when its time has come."""
    result = sig(client, "add", 1, 2).apply_async(countdown=1.5)
    worker.see(rf"add\[{result.id}\] came 1\.\d s before its time; the broker holds it")
    assert result.get(timeout=PATIENCE) == 3


def test_signals(client: Celery, worker: Worker) -> None:
    """Signals of the zygote and of children are sent there, in order."""
    assert value_of(sig(client, "counted", 8)) == 8
    worker.see("signal worker_init celery_app")
    worker.see("ForkPoolWorker.* signal worker_process_init")
    worker.see("ForkPoolWorker.* signal task_postrun celery_app.counted SUCCESS")
    lines = [line.split("signal ")[1] for line in worker.lines if "celery_app.counted" in line and "signal" in line]
    assert lines[-3:] == [
        "task_prerun celery_app.counted",
        "task_success celery_app.counted",
        "task_postrun celery_app.counted SUCCESS",
    ]
