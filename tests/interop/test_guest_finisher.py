"""A Celery app in our worker: many messages at once whose end only the finisher can record."""

import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery

from tests.interop.guests import client_of, new_queue, sig, worker_of
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Worker

REVOKED = r"signal task_revoked celery_app.add False False (\S+)"


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


def recorded(worker: Worker) -> set[str]:
    """Return the ids of those that the app has recorded when their messages came."""
    return {match[1] for match in worker.seen(REVOKED)}


def finishers(worker: Worker) -> list[int]:
    """Return the pids of all that there have been."""
    return [int(match[1]) for match in worker.seen(r"Finisher-\d+ \(pid (\d+)\) ready")]


def kill_finishers(worker: Worker) -> int:
    """Kill those that are there, and return how many."""
    there = [child for child in worker.children() if child.pid in finishers(worker)]
    for child in there:
        child.send_signal(signal.SIGKILL)
    return len(there)


def test_killed_amid_many(rabbit_node: Node, redis: Redis) -> None:
    """None of 1,000 revoked calls is lost when the finisher is killed twice, and each death repeats at most one."""
    with revoked(rabbit_node, redis, 1000, 0.002) as (worker, client, ids):
        killed = 0
        for seen in (300, 600):
            worker.see(REVOKED, seen)
            killed += kill_finishers(worker)
        assert sig(client, "add", 1, 1).apply_async().get(timeout=PATIENCE) == 2
        assert wait_for(lambda: recorded(worker) == set(ids), PATIENCE)
        assert killed >= 2
        assert len(worker.seen(REVOKED)) <= 1000 + killed
        assert len(worker.seen("Discarding revoked task")) == 1000


def test_slow_backend(rabbit_node: Node, redis: Redis) -> None:
    """A call behind many revoked ones does not stand in line with them, and several finishers work these off."""
    with revoked(rabbit_node, redis, 30, 0.7) as (worker, client, ids):
        assert sig(client, "add", 1, 1).apply_async().get(timeout=PATIENCE) == 2
        # The worker prefetches 8.
        assert len(recorded(worker)) < 30 - 8
        assert wait_for(lambda: recorded(worker) == set(ids), PATIENCE)
        assert len(finishers(worker)) > 1
