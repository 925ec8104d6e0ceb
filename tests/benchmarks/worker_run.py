"""What every run of measures has: a ledger of what was found, peers that are installed, files that are written."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from importlib import invalidate_caches, metadata
from pathlib import Path

from tests.benchmarks import worker_plot
from tests.benchmarks.worker_bars import Found, verdicts
from tests.benchmarks.worker_steady import Figures

#: measure → row → its figures
Part = dict[str, dict[str, Figures]]
PACKAGES = (
    "hybridpool",
    "aio-pika",
    "celery",
    "gevent",
    "dramatiq",
    "taskiq",
    "taskiq-aio-pika",
    "faststream",
    "uvloop",
)


def options_reader(name: str, doc: str | None, measures: Collection[str]) -> argparse.ArgumentParser:
    """Return a parser of the options that all these programs have."""

    def words(text: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in text.split(","))

    reader = argparse.ArgumentParser(
        prog=f"python -m tests.benchmarks.{name}", description=(doc or "").partition("\n")[0]
    )
    reader.add_argument("--quick", action="store_true", help="small sizes, one repeat")
    reader.add_argument("--repeats", type=int, help="how often; 3, with --quick 1")
    reader.add_argument("--only", type=words, default=("",), help="rows whose names begin so: hybridpool,celery")
    reader.add_argument("--measures", type=words, default=tuple(measures), help=f"of {', '.join(measures)}")
    reader.add_argument("--json", type=Path, help="where to write the figures")
    return reader


def read_options(reader: argparse.ArgumentParser, measures: Collection[str]) -> argparse.Namespace:
    """Read the command line; a measure that does not exist ends the program."""
    options = reader.parse_args()
    unknown = set(options.measures) - set(measures)
    if unknown:
        reader.error(f"there is no measure {', '.join(sorted(unknown))}; there are {', '.join(measures)}")
    options.repeats = options.repeats or (1 if options.quick else 3)
    return options


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


def install(missing: Collection[tuple[str, ...]]) -> None:
    """Install packages without touching what is there; those that cannot be had are named."""
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


def machine() -> str:
    """Say what this was measured on."""
    return f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}"


def write(options: argparse.Namespace, ledger: Ledger) -> None:
    """Write the files that were asked for."""
    found = {name: ledger.found(name) for name in options.measures}
    versions = {name: _version(name) for name in PACKAGES}
    if options.json:
        about = {"machine": machine(), "versions": versions, "quick": options.quick, "repeats": options.repeats}
        bars = {name: dict(verdicts(name, found[name])) for name in found}
        figures = {"found": found, "troubles": ledger.troubles, "bars": bars}
        options.json.write_text(json.dumps({**about, **figures}, indent=1, allow_nan=False) + "\n")
    if options.plot:
        said = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        notes = [f"Medians of {options.repeats}, and the spread; {machine()}, broker on the same", said]
        options.plot.write_text(worker_plot.picture(found, notes))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
