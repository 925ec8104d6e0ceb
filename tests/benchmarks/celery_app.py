"""One Celery app with default settings, run by Celery's worker and by ours, over one private RabbitMQ node.

    nox -s bench -- celery-app                                      everything, three times, some six minutes
    nox -s bench -- celery-app --quick                              small and once, a minute
    nox -s bench -- celery-app --measures=no-ops,chains             some measures
    nox -s bench -- celery-app --json=figures.json                  written to a file as well

Both log at the level INFO, and have two children. As the benchmark of workers: each in turn, and the whole repeated;
figures only, and none for a worker that has lost a call or run one twice.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Final

import attrs

from tests.benchmarks import memory_work, worker_rest, worker_table
from tests.benchmarks import worker_work as work
from tests.benchmarks.worker_bench import Bench, Running, Trouble
from tests.benchmarks.worker_console import SENT
from tests.benchmarks.worker_run import Ledger, Part, install, machine, options_reader, read_options, write
from tests.benchmarks.worker_steady import CHILDREN, PROBES, SPIN, Figures
from tests.benchmarks.worker_systems import CELERY, NEEDS, OURS, System
from tests.rabbit import Node

_APP: Final = "tests.benchmarks.worker_app_hosted"
SYSTEMS: Final[Sequence[System]] = (
    System(OURS, CELERY, ("hybridpool", "-A", _APP, "worker", "-c", "{children}"), frozenset(), dialect="hosted"),
    System(
        CELERY,
        CELERY,
        ("celery", "-A", _APP, "worker", "-c", "{children}", "--loglevel=INFO"),
        frozenset(),
        dialect="hosted",
    ),
)
#: children of the fat app
FAT_CHILDREN: Final = 4


@attrs.frozen
class Sizes:
    """How much is done."""

    noops: int = 10_000
    spins: int = 3000
    chains: int = 1500
    #: with children replaced after 100 tasks, and after 10
    recycled: tuple[int, int] = (3000, 600)
    #: seconds after which recycling is given up
    patience: float = 10.0
    litter: int = 2000


QUICK: Final = Sizes(noops=3000, spins=1000, chains=400, recycled=(1000, 300), patience=6.0, litter=500)


def noops(bench: Bench, system: System, sizes: Sizes) -> dict[str, Figures]:
    """No-ops that waited: tasks/s from the first to the last, CPU µs per task."""
    return {system.name: _backlog(bench, system, "noop", (), sizes.noops)}


def milliseconds(bench: Bench, system: System, sizes: Sizes) -> dict[str, Figures]:
    """Tasks of 1 ms of CPU time that waited: tasks/s, CPU µs per task, share of what two CPUs could do."""
    found = _backlog(bench, system, "spin", (SPIN,), sizes.spins)
    return {system.name: {**found, "share of ideal": found["tasks/s"] * SPIN / CHILDREN}}


def chains(bench: Bench, system: System, sizes: Sizes) -> dict[str, Figures]:
    """Chains of three no-ops that waited: tasks/s from the first to the last, CPU µs per task."""
    return {system.name: _backlog(bench, system, "chain", (), sizes.chains, each=3)}


def recycling(bench: Bench, system: System, sizes: Sizes) -> dict[str, Figures]:
    """Children replaced after so many no-ops: tasks/s, longest gap between two, share that was done in time."""
    found = {}
    for every, count in ((100, sizes.recycled[0]), (10, sizes.recycled[1])):
        queue = bench.queue()
        bench.console.put(bench.console.template(system, queue, "mark", SENT), count)
        with bench.worker(system, queue, f"--max-tasks-per-child={every}") as worker:
            worker.expected = count
            try:
                worker.until_done(sizes.patience + 2)
            except Trouble:
                # A worker that is too slow has a figure as well: how far it came.
                if worker.process.poll() is not None:
                    raise
            moments = [started for _, started in worker.marks()]
            if len(moments) < 2:
                raise Trouble(f"{len(moments)} tasks done in {sizes.patience:g} s")
            if len(moments) == count:
                worker.stop(queue)
        took = moments[-1] - moments[0] if len(moments) == count else sizes.patience
        found[f"{system.name}, every {every}"] = {
            "tasks/s": (len(moments) - 1) / took,
            "longest gap ms": 1000 * max(after - before for before, after in pairwise(moments)),
            "done %": 100 * len(moments) / count,
        }
    return found


def fat(bench: Bench, system: System, sizes: Sizes) -> dict[str, Figures]:
    """An app with pandas, 4 children: PSS of all processes, MiB, at rest and after tasks that make garbage."""
    queue = bench.queue()
    probe, litter = (bench.console.template(system, queue, task) for task in ("noop", "litter"))
    with bench.worker(system, queue, children=FAT_CHILDREN, env={work.FAT: "1"}) as worker:
        worker.put(probe, PROBES)
        worker.until_done()
        worker_rest.calm(worker)
        rest, _ = worker_rest.held(worker)
        worker.put(litter, sizes.litter)
        worker.until_done()
        worker_rest.calm(worker)
        after, _ = worker_rest.held(worker)
    return {system.name: {"at rest": rest, "after tasks": after}}


def _backlog(bench: Bench, system: System, task: str, args: Sequence[object], count: int, *, each: int = 1) -> Figures:
    """Measure a backlog that waits for the worker.

    :param each: tasks that come of one message.
    """
    queue = bench.queue()
    bench.console.put(bench.console.template(system, queue, task, *args), count)
    with bench.worker(system, queue) as worker:
        worker.expected = count * each
        found = _rate(worker)
        worker.stop(queue)
    return found


def _rate(worker: Running) -> Figures:
    begun = worker.until(lambda: worker.done() > 0, 30, "the first task")
    before, at = worker.times(), worker.done()
    took = worker.until_done() - begun
    spent = [1e6 * (after - once) / (worker.expected - at) for after, once in zip(worker.times(), before, strict=True)]
    return {
        "tasks/s": (worker.expected - at) / took,
        **dict(zip(("parent µs", "children µs", "broker µs"), spent, strict=True)),
    }


Measure = Callable[[Bench, System, Sizes], dict[str, Figures]]
MEASURES: Final[Mapping[str, Measure]] = {
    "no-ops": noops,
    "milliseconds": milliseconds,
    "chains": chains,
    "recycling": recycling,
    "fat": fat,
}


def main() -> None:
    """Measure, print, and write a file where one wants it."""
    reader = options_reader("celery_app", __doc__, MEASURES)
    reader.set_defaults(plot=None)
    options = read_options(reader, MEASURES)
    missing = {NEEDS[CELERY][1]} if SYSTEMS[0].absent() else set[tuple[str, ...]]()
    if "fat" in options.measures:
        missing |= {(name,) for name in memory_work.APP if find_spec(name) is None}
    install(missing)
    ledger, started, sizes = Ledger(), time.monotonic(), QUICK if options.quick else Sizes()
    print(", ".join(f"{name} {size}" for name, size in attrs.asdict(sizes).items()))
    # so that a node and a worker are not left behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _measure(options, sizes, ledger)
    except KeyboardInterrupt:
        print("\ninterrupted: what was found until then", file=sys.stderr)
    print("\r\033[K", end="", file=sys.stderr)
    for name in (name for name in options.measures if ledger.found(name)):
        worker_table.show(name, (MEASURES[name].__doc__ or "").partition("\n")[0], ledger.found(name))
    print(f"\n{time.monotonic() - started:.0f} s, {machine()}, load {os.getloadavg()[0]:.1f} at the end")
    write(options, ledger)


def _measure(options: argparse.Namespace, sizes: Sizes, ledger: Ledger) -> None:
    systems = [system for system in SYSTEMS if system.name.startswith(options.only)]
    with Node("bench") as node, tempfile.TemporaryDirectory() as folder:
        bench = Bench(node, Path(folder))
        for number in range(options.repeats):
            for name in options.measures:
                # in turn, so that what else the machine does meets both
                for system in systems if number % 2 == 0 else reversed(systems):
                    print(f"\r\033[K{number + 1}/{options.repeats} {name}: {system.name}", end="", file=sys.stderr)
                    ledger.take([name], system.name, partial(_part, name, bench, system, sizes))
        bench.close()


def _part(name: str, bench: Bench, system: System, sizes: Sizes) -> Part:
    return {name: MEASURES[name](bench, system, sizes)}


if __name__ == "__main__":
    main()
