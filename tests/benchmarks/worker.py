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
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import invalidate_caches, metadata
from importlib.util import find_spec
from pathlib import Path

import attrs

from tests.benchmarks import (
    memory_work,
    worker_plot,
    worker_prefork,
    worker_publish,
    worker_rest,
    worker_steady,
    worker_table,
)
from tests.benchmarks.worker_bars import Found, verdicts
from tests.benchmarks.worker_bench import Bench
from tests.benchmarks.worker_steady import QUICK, Figures, Sizes
from tests.benchmarks.worker_systems import NEEDS, STEADY, SYSTEMS, System
from tests.rabbit import Node

#: measure → row → its figures
Part = dict[str, dict[str, Figures]]
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
PACKAGES = ("hybridpool", "aio-pika", "celery", "dramatiq", "taskiq", "taskiq-aio-pika", "faststream", "uvloop")


def main() -> None:
    """Measure, print, and write files where one wants them."""
    options = _options()
    sizes = QUICK if options.quick else Sizes()
    chosen = [system for system in SYSTEMS if system.name.startswith(options.only)]
    _install(chosen, options.measures)
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
    print(f"\n{time.monotonic() - started:.0f} s, {_machine()}, load {os.getloadavg()[0]:.1f} at the end")
    _write(options, ledger)


def _measure(chosen: Sequence[System], options: argparse.Namespace, sizes: Sizes, ledger: "Ledger") -> None:
    with Node("bench") as node, tempfile.TemporaryDirectory() as folder:
        bench = Bench(node, Path(folder))
        for number in range(options.repeats):
            for measures, row, job in _jobs(bench, chosen, options, sizes):
                print(f"\r\033[K{number + 1}/{options.repeats} {row}: {', '.join(measures)}", end="", file=sys.stderr)
                ledger.take(measures, row, job)
        bench.close()


class Ledger:
    """What was found, and what went wrong."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, list[Figures]]] = {}
        self.troubles: dict[str, dict[str, list[str]]] = {}
        #: in the order in which they were first heard of
        self._rows: dict[str, None] = {}

    def take(self, measures: Sequence[str], row: str, job: Callable[[], Part]) -> None:
        """Do a job and write down what comes of it."""
        try:
            for measure, rows in job().items():
                for name, figures in rows.items():
                    self._rows.setdefault(name)
                    self.figures.setdefault(measure, {}).setdefault(name, []).append(figures)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one system must not keep the others out
            why = f"{type(error).__name__}: {error}".removeprefix("Trouble: ")
            print(f"\n{row}: {why}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
            self._rows.setdefault(row)
            for measure in measures:
                self.troubles.setdefault(measure, {}).setdefault(row, []).append(why.partition("\n")[0])

    def found(self, measure: str) -> Found:
        """Return figures by row, and for rows that never had any the reason."""
        troubles = self.troubles.get(measure, {})
        figures = self.figures.get(measure, {})
        return {row: figures.get(row) or troubles[row][0] for row in self._rows if row in figures or row in troubles}


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
    reader = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.worker", description=(__doc__ or "").partition("\n")[0]
    )

    def words(text: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in text.split(","))

    reader.add_argument("--quick", action="store_true", help="small sizes, one repeat")
    reader.add_argument("--repeats", type=int, help="how often; 3, with --quick 1")
    reader.add_argument("--only", type=words, default=("",), help="systems whose names begin so: hybridpool,celery")
    reader.add_argument("--measures", type=words, default=tuple(MEASURES), help=f"of {', '.join(MEASURES)}")
    reader.add_argument("--json", type=Path, help="where to write the figures")
    reader.add_argument("--plot", type=Path, help="where to write a picture, SVG")
    options = reader.parse_args()
    unknown = set(options.measures) - set(MEASURES)
    if unknown:
        reader.error(f"there is no measure {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    if not any(system.name.startswith(options.only) for system in SYSTEMS):
        reader.error(f"there is no such system; there are {'; '.join(system.name for system in SYSTEMS)}")
    options.repeats = options.repeats or (1 if options.quick else 3)
    return options


def _install(chosen: Sequence[System], measures: Sequence[str]) -> None:
    missing = {NEEDS[system.family][1] for system in chosen if system.absent()}
    if "memory" in measures:
        missing |= {(name,) for name in memory_work.APP if find_spec(name) is None}
    if not missing:
        return
    print(f"installing {', '.join(packages[0] for packages in sorted(missing))} …", flush=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as present:
        # nothing that is here may change: it is what is measured
        present.writelines(f"{found.name}=={found.version}\n" for found in metadata.distributions())
        present.flush()
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", present.name]
        # one by one: what cannot be had must not keep the others out
        failed = [one[0] for one in sorted(missing) if subprocess.call([*words, *one], stderr=subprocess.DEVNULL)]
    print(f"absent: {', '.join(failed)}" if failed else "done")
    invalidate_caches()


def _machine() -> str:
    return f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}"


def _write(options: argparse.Namespace, ledger: Ledger) -> None:
    found = {name: ledger.found(name) for name in options.measures}
    versions = {name: _version(name) for name in PACKAGES}
    if options.json:
        about = {"machine": _machine(), "versions": versions, "quick": options.quick, "repeats": options.repeats}
        bars = {name: dict(verdicts(name, found[name])) for name in found}
        figures = {"found": found, "troubles": ledger.troubles, "bars": bars}
        options.json.write_text(json.dumps({**about, **figures}, indent=1, allow_nan=False) + "\n")
    if options.plot:
        said = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        notes = [f"Medians of {options.repeats}, and the spread; {_machine()}, broker on the same", said]
        options.plot.write_text(worker_plot.picture(found, notes))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
