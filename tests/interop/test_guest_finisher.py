"""A Celery app in our worker: many messages at once whose end only the finisher can record."""

import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from celery import Celery

from tests.interop.guests import client_of, new_queue, sig, worker_of
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Worker

REVOKED = "signal task_revoked celery_app.add False False"


@contextmanager
def revoked(node: Node, redis: Redis, count: int, slow: float) -> Iterator[tuple[Worker, Celery, list[str]]]:
    """Give a worker, and the ids of so many calls that were revoked and then sent to it.

    :param slow: seconds that the app takes to record each.
    """
    queue, ids = new_queue(), [str(uuid.uuid4()) for _ in range(count)]
    with (
        client_of(node.url, redis.url, queue) as client,
        worker_of(node.url, redis.url, queue, env={"GUEST_SLOW": str(slow)}) as worker,
    ):
        client.control.revoke(ids)
        worker.see("Tasks flagged as revoked")
        for one in ids:
            sig(client, "add", 1, 1).apply_async(task_id=one, ignore_result=False)
        yield worker, client, ids


def states(client: Celery, ids: list[str]) -> dict[str, int]:
    """Count the states that the backend has, in one request."""
    backend = client.backend
    found: dict[str, int] = {}
    for meta in backend.client.mget([backend.get_key_for_task(one) for one in ids]):
        state = "PENDING" if meta is None else backend.decode_result(meta)["status"]
        found[state] = found.get(state, 0) + 1
    return found


def finishers(worker: Worker) -> list[int]:
    """Return the pids of all that there have been."""
    return [int(match[1]) for match in worker.seen(r"Finisher-\d+ \(pid (\d+)\) ready")]


def test_killed_amid_many(rabbit_node: Node, redis: Redis) -> None:
    """None of 1,000 revoked calls is lost when the finisher is killed twice, and each death repeats at most one."""
    with revoked(rabbit_node, redis, 1000, 0.002) as (worker, client, ids):
        for deaths in (1, 2):
            worker.see(REVOKED, 300 * deaths)
            psutil.Process(finishers(worker)[-1]).send_signal(signal.SIGKILL)
            worker.see(r"Finisher-\d+ \(pid \d+\) ready", deaths + 1)
        assert sig(client, "add", 1, 1).apply_async().get(timeout=PATIENCE) == 2
        assert wait_for(lambda: states(client, ids) == {"REVOKED": 1000}, PATIENCE)
        assert 1000 <= len(worker.see(REVOKED, 1000)) <= 1002
        assert len(worker.seen("Discarding revoked task")) == 1000


def test_slow_backend(rabbit_node: Node, redis: Redis) -> None:
    """A call behind many revoked ones does not stand in line with them, and several finishers work these off."""
    with revoked(rabbit_node, redis, 30, 0.7) as (worker, client, ids):
        assert sig(client, "add", 1, 1).apply_async().get(timeout=PATIENCE) == 2
        # The worker prefetches 8.
        assert states(client, ids).get("PENDING", 0) > 8
        assert wait_for(lambda: states(client, ids) == {"REVOKED": 30}, PATIENCE)
        assert len(finishers(worker)) > 1
