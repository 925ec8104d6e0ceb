"""Recycling: 100 no-op tasks with one child that is replaced after every ten, ours next to Celery's prefork worker.

Run by ``nox -s bench -- recycle``, or ``python -m tests.benchmarks.recycle``. Both workers start and become ready
before the clock does; one client, ours, sends all tasks and waits for all results. Figures only, nothing is asserted.
"""

import sys
import time
import uuid

import attrs

from hybridpool.errors import ResultTimeout
from tests.rabbit import Node
from tests.workers import Program, Worker, client_of

TASKS = 100
OPTIONS = ("--concurrency=1", "--max-tasks-per-child=10")
#: seconds after which a worker is given up
DEADLINE = 90.0


@attrs.frozen
class Figure:
    """How far a worker came in which time."""

    name: str
    seconds: float
    done: int

    def __str__(self) -> str:
        rest = "" if self.done == TASKS else f" (given up: {self.done} of {TASKS} tasks done)"
        return f"{self.name:<12} {self.seconds:8.3f} s   {self.done / self.seconds:8.1f} tasks/s{rest}"


def measure(name: str, broker: str, queue: str, task: str) -> Figure:
    """Send all tasks, and wait for the results within the deadline."""
    with client_of(broker, queue) as client:
        # so that no connection has to be made while the clock runs
        client.send_task(task, queue=f"{queue}.aside")
        start, done = time.perf_counter(), 0
        try:
            handles = [client.send_task(task) for _ in range(TASKS)]
            for handle in handles:
                handle.get(max(0.0, DEADLINE - (time.perf_counter() - start)))
                done += 1
        except ResultTimeout:
            print(f"{name}: not done within {DEADLINE:g} s", file=sys.stderr)
        return Figure(name, time.perf_counter() - start, done)


def ours(broker: str) -> Figure:
    """Measure hybridpool."""
    queue = f"bench-{uuid.uuid4().hex}"
    with Worker(broker, queue, *OPTIONS, "--without-banner", "--loglevel=INFO", ready=0) as worker:
        worker.see(r"ready\.$")
        return measure("hybridpool", broker, queue, "worker.task1")


def celerys(broker: str) -> Figure:
    """Measure Celery, at the same log level."""
    queue = f"bench-{uuid.uuid4().hex}"
    quiet = ("--without-mingle", "--without-gossip", "--without-heartbeat", "--loglevel=INFO")
    words = [sys.executable, "-m", "celery", "-A", "celery_side", "worker", "--pool=prefork", *OPTIONS, *quiet]
    with Program(words, env={"CELERY_SIDE_BROKER": broker, "CELERY_SIDE_QUEUE": queue}) as worker:
        worker.see(r"ready\.$")
        return measure("celery", broker, queue, "celery_side.noop")


def main() -> None:
    """Measure both in one run and print the figures and their ratio."""
    print(f"{TASKS} no-op tasks, {' '.join(OPTIONS)}, results over rpc://")
    with Node("bench") as node:
        figures = [ours(node.url), celerys(node.url)]
    for figure in figures:
        print(figure)
    us, celery = figures
    least = "" if celery.done == TASKS else "at least "
    print(f"ratio        {least}{celery.seconds / us.seconds:.1f} × the time of hybridpool")


if __name__ == "__main__":
    main()
