"""Workers: ours next to Celery, dramatiq, taskiq and FastStream, over one private RabbitMQ node.

    nox -s bench -- worker                                              everything, three times, some twenty minutes
    nox -s bench -- worker --quick                                      small and once, some four minutes
    nox -s bench -- worker --only=hybridpool,celery --measures=drain    some systems, some measures
    nox -s bench -- worker --json=figures.json --plot=figures.svg       written to files as well

Every system is measured in turn, and the whole is repeated. A cell shows the median, [least–most], and × the ratio to
ours. Figures only, nothing is asserted, except that every message was run once and none was left: a worker of which
that is not true has no figure. Libraries that are missing are installed, if pip can, without touching what is there;
those that are not there after that are left out, and it says so.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import attrs

from tests.benchmarks import (
    memory_work,
    worker_prefork,
    worker_publish,
    worker_rest,
    worker_steady,
    worker_table,
)
from tests.benchmarks.worker_bench import Bench
from tests.benchmarks.worker_run import Ledger, Part, install, machine, options_reader, read_options, write
from tests.benchmarks.worker_steady import QUICK, Sizes
from tests.benchmarks.worker_systems import NEEDS, STEADY, SYSTEMS, System
from tests.rabbit import Node

MEASURES: Mapping[str, str] = {
    name: (function.__doc__ or "").partition("\n")[0]
    for name, function in (
        ("drain", worker_steady.drain),
        *worker_steady.LATER.items(),
        *worker_prefork.ALL.items(),
        *worker_rest.ALL.items(),
        ("publish", worker_publish.publish),
    )
}


def main() -> None:
    """Measure, print, and write files where one wants them."""
    options = _options()
    sizes = QUICK if options.quick else Sizes()
    chosen = [system for system in SYSTEMS if system.name.startswith(options.only)]
    install(_missing(chosen, options.measures))
    started = time.monotonic()
    ledger = Ledger()
    print(", ".join(f"{name} {size}" for name, size in attrs.asdict(sizes).items()))
    # so that a node and a worker are not left behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _measure(chosen, options, sizes, ledger)
    except KeyboardInterrupt:
        print("\ninterrupted: what was found until then", file=sys.stderr)
    print("\r\033[K", end="", file=sys.stderr)
    for measure in (measure for measure in options.measures if ledger.found(measure)):
        worker_table.show(measure, MEASURES[measure], ledger.found(measure))
    print(f"\n{time.monotonic() - started:.0f} s, {machine()}, load {os.getloadavg()[0]:.1f} at the end")
    write(options, ledger)


def _measure(chosen: Sequence[System], options: argparse.Namespace, sizes: Sizes, ledger: Ledger) -> None:
    with Node("bench") as node, tempfile.TemporaryDirectory() as folder:
        bench = Bench(node, Path(folder))
        for number in range(options.repeats):
            for measures, row, job in _jobs(bench, chosen, options, sizes):
                print(f"\r\033[K{number + 1}/{options.repeats} {row}: {', '.join(measures)}", end="", file=sys.stderr)
                ledger.take(measures, row, job)
        bench.close()


# ---- what is to be done ----------------------------------------------------------------------------------------------


def _jobs(
    bench: Bench, chosen: Sequence[System], options: argparse.Namespace, sizes: Sizes
) -> Iterator[tuple[Sequence[str], str, Callable[[], Part]]]:
    """One round: measures, row, and what finds their figures."""
    present = [system for system in chosen if not system.absent()]
    for system in present:
        measures = [name for name in options.measures if name in STEADY & system.measures]
        if measures:
            yield measures, system.name, partial(_life, bench, system, measures, sizes)
    for name, measure in {**worker_prefork.ALL, **worker_rest.ALL}.items():
        for system in (system for system in present if name in system.measures & set(options.measures)):
            yield (
                [name],
                system.name,
                partial(lambda name, job: {name: job()}, name, partial(measure, bench, system, sizes)),
            )
    if "publish" in options.measures:
        for way in worker_publish.WAYS:
            if way.partition(" ")[0] in {system.family for system in present}:
                yield ["publish"], way, partial(_published, bench, way, sizes)


def _life(bench: Bench, system: System, measures: Sequence[str], sizes: Sizes) -> Part:
    found = worker_steady.live(bench, system, measures, sizes)
    return {measure: {system.name: figures} for measure, figures in found.items()}


def _published(bench: Bench, way: str, sizes: Sizes) -> Part:
    return {"publish": {way: worker_publish.publish(bench, way, sizes)}}


# ---- before and after ------------------------------------------------------------------------------------------------


def _options() -> argparse.Namespace:
    reader = options_reader("worker", __doc__, MEASURES)
    reader.add_argument("--plot", type=Path, help="where to write a picture, SVG")
    options = read_options(reader, MEASURES)
    if not any(system.name.startswith(options.only) for system in SYSTEMS):
        reader.error(f"there is no such system; there are {'; '.join(system.name for system in SYSTEMS)}")
    return options


def _missing(chosen: Sequence[System], measures: Sequence[str]) -> set[tuple[str, ...]]:
    missing = {NEEDS[system.family][1] for system in chosen if system.absent()}
    if "memory" in measures:
        missing |= {(name,) for name in memory_work.APP if find_spec(name) is None}
    return missing


if __name__ == "__main__":
    main()
