"""What only prefork workers do: replace children after so many tasks, grow and shrink, answer a ping meanwhile."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import attrs
import psutil

from tests.benchmarks import worker_work as work
from tests.benchmarks.worker_bench import DEADLINE, ROOT, Bench, Running, Trouble
from tests.benchmarks.worker_console import SENT
from tests.benchmarks.worker_ping import ping
from tests.benchmarks.worker_steady import Figures, Sizes
from tests.benchmarks.worker_systems import OURS, System

NAP = 0.02
LEAST, MOST = 1, 8
#: seconds that a surplus child may idle; and after which an autoscaler is given up
IDLE, SCALED = 1, 30.0


@attrs.frozen
class Case:
    """A way of recycling."""

    name: str
    children: int
    #: tasks per child
    every: int | None
    tasks: int


def recycle(bench: Bench, system: System, sizes: Sizes) -> dict[str, Figures]:
    """Children replaced after so many no-ops: tasks/s from first to last, longest gap between two completions, done."""
    most, least = sizes.recycled
    cases = (
        Case("-c 1", 1, None, 60),
        Case("-c 1, every 3", 1, 3, 60),
        Case("-c 1, every 10", 1, 10, 100),
        Case("-c 2", 2, None, most),
        Case("-c 2, every 100", 2, 100, most),
        Case("-c 2, every 10", 2, 10, least),
    )
    found = {f"{system.name} {case.name}": _recycled(bench, system, case, sizes.patience) for case in cases}
    if system.name == OURS:
        found |= {f"fork and exit alone {case.name}": _forked(bench, case) for case in cases if case.every}
    return found


def _forked(bench: Bench, case: Case) -> Figures:
    marks, counts = bench.folder / "marks-of-forks", bench.folder / "counts-of-forks"
    marks.write_bytes(b"")
    counts.write_bytes(bytes(work.SLOTS * 8))
    environment = {**bench.environment, work.QUEUE: "none", work.COUNTS: str(counts), work.MARKS: str(marks)}
    words = [sys.executable, "-m", "tests.benchmarks.worker_fork", case.children, case.every, case.tasks]
    subprocess.run(list(map(str, words)), cwd=ROOT, env=environment, check=True, timeout=DEADLINE)
    return _figures(sorted(started for _, started in work.MARK.iter_unpack(marks.read_bytes())), case, 0.0)


def _recycled(bench: Bench, system: System, case: Case, patience: float) -> Figures:
    queue = bench.queue()
    template = bench.console.template(system, queue, "mark", SENT)
    bench.console.put(template, case.tasks)
    more = () if case.every is None else (f"--max-tasks-per-child={case.every}",)
    with bench.worker(system, queue, *more, children=case.children) as worker:
        worker.expected = case.tasks
        try:
            worker.until_done(patience + 2)
        except Trouble:
            # a worker that is too slow has a figure as well: how far it came
            if worker.process.poll() is not None:
                raise
        moments = [started for _, started in worker.marks()]
        if len(moments) < 2:
            raise Trouble(f"{len(moments)} tasks done in {patience:g} s")
        if len(moments) == case.tasks:
            worker.stop(queue)
    return _figures(moments, case, patience)


def _figures(moments: Sequence[float], case: Case, patience: float) -> Figures:
    gap = max(after - before for before, after in pairwise(moments))
    # what was not done was waited for
    took = moments[-1] - moments[0] if len(moments) == case.tasks else patience
    return {
        "tasks/s": (len(moments) - 1) / took,
        "longest gap ms": 1000 * gap,
        "done %": 100 * len(moments) / case.tasks,
    }


def scale(bench: Bench, system: System, sizes: Sizes) -> dict[str, Figures]:
    """A burst of 20 ms tasks, --autoscale=8,1, idle limit 1 s: s until 8 children work, burst done, back at 1."""
    queue = bench.queue()
    probe, burst = (bench.console.template(system, queue, "nap", seconds) for seconds in (0.0, NAP))
    more = [f"--autoscale={MOST},{LEAST}", *([f"--autoscale-idle={IDLE}s"] if system.family == OURS else [])]
    environment = {"AUTOSCALE_KEEPALIVE": str(IDLE)}
    with bench.worker(system, queue, *more, children=LEAST, env=environment) as worker:
        worker.put(probe, 1)
        worker.until_done()
        rest = _children(worker)
        begun = time.monotonic()
        worker.put(burst, sizes.burst)
        grown = worker.until(lambda: worker.workers() >= MOST or worker.done() >= worker.expected, SCALED, "growing")
        # if a few children did it all before the rest was there, there is no such moment
        full = {"full after s": grown - begun} if worker.workers() >= MOST else {}
        done = worker.until_done()
        small = worker.until(lambda: _children(worker) <= rest, SCALED, "shrinking")
        worker.stop(queue)
    return {system.name: {**full, "burst done s": done - begun, "back after s": small - done}}


def _children(worker: Running) -> int:
    # a look at every process of the machine costs some milliseconds
    time.sleep(0.05)
    return len(psutil.Process(worker.process.pid).children(recursive=True))


ALL: Mapping[str, Callable[[Bench, System, Sizes], dict[str, Figures]]] = {
    "recycle": recycle,
    "scale": scale,
    "ping": ping,
}
