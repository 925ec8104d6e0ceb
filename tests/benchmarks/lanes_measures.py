"""What waiting tasks show: at a steady rate, by the thousand, doing nothing, at their limits, when their child dies.

A call writes down when it was published and when its first line ran: the time between is its delay.
"""

import contextlib
import math
import signal
import statistics
import time
from collections import Counter
from collections.abc import Generator, Iterator

import attrs
import psutil

from tests.benchmarks import memory_work
from tests.benchmarks.lanes_systems import Entry
from tests.benchmarks.lanes_work import ASIDE, LIMIT
from tests.benchmarks.worker_bench import Bench, Running, Trouble
from tests.benchmarks.worker_console import SENT, Template
from tests.benchmarks.worker_rest import calm, held
from tests.benchmarks.worker_steady import PROBES, Figures, Life, Sizes, drain, paced

KIB = 1024
#: seconds of CPU time and of waiting are compared over so long
LOOK_S = 3.0
#: seconds until a worker's first task has ended
PATIENCE_S = 30.0
#: calls that a limit ends, and how many of them are published a second
ENDED, ENDED_RATE = 200, 50.0


@attrs.frozen
class LaneSizes:
    """How much is done."""

    #: seconds that a call waits; seconds of one call a second, and of a hundred
    wait: float = 5.0
    second: float = 20.0
    hundred: float = 60.0
    #: calls that wait at once, and for how many seconds
    waiting: int = 10_000
    waiting_for: float = 30.0
    backlog: int = 20_000
    #: calls in flight when a limit comes, or a child dies
    in_flight: int = 1000
    #: tasks that compute for a second, before seconds of a hundred coroutines each
    computing: int = 1000
    mixed: float = 20.0


QUICK = LaneSizes(
    wait=2.0, second=6.0, hundred=6.0, waiting=2000, waiting_for=10.0, backlog=4000, in_flight=400, mixed=10.0
)


@contextlib.contextmanager
def _warm(bench: Bench, entry: Entry, *args: object) -> Generator[tuple[str, Running, Template]]:
    """Start a worker that has worked a little; with it comes the message of a call with these arguments."""
    queue = bench.queue()
    # what has been worked off before cannot outstay, nor hold anything
    probe = entry.task if entry.task in {"linger", "noop", "nothing"} else "rest"
    warm = bench.console.template(entry.system, queue, probe, *([SENT, 0.0] if probe in {"linger", "rest"} else []))
    template = bench.console.template(entry.system, queue, entry.task, *args)
    with bench.worker(entry.system, queue, children=entry.children) as worker:
        worker.put(warm, PROBES)
        worker.until_done()
        yield queue, worker, template


def second(bench: Bench, entry: Entry, sizes: LaneSizes) -> Figures:
    """Calls that wait 5 s, one a second: processes and MiB of all of them with the last in flight; delays."""
    return _steady(bench, entry, sizes, 1.0, sizes.second)


def hundred(bench: Bench, entry: Entry, sizes: LaneSizes) -> Figures:
    """Calls that wait 5 s, a hundred a second, 500 at once: as above; calls that were run again."""
    return _steady(bench, entry, sizes, 100.0, sizes.hundred)


def _steady(bench: Bench, entry: Entry, sizes: LaneSizes, rate: float, seconds: float) -> Figures:
    rate = entry.rate or rate
    with _warm(bench, entry, SENT, sizes.wait) as (queue, worker, template):
        calm(worker)
        begun, count = len(worker.marks()), int(rate * seconds)
        worker.expected += count
        bench.console.put_paced(template, paced(count, rate))
        processes, (share, _) = len(worker.tree()), held(worker)
        worker.until_done()
        marks = worker.marks()[begun:]
        worker.stop(queue)
    delays = sorted(1000 * (started - sent) for sent, started in marks)
    return {
        "processes": processes,
        "PSS MiB": share,
        "p50 ms": statistics.median(delays),
        "p99 ms": delays[int(len(delays) * 0.99)],
        "most ms": delays[-1],
        "run again": len(marks) - count,
    }


def waiting(bench: Bench, entry: Entry, sizes: LaneSizes) -> Figures:
    """Calls that all wait at once: s from the last publish until all have started; memory, and CPU while they wait."""
    with _warm(bench, entry, SENT, sizes.waiting_for) as (queue, worker, template):
        calm(worker)
        begun, before = len(worker.marks()), _private(worker)
        worker.expected += sizes.waiting
        bench.console.put_paced(template, _at_once(sizes.waiting))
        published = time.time()
        worker.until(lambda: len(worker.marks()) - begun >= sizes.waiting, sizes.waiting_for, "the start of all")
        marks = worker.marks()[begun:]
        if worker.done() > begun:
            raise Trouble("the first calls had ended before the last ones began")
        calm(worker)
        after, (share, _) = _private(worker), held(worker)
        own, others, _broker = worker.times()
        time.sleep(LOOK_S)
        own_after, others_after, _broker = worker.times()
        worker.until_done()
        worker.stop(queue)
    grown = [(after[pid] - size) / sizes.waiting / KIB for pid, size in before.items()]
    return {
        "all started s": max(0.0, marks[-1][1] - published),
        "PSS MiB": share,
        "parent KiB/call": grown[0],
        "others KiB/call": sum(grown[1:]),
        "CPU %": 100 * (own_after - own + others_after - others) / LOOK_S,
    }


def _at_once(count: int) -> Iterator[float]:
    for _ in range(count):
        yield time.time()


def _private(worker: Running) -> dict[int, int]:
    """Return what each process holds alone, the first one's first."""
    return {process.pid: memory_work.pages(process.pid).private for process in worker.tree()}


def noops(bench: Bench, entry: Entry, sizes: LaneSizes) -> Figures:
    """No-ops that waited: tasks/s from the first to the last, CPU µs per task of the worker, and of the broker."""
    queue = bench.queue()
    template = bench.console.template(entry.system, queue, entry.task)
    bench.console.put(template, sizes.backlog)
    with bench.worker(entry.system, queue, children=entry.children) as worker:
        worker.expected += sizes.backlog
        found = drain(Life(bench, entry.system, queue, worker, Sizes(), {}))
        worker.stop(queue)
    own, children = found["parent µs"], found["children µs"]
    return {"tasks/s": found["tasks/s"], "worker µs": own + children, "parent µs": own, "broker µs": found["broker µs"]}


def limits(bench: Bench, entry: Entry, sizes: LaneSizes) -> Figures:
    """Calls that outstay a limit, 50 a second among waiting ones, ours only: ms from the limit until it is raised."""
    # one that holds the loop stops the others as well, so it is alone
    beside, count = (0, 1) if entry.task == "hold" else (sizes.in_flight - 2 * int(LIMIT * ENDED_RATE), ENDED)
    with _warm(bench, entry, SENT, LIMIT) as (queue, worker, template):
        rest = bench.console.template(entry.system, bench.queue(), "rest", SENT, sizes.wait + ENDED / ENDED_RATE)
        worker.put(attrs.evolve(rest, queue=queue), beside)
        worker.until(lambda: len(worker.marks()) >= PROBES + beside, sizes.wait, "the start of all")
        begun = len(worker.marks())
        worker.expected += count
        bench.console.put_paced(template, paced(count, ENDED_RATE))
        worker.until_done()
        late = sorted(1000 * (raised - due) for due, raised in worker.marks()[begun:])
        worker.stop(queue)
    return {
        "calls": count,
        "beside them": beside,
        "p50 ms": statistics.median(late),
        "p99 ms": late[int(len(late) * 0.99)],
    }


def mixed(bench: Bench, entry: Entry, sizes: LaneSizes) -> Figures:
    """Tasks of 1 s CPU wait, then come coroutines, a hundred a second, ours only: what is held, said and started."""
    queue = bench.queue()
    other = bench.queue() if entry.is_apart else queue
    spin = bench.console.template(entry.system, queue, "spin", 1.0)
    rest = bench.console.template(entry.system, other, entry.task, SENT, sizes.wait)
    bench.console.put(spin, sizes.computing)
    consumed = ",".join(dict.fromkeys((queue, other)))
    aside = {ASIDE: other} if entry.is_apart else {}
    with bench.worker(entry.system, queue, f"--queues={consumed}", children=entry.children, env=aside) as worker:
        worker.until(lambda: worker.done() > 0, PATIENCE_S, "the first task")
        kept = sizes.computing - bench.console.depth(queue) - worker.done()
        count = int(100 * sizes.mixed)
        bench.console.put_paced(rest, paced(count, 100))
        time.sleep(LOOK_S)
        # in one queue they come after what waits for the CPUs, which is minutes; so it is killed
        marks = worker.marks()
        warnings = worker.logged("a queue of its own")
    delays = sorted(1000 * (started - sent) for sent, started in marks)
    return {
        "held at first": kept,
        "warnings": warnings,
        "started %": 100 * len(marks) / count,
        "p50 ms": statistics.median(delays) if delays else math.nan,
        "p99 ms": delays[int(len(delays) * 0.99)] if delays else math.nan,
    }


def death(bench: Bench, entry: Entry, sizes: LaneSizes) -> Figures:
    """The child is killed with all its calls in flight, ours only: s until the next start, and the last; starts."""
    with _warm(bench, entry, SENT, sizes.wait) as (queue, worker, template):
        begun = len(worker.marks())
        worker.expected += sizes.in_flight
        bench.console.put_paced(template, _at_once(sizes.in_flight))
        worker.until(lambda: len(worker.marks()) - begun >= sizes.in_flight, sizes.wait, "the start of all")
        if worker.done() > begun:
            raise Trouble("the first calls had ended before the last ones began")
        killed = time.time()
        _child(worker).send_signal(signal.SIGKILL)
        worker.until_done()
        marks = worker.marks()[begun:]
        worker.stop(queue)
    again = [started - killed for _, started in marks if started > killed]
    starts = Counter(sent for sent, _ in marks)
    return {
        "calls": len(starts),
        "next start s": min(again),
        "last start s": max(again),
        "starts at most": max(starts.values()),
    }


def _child(worker: Running) -> psutil.Process:
    """Return the process that runs the calls: what the zygote has forked."""
    tree = worker.tree()
    parents = {process.pid: process.ppid() for process in tree}
    (child,) = (process for process in tree if parents.get(parents[process.pid]) in parents)
    return child
