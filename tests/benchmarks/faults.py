"""Faults: what becomes of 2,000 tasks when something is killed at the 600th, ours next to other workers.

    nox -s bench -- faults                       all, some ten minutes
    python -m tests.benchmarks.faults --quick    600 tasks, the two cases in which something is killed

Every worker has two processes that run one task at a time, a millisecond each, and a queue of its own on one private
node. From the 600th on all tasks stand at a gate, so that the accident surely strikes in the middle of tasks. Figures
only, nothing is asserted. Workers that are missing are installed, if pip can; those that are not there after that are
left out, and it says so.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.benchmarks.faults_cases import CASES, QUICK
from tests.benchmarks.faults_peers import PEERS, Peer
from tests.benchmarks.faults_run import Figures, Run
from tests.rabbit import Node

#: by the module that must be there
PACKAGES = {"celery": "celery", "dramatiq": "dramatiq[rabbitmq]", "taskiq_aio_pika": "taskiq-aio-pika"}
TASKS, FEW_TASKS = 2000, 600
#: of each worker's output that are shown
LAST_LINES = 20
HEADS = ("", "lost", "left", "started twice", "done twice", "next start", "new process", "longest pause", "orphans", "")
#: of one worker in one case; a text says why there are none
Found = Figures | str


def main() -> None:
    """Measure, print, and write the figures where one wants them."""
    options = _options()
    _install()
    count = FEW_TASKS if options.quick else TASKS
    peers = [peer for peer in PEERS if options.only in peer.name]
    cases = [case for case in (QUICK if options.quick else CASES) if options.case in case]
    print(f"{count} tasks of 1 ms, two at a time; times in seconds from the accident; {_versions()}", flush=True)
    results: dict[str, dict[str, Found]] = {}
    with Node("bench") as node:
        for case in cases:
            results[case] = {}
            print(f"\n{case}\n", flush=True)
            _print_row(HEADS)
            _print_row(["---"] * len(HEADS))
            for peer in peers:
                results[case][peer.name] = found = _measured(node, peer, case, count, options.logs)
                _print_row(list(_cells(peer.name, found)))
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1, default=attrs.asdict))


def _options() -> argparse.Namespace:
    reader = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.faults", description=(__doc__ or "").partition("\n")[0]
    )
    reader.add_argument("--quick", action="store_true", help="fewer tasks, and only the cases in which one is killed")
    reader.add_argument("--only", default="", help="only workers with this in their name")
    reader.add_argument("--case", default="", help="only accidents with this in their name")
    reader.add_argument("--logs", action="store_true", help="show what the workers wrote")
    reader.add_argument("--json", help="where to write the figures")
    return reader.parse_args()


def _install() -> None:
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        print(f"installing {', '.join(missing)} …", flush=True)
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # one by one: what cannot be had must not keep the others out
        failed = [name for name in missing if subprocess.call([*words, name], stderr=subprocess.DEVNULL)]
        print(f"absent: {', '.join(failed)}" if failed else "done")
        importlib.invalidate_caches()


def _versions() -> str:
    names = sorted({peer.module.replace("_", "-") for peer in PEERS if importlib.util.find_spec(peer.module)})
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _measured(node: Node, peer: Peer, case: str, count: int, logs: bool) -> Found:
    """Put one worker through one case; a text says why that failed."""
    if importlib.util.find_spec(peer.module) is None:
        return "absent: pip could not install it"
    with tempfile.TemporaryDirectory() as folder:
        run = Run(node, peer, count, Path(folder))
        try:
            run.begin()
            return run.figures(CASES[case](run))
        except subprocess.SubprocessError:
            return "failed: could not send its tasks"
        except AssertionError as error:
            return f"failed: {error}"
        finally:
            run.close()
            # the next one needs it, whatever happened to this one
            if not node.is_running():
                node.start()
            if logs:
                print("\n".join(line for text in run.outputs for line in text.splitlines()[-LAST_LINES:]))


def _cells(name: str, found: Found) -> Iterator[str]:
    """Yield a row of the table; what has no meaning in a case stays empty."""
    yield name
    if isinstance(found, str):
        yield from [""] * (len(HEADS) - 2)
        yield found
        return
    yield from (str(count) for count in (found.lost, found.left, found.started_twice, found.done_twice))
    yield from (_time(value) for value in (found.next_start, found.new_process, found.longest_pause))
    yield "" if found.orphans is None else str(found.orphans)
    aside = f"{found.aside} of them in another queue" if found.aside else ""
    yield "; ".join(filter(None, [found.remark, aside]))


def _time(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f}"


def _print_row(cells: list[str] | tuple[str, ...]) -> None:
    print("|" + "".join(f" {cell} |" if cell else " |" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
