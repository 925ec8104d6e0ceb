"""The workers whose lanes are compared, each set up for a thousand waiting calls at once, or 600 threads."""

from collections.abc import Sequence

import attrs

from tests.benchmarks import worker_work as work
from tests.benchmarks.lanes_work import LANE
from tests.benchmarks.worker_systems import OURS, System

_HERE = "tests.benchmarks"
#: calls at once, and threads at once: more than 100 calls a second of 5 s need
SLOTS, THREADS = 1000, 600
#: messages that a worker holds where that is not the number of its slots: one figure for all
TUNED = 512
_OURS = ("hybridpool", f"--app={_HERE}.lanes_app_hybridpool:app", "worker", "--default-queue={queue}")
_CELERY = ("celery", "-A", f"{_HERE}.worker_app_celery", "worker", "--loglevel=INFO", "--prefetch-multiplier=1")
_TASKIQ = ("taskiq", "worker", f"{_HERE}.worker_app_taskiq:broker", f"--max-async-tasks={SLOTS}")
_FASTSTREAM = ("faststream", "run", f"{_HERE}.worker_app_faststream:app")


@attrs.frozen
class Entry:
    """A row: a system, and what it is given to do.

    :param task: the waiting one, or the one that does nothing.
    """

    name: str
    system: System
    task: str = "rest"
    children: int = 1
    #: calls a second, where that is not the measure's
    rate: float = 0.0
    #: the tasks of each lane have a queue of their own
    is_apart: bool = False


def _system(family: str, words: Sequence[str], dialect: str = "", **env: str) -> System:
    return System(family, family, words, frozenset(), env, dialect)


def _held(messages: int) -> dict[str, str]:
    return {work.PREFETCH: str(messages)}


def _async(slots: int, *more: str) -> System:
    return _system(OURS, (*_OURS, f"--async-concurrency={slots}", *more), **{LANE: "async"})


_OURS_ASYNC = _async(SLOTS)
_OURS_THREADS = _system(OURS, (*_OURS, f"--thread-concurrency={THREADS}"), **{LANE: "thread"})
_CELERY_PREFORK = _system("celery", (*_CELERY, "-c{children}"))
_CELERY_THREADS = _system("celery", (*_CELERY, "--pool=threads", f"-c{THREADS}"))
_GEVENT = _system("gevent", (*_CELERY, "--pool=gevent", f"-c{SLOTS}"), "celery")
_TASKIQ_ONE = _system("taskiq", (*_TASKIQ, "--workers=1"), **_held(SLOTS))
_FASTSTREAM_ONE = _system("faststream", _FASTSTREAM, **_held(SLOTS))
_DRAMATIQ = _system(
    "dramatiq",
    ("dramatiq", f"{_HERE}.worker_app_dramatiq", "-p1", f"-t{THREADS}"),
    dramatiq_queue_prefetch=str(SLOTS),
)
_PREFORK = _system(
    OURS,
    (
        "hybridpool",
        f"--app={_HERE}.worker_app_hybridpool:app",
        "worker",
        "--default-queue={queue}",
        "-c2",
        "--prefetch-multiplier=64",
    ),
)
_EVERYONE = (
    Entry("hybridpool, async", _OURS_ASYNC),
    Entry("hybridpool, threads", _OURS_THREADS, "linger"),
    Entry("taskiq", _TASKIQ_ONE),
    Entry("faststream", _FASTSTREAM_ONE),
    Entry("dramatiq, threads", _DRAMATIQ, "linger"),
    Entry("celery, threads", _CELERY_THREADS, "linger"),
)
SECOND = (
    *_EVERYONE,
    Entry("celery, gevent", _GEVENT, "linger"),
    Entry("celery -c 5", _CELERY_PREFORK, "linger", children=5),
)
HUNDRED = (
    *_EVERYONE,
    Entry("hybridpool, async, recycled", _async(SLOTS, "--max-age-per-child=5")),
    # it starts some ten calls a second and no more, so that with a hundred it would never end
    Entry("celery, gevent, 5/s", _GEVENT, "linger", rate=5),
    Entry("celery -c 50, 10/s", _CELERY_PREFORK, "linger", children=50, rate=10),
)
NOOPS = (
    Entry("hybridpool, async, tuned", _async(TUNED), "nothing"),
    Entry("hybridpool, prefork, tuned", _PREFORK, "noop"),
    Entry("taskiq, tuned", _system("taskiq", (*_TASKIQ, "--workers=2"), **_held(TUNED)), "nothing"),
    Entry("faststream, tuned", _system("faststream", (*_FASTSTREAM, "--workers=2"), **_held(TUNED)), "nothing"),
    Entry("taskiq, 1 process", _system("taskiq", (*_TASKIQ, "--workers=1"), **_held(TUNED)), "nothing"),
    Entry("faststream, 1 process", _system("faststream", _FASTSTREAM, **_held(TUNED)), "nothing"),
)
LIMITS = (
    Entry("hybridpool, soft limit", _OURS_ASYNC, "outstay"),
    Entry("hybridpool, hard limit", _OURS_ASYNC, "outlast"),
    Entry("hybridpool, loop held", _async(SLOTS, "--loop-block-timeout=2"), "hold"),
)
DEATH = (Entry("hybridpool, async", _OURS_ASYNC),)
_MIXED = _system(OURS, (*_OURS, f"--async-concurrency={SLOTS}", "-c{children}"), **{LANE: "mixed"})
MIXED = (
    Entry("hybridpool, one queue", _MIXED, children=2),
    Entry("hybridpool, two queues", _MIXED, children=2, is_apart=True),
)


def waiting(calls: int) -> Sequence[Entry]:
    """Return the rows of a measure with so many calls at once."""
    return (
        Entry("hybridpool, async", _async(calls)),
        Entry(
            "taskiq", _system("taskiq", (*_TASKIQ[:-1], f"--max-async-tasks={calls}", "--workers=1"), **_held(calls))
        ),
        Entry("faststream", _system("faststream", _FASTSTREAM, **_held(calls))),
    )
