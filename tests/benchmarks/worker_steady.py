"""What one life of a worker shows: a backlog that waits for it, messages at leisure, CPU-bound tasks, large bodies."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from tests.benchmarks.worker_bench import Bench, Running
from tests.benchmarks.worker_console import SENT, Template
from tests.benchmarks.worker_systems import System

Figures = dict[str, float]
CHILDREN = 2
#: seconds of CPU time
SPIN = 0.001
#: messages per second
PACE = 200
KIB, MIB = 1024, 1024 * 1024
#: probes that a worker does before anything but the backlog is measured: all children then have worked
PROBES = 100


@attrs.frozen
class Sizes:
    """How much is done."""

    backlog: int = 20_000
    #: seconds of messages at leisure
    leisure: float = 3.0
    spins: int = 2000
    #: of 64 KiB, of 1 MiB
    bodies: tuple[int, int] = (400, 60)
    #: seconds of looking at an idle worker
    idle: float = 5.0
    #: tasks between two looks at the memory
    litter: int = 2000
    #: tasks of 20 ms that the autoscaler finds
    burst: int = 1200
    #: no-ops for the rates with recycling after none or 100, and after 10
    recycled: tuple[int, int] = (3000, 600)
    #: seconds after which recycling is given up
    patience: float = 10.0
    pings: int = 60
    #: calls that are published
    calls: int = 4000


QUICK = Sizes(
    backlog=4000,
    leisure=1.5,
    spins=500,
    bodies=(100, 20),
    idle=2.0,
    litter=500,
    burst=600,
    recycled=(1000, 200),
    patience=6.0,
    pings=15,
    calls=1000,
)


@attrs.frozen
class Life:
    """A worker, its queues, and what it is to do."""

    bench: Bench
    system: System
    queue: str
    worker: Running
    sizes: Sizes
    templates: Mapping[str, Template]


def live(bench: Bench, system: System, measures: Sequence[str], sizes: Sizes) -> dict[str, Figures]:
    """Measure what is asked of one worker."""
    queue, found = bench.queue(), {}
    templates = _templates(bench, system, queue, measures)
    if "drain" in measures:
        bench.console.put(templates["noop"], sizes.backlog)
    with bench.worker(system, queue) as worker:
        life = Life(bench, system, queue, worker, sizes, templates)
        if "drain" in measures:
            worker.expected += sizes.backlog
            found["drain"] = drain(life)
        worker.put(templates["noop"], 0 if measures == ["drain"] else PROBES)
        worker.until_done()
        for name in (name for name in measures if name != "drain"):
            found[name] = LATER[name](life)
        worker.stop(queue)
    return found


def _templates(bench: Bench, system: System, queue: str, measures: Sequence[str]) -> dict[str, Template]:
    wanted: dict[str, tuple[str, object]] = {
        "latency": ("mark", SENT),
        "cpu": ("spin", SPIN),
        "bodies": ("swallow", "x"),
    }
    templates = {"noop": bench.console.template(system, queue, "noop")}
    for measure in measures:
        if measure in wanted:
            task, argument = wanted[measure]
            templates[task] = bench.console.template(system, queue, task, argument)
    return templates


def drain(life: Life) -> Figures:
    """No-ops that waited, 2 children: tasks/s from the first to the last, CPU µs per task."""
    worker = life.worker
    begun = worker.until(lambda: worker.done() > 0, 30, "the first task")
    before, at = worker.times(), worker.done()
    ended = worker.until_done()
    spent = [1e6 * (after - once) / (worker.done() - at) for after, once in zip(worker.times(), before, strict=True)]
    return {
        "tasks/s": (worker.done() - at) / (ended - begun),
        **dict(zip(("parent µs", "children µs", "broker µs"), spent, strict=True)),
    }


def latency(life: Life) -> Figures:
    """From publishing to the task's start, 200 messages/s: ms."""
    count = int(PACE * life.sizes.leisure)
    begun = len(life.worker.marks())
    life.worker.expected += count
    life.bench.console.put_paced(life.templates["mark"], paced(count))
    life.worker.until_done()
    delays = sorted(1000 * (started - sent) for sent, started in life.worker.marks()[begun:])
    return {"p50 ms": statistics.median(delays), "p99 ms": delays[int(len(delays) * 0.99)]}


def paced(count: int, rate: float = PACE) -> Iterator[float]:
    """Yield so many moments at an even rate, each when it has come."""
    begun = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begun + number / rate - time.monotonic()))
        yield time.time()


def cpu(life: Life) -> Figures:
    """Tasks of 1 ms CPU each, 2 children: share of what two CPUs could do."""
    count = life.sizes.spins
    with life.worker.frozen():
        life.worker.put(life.templates["spin"], count)
    begun = time.monotonic()
    return {"share of ideal": count / (life.worker.until_done() - begun) * SPIN / CHILDREN}


def bodies(life: Life) -> Figures:
    """Large bodies, from the first one's publishing to the last one's task: tasks/s."""
    small, large = life.sizes.bodies
    template, rates = life.templates["swallow"], {}
    for name, size, count in (("64 KiB: tasks/s", 64 * KIB, small), ("1 MiB: tasks/s", MIB, large)):
        fat = attrs.evolve(template, body=template.body.replace(b'"x"', b'"' + b"x" * size + b'"', 1))
        # not before a frozen worker: one that prefetches without limit would find all of it in its own memory
        begun = time.monotonic()
        life.worker.put(fat, count)
        rates[name] = count / (life.worker.until_done() - begun)
    return rates


LATER: Mapping[str, Callable[[Life], Figures]] = {"latency": latency, "cpu": cpu, "bodies": bodies}
