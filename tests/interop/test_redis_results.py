"""Results in Redis: a real Celery client reads what our worker stores, and its chords of our tasks complete."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_client
from celery import Celery, chord, group
from celery.exceptions import ChordError, NotRegistered, TaskRevokedError
from celery.result import AsyncResult

from hybridpool import App
from tests.interop.guests import client_of
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Worker


@pytest.fixture(scope="module")
def queue() -> str:
    """The queue of this file's worker."""
    return f"redis-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def worker(rabbit_node: Node, redis: Redis, queue: str) -> Iterator[Worker]:
    """Our worker, with an app of ours."""
    options = ("-c2", "-l", "INFO", "--result-backend", redis.url, "--result-expires", "1h")
    with Worker(rabbit_node.url, queue, *options, ready=0) as started:
        started.see(r"ready\.$")
        yield started


@pytest.fixture
def client(worker: Worker, rabbit_node: Node, redis: Redis, queue: str) -> Iterator[Celery]:
    """A Celery client."""
    with client_of(rabbit_node.url, redis.url, queue) as app:
        yield app


@pytest.fixture
def stored(redis: Redis) -> Iterator[Any]:
    """Give a connection to look at what is stored."""
    with redis_client.Redis(port=redis.port) as connection:
        yield connection


def sig(client: Celery, name: str, *args: Any, **options: Any) -> Any:  # Celery is untyped
    """Return a signature of a task of our app."""
    return client.signature(f"worker.{name}", args=args, **options)


def alone(client: Celery, sent: AsyncResult) -> AsyncResult:
    """Return a result without its parents, whose errors Celery's client would raise first."""
    return AsyncResult(sent.id, app=client)


def test_results(client: Celery, worker: Worker, stored: Any) -> None:
    """A Celery client gets results and errors with `get`, and reads state, traceback and time; they expire."""
    added = sig(client, "add", 2, 3).apply_async()
    assert added.get(timeout=PATIENCE) == 5
    assert (added.state, added.date_done.tzinfo is not None) == ("SUCCESS", True)
    assert 3500 < stored.ttl(f"celery-task-meta-{added.id}") <= 3600
    failed = sig(client, "fail", "no way").apply_async()
    with pytest.raises(ValueError, match="no way"):
        failed.get(timeout=PATIENCE)
    assert (failed.state, "raise ValueError(text)" in failed.traceback) == ("FAILURE", True)
    with pytest.raises(NotRegistered, match=r"worker\.ad"):
        sig(client, "ad").apply_async().get(timeout=PATIENCE)
    with pytest.raises(TaskRevokedError, match="expired"):
        sig(client, "add", 1, 1).apply_async(expires=-10).get(timeout=PATIENCE)
    # another client, that did not send it, and reads it later
    assert AsyncResult(added.id, app=client).get(timeout=PATIENCE) == 5
    assert f"results:     {worker_backend(worker)}" in worker.text


def worker_backend(worker: Worker) -> str:
    """Return the result backend that the banner names."""
    [found] = worker.seen(r"results:     (\S+)")
    assert found.group(1).startswith("redis://")
    return found.group(1)


def test_many_results(client: Celery) -> None:
    """The results of a large group come in order, and `iter_native` brings each once."""
    sent = group(sig(client, "add", n, 1) for n in range(300)).apply_async()
    assert sent.get(timeout=PATIENCE) == [n + 1 for n in range(300)]
    assert {task_id for task_id, _ in sent.iter_native(timeout=PATIENCE)} == {child.id for child in sent.children}


def test_result_that_is_ignored(client: Celery, stored: Any) -> None:
    """Of a message that ignores its result nothing is stored, also not if it is a part of a chord."""
    plain = sig(client, "add", 1, 1).apply_async(ignore_result=True)
    parts = [sig(client, "add", n, 0).set(ignore_result=True) for n in range(2)]
    sent = chord(parts)(sig(client, "echo"))
    assert sent.get(timeout=PATIENCE) == [[[0, 1]], {}]
    assert stored.get(f"celery-task-meta-{plain.id}") is None
    assert [stored.get(f"celery-task-meta-{part.id}") for part in sent.parent.children] == [None, None]


def test_chord(client: Celery, stored: Any) -> None:
    """A chord's body gets the results of its parts in order, its own arguments after them; no record is left."""
    sent = chord(sig(client, "add", n, n) for n in range(20))(sig(client, "echo", "more", kwargs={"name": "ä"}))
    assert sent.get(timeout=PATIENCE) == [[[2 * n for n in range(20)], "more"], {"name": "ä"}]
    assert sent.parent.get(timeout=PATIENCE) == [2 * n for n in range(20)]
    key = f"celery-taskset-meta-{sent.parent.id}"
    assert wait_for(lambda: stored.get(f"{key}.c") == b"done", PATIENCE)
    assert stored.exists(f"{key}.j", f"{key}.s", f"{key}.t", f"{key}.d") == 0


def test_chord_of_one(client: Celery) -> None:
    """A chord of one part completes, and so does one whose body is immutable."""
    assert chord([sig(client, "add", 1, 2)])(sig(client, "echo")).get(timeout=PATIENCE) == [[[3]], {}]
    parts = [sig(client, "add", 1, 2), sig(client, "add", 1, 3)]
    body = sig(client, "echo", "alone", immutable=True)
    assert chord(parts)(body).get(timeout=PATIENCE) == [["alone"], {}]


def test_chord_with_groups(client: Celery) -> None:
    """A chord whose header holds a group gets the results of all; of equal index, in any order, as in Celery."""
    parts = [group(sig(client, "add", n, 0) for n in range(3)), sig(client, "add", 9, 0)]
    [[results], named] = chord(parts)(sig(client, "echo")).get(timeout=PATIENCE)
    assert (sorted(results[:3]), results[3:], named) == ([0, 1, 2], [9], {})


def test_chord_in_a_chord(client: Celery) -> None:
    """A chord may be a part of another one: its body's result is the part's."""
    inner = chord([sig(client, "add", 1, 1), sig(client, "add", 2, 2)], sig(client, "echo"))
    sent = chord([inner, sig(client, "add", 3, 3)])(sig(client, "echo"))
    assert sent.get(timeout=PATIENCE) == [[[[[[2, 4]], {}], 6]], {}]


def test_chord_that_fails(client: Celery, queue: str, worker: Worker) -> None:
    """A chord fails with the error of its part; the error task of its body is called with the body's id."""
    body = sig(client, "echo").on_error(sig(client, "echo").set(task_id=(error_id := str(uuid.uuid4()))))
    sent = chord([sig(client, "add", 1, 1), sig(client, "fail", "no way")])(body)
    with pytest.raises(ChordError, match=r"Dependency \S+ raised ValueError\('no way'\)"):
        alone(client, sent).get(timeout=PATIENCE)
    assert AsyncResult(error_id, app=client).get(timeout=PATIENCE) == [[sent.id], {}]


def test_chord_whose_part_is_refused(client: Celery) -> None:
    """A part that is unknown, expired, or whose child dies, fails its chord, and does not leave it without an end."""
    for part in (sig(client, "nothing"), sig(client, "add", 1, 1).set(expires=-5)):
        with pytest.raises(ChordError, match=r"Dependency \S+ raised"):
            alone(client, chord([sig(client, "add", 1, 1), part])(sig(client, "echo"))).get(timeout=PATIENCE)


def test_chord_that_is_not_supported(client: Celery, worker: Worker) -> None:
    """A chord that one task does not follow, but a chain, is refused in one clear line, and fails."""
    body = sig(client, "echo") | sig(client, "echo")
    part = str(uuid.uuid4())
    chord([sig(client, "add", 1, 1).set(task_id=part), sig(client, "add", 1, 2)])(body)
    with pytest.raises(NotImplementedError, match="asks for 'chord'"):
        AsyncResult(part, app=client).get(timeout=PATIENCE)
    assert worker.see(r"refused: the message asks for 'chord'")


def test_our_client(worker: Worker, rabbit_node: Node, redis: Redis, queue: str, broker_url: str) -> None:
    """Our client waits for results in Redis, also for those of another client's process, and nothing is left over."""
    app = App("client", broker=rabbit_node.url, task_default_queue=queue, result_backend=redis.url)
    try:
        handles = [app.send_task("worker.add", (n, 1)) for n in range(50)]
        assert [handle.get(timeout=PATIENCE) for handle in handles] == [n + 1 for n in range(50)]
        with pytest.raises(ValueError, match="no way"):
            app.send_task("worker.fail", ("no way",)).get(timeout=PATIENCE)
    finally:
        app.close()
    with BrokerConsole(broker_url) as console:
        assert console.depth(queue) == 0
