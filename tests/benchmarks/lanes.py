"""Lanes: many waiting tasks in ours next to Celery, dramatiq, taskiq and FastStream, over one private RabbitMQ node.

    nox -s bench -- lanes                                           everything, three times, some forty minutes
    nox -s bench -- lanes --quick                                   small and once, some four minutes
    nox -s bench -- lanes --only=hybridpool,taskiq --measures=hundred    some rows, some measures
    nox -s bench -- lanes --json=figures.json                       written to a file as well

As the benchmark of workers: every row in turn, and the whole repeated; figures only, and none for a worker that has
lost a call or run one twice that it need not have. Missing libraries are installed, or left out.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import attrs

from tests.benchmarks import lanes_measures, lanes_systems, worker_table
from tests.benchmarks.lanes_measures import QUICK, LaneSizes
from tests.benchmarks.lanes_systems import Entry
from tests.benchmarks.worker_bench import Bench
from tests.benchmarks.worker_run import Ledger, Part, install, machine, options_reader, read_options, write
from tests.benchmarks.worker_steady import Figures
from tests.benchmarks.worker_systems import NEEDS
from tests.rabbit import Node

Measure = Callable[[Bench, Entry, LaneSizes], Figures]
MEASURES: Mapping[str, tuple[Measure, Callable[[LaneSizes], Sequence[Entry]]]] = {
    "second": (lanes_measures.second, lambda _: lanes_systems.SECOND),
    "hundred": (lanes_measures.hundred, lambda _: lanes_systems.HUNDRED),
    "waiting": (lanes_measures.waiting, lambda sizes: lanes_systems.waiting(sizes.waiting)),
    "noops": (lanes_measures.noops, lambda _: lanes_systems.NOOPS),
    "limits": (lanes_measures.limits, lambda _: lanes_systems.LIMITS),
    "death": (lanes_measures.death, lambda _: lanes_systems.DEATH),
    "mixed": (lanes_measures.mixed, lambda _: lanes_systems.MIXED),
}


def main() -> None:
    """Measure, print, and write a file where one wants it."""
    options = _options()
    sizes = QUICK if options.quick else LaneSizes()
    rows = {
        name: [entry for entry in MEASURES[name][1](sizes) if entry.name.startswith(options.only)]
        for name in options.measures
    }
    systems = [entry.system for entries in rows.values() for entry in entries]
    install({NEEDS[system.family][1] for system in systems if system.absent()})
    ledger, started = Ledger(), time.monotonic()
    print(", ".join(f"{name} {size}" for name, size in attrs.asdict(sizes).items()))
    # so that a node and a worker are not left behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _measure(rows, options.repeats, sizes, ledger)
    except KeyboardInterrupt:
        print("\ninterrupted: what was found until then", file=sys.stderr)
    print("\r\033[K", end="", file=sys.stderr)
    for name in (name for name in rows if ledger.found(name)):
        worker_table.show(name, (MEASURES[name][0].__doc__ or "").partition("\n")[0], ledger.found(name))
    print(f"\n{time.monotonic() - started:.0f} s, {machine()}, load {os.getloadavg()[0]:.1f} at the end")
    write(options, ledger)


def _measure(rows: Mapping[str, Sequence[Entry]], repeats: int, sizes: LaneSizes, ledger: Ledger) -> None:
    with Node("bench") as node, tempfile.TemporaryDirectory() as folder:
        bench = Bench(node, Path(folder))
        for number in range(repeats):
            for name, entry in ((name, entry) for name, entries in rows.items() for entry in entries):
                if not entry.system.absent():
                    print(f"\r\033[K{number + 1}/{repeats} {name}: {entry.name}", end="", file=sys.stderr)
                    ledger.take([name], entry.name, partial(_part, name, entry, bench, sizes))
        bench.close()


def _part(name: str, entry: Entry, bench: Bench, sizes: LaneSizes) -> Part:
    return {name: {entry.name: MEASURES[name][0](bench, entry, sizes)}}


def _options() -> argparse.Namespace:
    reader = options_reader("lanes", __doc__, MEASURES)
    reader.set_defaults(plot=None)
    return read_options(reader, MEASURES)


if __name__ == "__main__":
    main()
