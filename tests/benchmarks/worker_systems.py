"""The workers that are compared, each in one configuration: how they are started, and what they take part in."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence

import attrs

from tests.benchmarks import worker_work as work

_HERE = "tests.benchmarks.worker"
#: what both configurations take part in, and what only the first of a family does
STEADY = frozenset({"drain", "latency", "cpu", "bodies"})
ONCE = frozenset({"startstop", "memory", "idle"})
#: and what only ours and Celery's can do
PREFORK = frozenset({"recycle", "scale", "ping"})
#: by family: what must be installed, and the packages that bring it
NEEDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "celery": ("celery", ("celery",)),
    "dramatiq": ("dramatiq", ("dramatiq[rabbitmq]",)),
    "taskiq": ("taskiq_aio_pika", ("taskiq", "taskiq-aio-pika")),
    "gevent": ("gevent", ("gevent",)),
    "faststream": ("faststream", ("faststream[rabbit,cli]",)),
}


@attrs.frozen
class System:
    """One way of running one library's worker.

    :param words: after `python -m`; {children} and {queue} stand for what they say.
    """

    name: str
    family: str
    words: Sequence[str]
    measures: frozenset[str]
    env: Mapping[str, str] = attrs.field(factory=dict)
    #: whose format messages have
    dialect: str = ""

    def command(self, queue: str, children: int, more: Sequence[str] = ()) -> list[str]:
        """Return the command line."""
        words = [word.format(queue=queue, children=children) for word in self.words]
        return [sys.executable, "-m", *words, *more]

    @property
    def sender(self) -> str:
        """The module that sends a message this system understands."""
        return f"{_HERE}_app_{self.dialect or self.family}"

    def absent(self) -> str:
        """Tell what is not installed, if something is not."""
        module, _ = NEEDS.get(self.family, ("", ()))
        return module if module and importlib.util.find_spec(module) is None else ""


_OURS = ("hybridpool", f"--app={_HERE}_app_hybridpool:app", "worker", "--default-queue={queue}")
_CELERY = ("celery", "-A", f"{_HERE}_app_celery", "worker")
_TASKIQ = ("taskiq", "worker", f"{_HERE}_app_taskiq:broker", "--workers={children}")
_FASTSTREAM = ("faststream", "run", f"{_HERE}_app_faststream:app")
_LITTLE = ("--without-gossip", "--without-mingle", "--without-heartbeat")
_RAW = f"{_HERE}_raw"
_DRAIN = frozenset({"drain"})

OURS, CELERY, DRAMATIQ = "hybridpool", "celery", "dramatiq"
OURS_TUNED, CELERY_TUNED, DRAMATIQ_TUNED = (f"{name}, tuned" for name in (OURS, CELERY, DRAMATIQ))
SYSTEMS: Sequence[System] = (
    System(OURS, OURS, (*_OURS, "-c", "{children}"), STEADY | ONCE | PREFORK),
    System(OURS_TUNED, OURS, (*_OURS, "-c", "{children}", "--prefetch-multiplier=64"), STEADY),
    System(CELERY, CELERY, (*_CELERY, "-c", "{children}", "--loglevel=INFO"), STEADY | ONCE | PREFORK),
    # its own log level is WARNING; what -O fair switches is not to be had on the command line any more
    System(CELERY_TUNED, CELERY, (*_CELERY, "-c", "{children}", *_LITTLE, "--prefetch-multiplier=64"), STEADY),
    System(DRAMATIQ, DRAMATIQ, ("dramatiq", f"{_HERE}_app_dramatiq", "-p{children}", "-t8"), STEADY | ONCE),
    System(
        DRAMATIQ_TUNED,
        DRAMATIQ,
        ("dramatiq", f"{_HERE}_app_dramatiq", "-p{children}", "-t1"),
        STEADY,
        {"dramatiq_queue_prefetch": "500"},
    ),
    System("taskiq", "taskiq", _TASKIQ, STEADY | ONCE),
    System("taskiq, tuned", "taskiq", (*_TASKIQ, "--max-prefetch=400"), STEADY, {work.PREFETCH: "500"}),
    System("faststream, 1 process", "faststream", _FASTSTREAM, STEADY | ONCE),
    System(
        "faststream, 2, tuned", "faststream", (*_FASTSTREAM, "--workers={children}"), STEADY, {work.PREFETCH: "500"}
    ),
    System("raw aio-pika, ack each", "raw", (_RAW, "aio-pika", "1"), _DRAIN, dialect=CELERY),
    System("raw aio-pika, ack 50", "raw", (_RAW, "aio-pika", "50"), _DRAIN, dialect=CELERY),
    System("raw aiormq, ack each", "raw", (_RAW, "aiormq", "1"), _DRAIN, dialect=CELERY),
    System("raw aiormq, ack 50", "raw", (_RAW, "aiormq", "50"), _DRAIN, dialect=CELERY),
)


def named(name: str) -> System:
    """Find a system."""
    return next(system for system in SYSTEMS if system.name == name)
