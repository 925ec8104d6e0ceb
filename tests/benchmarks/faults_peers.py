"""Who takes part in the fault table, and how each is started: two processes that run one task at a time."""

import sys
from collections.abc import Mapping, Sequence

import attrs

HERE = "tests.benchmarks"


@attrs.frozen
class Peer:
    """A worker that is compared."""

    name: str
    #: what must be installed
    module: str
    #: ours, that holds its app
    app: str
    #: after the interpreter's ``-m``
    words: Sequence[str]
    env: Mapping[str, str] = attrs.field(factory=dict)
    #: ends of the names of further queues in which it may put a task
    others: Sequence[str] = ()

    @property
    def command(self) -> list[str]:
        """The command line of the worker."""
        return [sys.executable, "-m", *self.words]

    def queues(self, queue: str) -> list[str]:
        """Return the names of all queues in which a task that was sent to this one may be."""
        return [queue, *(f"{queue}{end}" for end in self.others)]


def _celery(name: str, env: Mapping[str, str]) -> Peer:
    app = f"{HERE}.faults_celery"
    words = ("celery", "-A", app, "worker", "--concurrency=2", "--loglevel=WARNING")
    return Peer(name, "celery", app, words, env)


def _taskiq(name: str, *options: str) -> Peer:
    app = f"{HERE}.faults_taskiq"
    words = ("taskiq", "worker", f"{app}:broker", *options, "--log-level=WARNING")
    return Peer(name, "taskiq_aio_pika", app, words, others=(".dead",))


def _ours() -> Peer:
    app = f"{HERE}.faults_ours"
    words = ("hybridpool", "-A", app, "worker", "--concurrency=2", "--loglevel=WARNING", "--without-banner")
    return Peer("hybridpool", "hybridpool", app, words, others=(".dead",))


def _dramatiq() -> Peer:
    app = f"{HERE}.faults_dramatiq"
    # delayed and dead messages of dramatiq
    return Peer("dramatiq", "dramatiq", app, ("dramatiq", app, "-p", "2", "-t", "1"), others=(".DQ", ".XQ"))


PEERS = (
    _ours(),
    _celery("Celery", {}),
    _celery("Celery, late acks", {"FAULTS_CELERY_LATE": "1"}),
    _dramatiq(),
    # a thread each, as the others; by default it has more, and so more tasks to run again
    _taskiq("taskiq", "--workers=2", "--max-threadpool-threads=1"),
    _taskiq("taskiq, process pool", "--workers=1", "--use-process-pool", "--max-process-pool-processes=2"),
)
