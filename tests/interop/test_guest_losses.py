"""A Celery app in our worker: what is recorded for tasks that could not record their own end, as Celery's parent does.

Children die here, so each test has a worker of its own.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Celery, chord
from celery.exceptions import ChordError, NotRegistered, TaskRevokedError
from kombu.exceptions import ContentDisallowed

from tests.interop.guests import client_of, new_queue, sig, worker_of
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Worker


@pytest.fixture
def queue() -> str:
    """The queue of one test's worker."""
    return new_queue()


@pytest.fixture
def worker(rabbit_node: Node, redis: Redis, queue: str) -> Iterator[Worker]:
    """Our worker, with the Celery app."""
    with worker_of(rabbit_node.url, redis.url, queue) as started:
        yield started


@pytest.fixture
def client(worker: Worker, rabbit_node: Node, redis: Redis, queue: str) -> Iterator[Celery]:
    """A Celery client."""
    with client_of(rabbit_node.url, redis.url, queue) as app:
        yield app


@pytest.mark.parametrize("name", ["die", "die_late"])
def test_lost(client: Celery, worker: Worker, name: str, tmp_path: Path) -> None:
    """A task whose child dies fails with WorkerLostError, and its errback is called, as in Celery."""
    path = tmp_path / "error"
    result = sig(client, name).apply_async(link_error=sig(client, "noted", str(path)))
    with pytest.raises(WorkerLostError, match=r"signal 9 \(SIGKILL\)"):
        result.get(timeout=PATIENCE)
    assert wait_for(lambda: path.exists() and "WorkerLostError" in path.read_text(), PATIENCE)
    worker.see(rf"signal task_failure celery_app.{name} WorkerLostError")


def test_lost_again_and_again(client: Celery, queue: str, broker_url: str, tmp_path: Path) -> None:
    """`reject_on_worker_lost` runs a task again, `task_max_deliveries` times; then it fails and is dead-lettered."""
    path = tmp_path / "runs"
    with BrokerConsole(broker_url) as console:
        before = max(0, console.depth(f"{queue}.dead"))
        with pytest.raises(WorkerLostError):
            sig(client, "die_always", str(path)).apply_async().get(timeout=PATIENCE)
        assert path.read_text() == "..."
        assert wait_for(lambda: console.depth(f"{queue}.dead") == before + 1, PATIENCE)


def test_lost_after_its_success(client: Celery, worker: Worker, queue: str, rabbit_node: Node, tmp_path: Path) -> None:
    """A task whose child dies when its success is recorded has succeeded, and is not run again, as in Celery."""
    path = tmp_path / "runs"
    errors = tmp_path / "errors"
    result = sig(client, "die_afterwards", str(path)).apply_async(link_error=sig(client, "noted", str(errors)))
    assert result.get(timeout=PATIENCE) == "done"
    worker.see(rf"die_afterwards\[{result.id}\] lost its child .*unless its success is recorded, it is queued again")
    # Unacknowledged ones count as well.
    assert wait_for(lambda: f"{queue}\t0" in rabbit_node.ctl("list_queues", "name", "messages"), PATIENCE)
    assert path.read_text() == "."
    assert result.state == "SUCCESS"
    assert not errors.exists()


def test_lost_and_retried(client: Celery, worker: Worker) -> None:
    """`retry_on_worker_lost` makes as many attempts as the task has retries; then it fails."""
    result = sig(client, "die_retried").apply_async()
    with pytest.raises(WorkerLostError):
        result.get(timeout=PATIENCE)
    assert len(worker.seen(rf"die_retried\[{result.id}\] received")) == 2


def test_lost_in_a_chord(client: Celery, worker: Worker) -> None:
    """A chord does not wait for ever for a header task whose child died."""
    header = [sig(client, "add", 1, 1), sig(client, "die")]
    result = chord(header, sig(client, "total"), app=client).apply_async()
    error = result.get(timeout=PATIENCE, propagate=False)
    assert isinstance(error, ChordError)
    assert "WorkerLostError" in str(error)
    # Celery logs a chord that fails with a traceback, which is no fault of the worker's.
    assert worker.stop() == 0


def test_lost_when_a_chord_was_to_go_on(client: Celery, tmp_path: Path) -> None:
    """The body of a chord is sent though its last part died when it had claimed that, and the claim is still there."""
    path = tmp_path / "enough"
    pids = Path(f"{path}-pids")
    header = [sig(client, "add", 1, 1), sig(client, "held_late", str(path))]
    result = chord(header, sig(client, "total"), app=client).apply_async()
    assert wait_for(pids.exists, PATIENCE)
    assert result.parent is not None
    client.backend.client.set(client.backend.get_key_for_group(result.parent.id, ".c"), "of a dead child", ex=3)
    assert wait_for(lambda: pids.read_text().endswith("\n"), PATIENCE)
    os.kill(int(pids.read_text()), signal.SIGKILL)
    path.touch()
    assert result.get(timeout=PATIENCE) == 3
    assert len(pids.read_text().split()) == 2


def test_hard_limit(client: Celery, worker: Worker) -> None:
    """A task over its hard limit fails with TimeLimitExceeded; `on_failure` and the signal hear of it."""
    with pytest.raises(TimeLimitExceeded):
        sig(client, "too_long").apply_async().get(timeout=PATIENCE)
    worker.see(r"on_failure celery_app.too_long TimeLimitExceeded\(1\.0\)")
    worker.see(r"signal task_failure celery_app.too_long TimeLimitExceeded")


def test_message_limit(client: Celery) -> None:
    """The limit that a client sends along is stronger than the task's."""
    with pytest.raises(TimeLimitExceeded, match=r"0\.5"):
        sig(client, "too_long").apply_async(time_limit=0.5).get(timeout=PATIENCE)


def test_system_exit(client: Celery, worker: Worker) -> None:
    """`SystemExit` is WorkerLostError, as in Celery; the child goes on."""
    pids = {child.pid for child in worker.children()}
    with pytest.raises(WorkerLostError, match="exitcode 3"):
        sig(client, "leave", 3).apply_async().get(timeout=PATIENCE)
    assert pids <= {child.pid for child in worker.children()} | pids
    assert not worker.seen(r"exited with 'exit code 3'")


def test_expired(client: Celery, worker: Worker) -> None:
    """A call that has expired is revoked: its client hears it, and the signal is sent."""
    result = sig(client, "counted", 1).apply_async(expires=-1)
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=PATIENCE)
    assert result.state == "REVOKED"
    worker.see("signal task_revoked celery_app.counted False True")


def test_revoked_before(client: Celery, worker: Worker) -> None:
    """A call that is revoked before it begins is not run, and its client hears that."""
    result = sig(client, "counted", 77).apply_async(countdown=3)
    assert client.control.revoke(result.id, reply=True, timeout=PATIENCE, limit=1)
    assert result.state == "REVOKED"
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get(timeout=PATIENCE)
    worker.see("signal task_revoked celery_app.counted False False")
    assert not worker.seen("on_success celery_app.counted 77")


def test_terminated(client: Celery, worker: Worker, tmp_path: Path) -> None:
    """A running task is stopped by `revoke(terminate=True)`, and its client hears that."""
    path = tmp_path / "go"
    result = sig(client, "hold", str(path)).apply_async()
    assert wait_for(Path(f"{path}.entered").exists, PATIENCE)
    client.control.revoke(result.id, terminate=True)
    with pytest.raises(TaskRevokedError, match="terminated"):
        result.get(timeout=PATIENCE)
    worker.see("signal task_revoked celery_app.hold True False")


def test_failing_header(client: Celery, tmp_path: Path) -> None:
    """A chord whose header fails ends with ChordError, and its errback is called."""
    path = tmp_path / "errback"
    total = sig(client, "total").on_error(sig(client, "noted", str(path)))
    result = chord([sig(client, "add", 1, 1), sig(client, "fail", "header")], total, app=client).apply_async()
    error = result.get(timeout=PATIENCE, propagate=False)
    assert isinstance(error, ChordError)
    assert "header" in str(error)
    assert wait_for(path.exists, PATIENCE)


def test_not_accepted(client: Celery) -> None:
    """A message whose content type is not in `accept_content` is not run, and its client is told so."""
    result = sig(client, "add", 1, 2).apply_async(serializer="pickle")
    with pytest.raises(ContentDisallowed, match="accept_content"):
        result.get(timeout=PATIENCE)


def test_unknown(client: Celery, queue: str, broker_url: str) -> None:
    """A call of a task that does not exist fails with NotRegistered, and is dead-lettered."""
    with BrokerConsole(broker_url) as console:
        before = max(0, console.depth(f"{queue}.dead"))
        with pytest.raises(NotRegistered):
            client.send_task("nowhere").get(timeout=PATIENCE)
        assert wait_for(lambda: console.depth(f"{queue}.dead") == before + 1, PATIENCE)


def test_over_rpc(rabbit_node: Node, queue: str) -> None:
    """A client that waits for an answer over rpc hears of a lost task too, although no child could send it."""
    with worker_of(rabbit_node.url, "rpc://", queue), client_of(rabbit_node.url, "rpc://", queue) as client:
        with pytest.raises(WorkerLostError):
            sig(client, "die").apply_async().get(timeout=PATIENCE)
        with pytest.raises(NotRegistered):
            client.send_task("nowhere").get(timeout=PATIENCE)


def test_the_backend_is_away(rabbit_node: Node, queue: str) -> None:
    """While the result backend is away, what has to be recorded waits; it is recorded when the backend is back."""
    with (
        Redis() as redis,
        worker_of(rabbit_node.url, redis.url, queue) as worker,
        client_of(rabbit_node.url, redis.url, queue) as client,
    ):
        result = sig(client, "die_late").apply_async(countdown=2)
        redis.stop()
        worker.see(rf"die_late\[{result.id}\] cannot be settled now: .*; it waits for its app")
        redis.start()
        assert wait_for(lambda: bool(result.state == "FAILURE"), PATIENCE)
        assert isinstance(result.result, WorkerLostError)


def test_the_finisher_dies(client: Celery, worker: Worker) -> None:
    """The child that records what others could not is replaced when it dies."""
    with pytest.raises(WorkerLostError):
        sig(client, "die").apply_async().get(timeout=PATIENCE)
    [(pid,)] = [match.groups() for match in worker.seen(r"Finisher-1 \(pid (\d+)\) ready")]
    finisher = next(child for child in worker.children() if child.pid == int(pid))
    finisher.send_signal(signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        sig(client, "die").apply_async().get(timeout=PATIENCE)
    worker.see(r"Finisher-2 \(pid \d+\) ready")


def test_cold_stop(client: Celery, worker: Worker, tmp_path: Path) -> None:
    """A task that was acknowledged early and is killed by a cold stop is recorded as lost; a late one is requeued."""
    path = tmp_path / "never"
    result = sig(client, "hold", str(path)).apply_async()
    assert wait_for(Path(f"{path}.entered").exists, PATIENCE)
    assert worker.stop(signal.SIGQUIT) == 1
    with pytest.raises(WorkerLostError):
        result.get(timeout=PATIENCE)
