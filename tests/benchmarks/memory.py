"""Memory of children of a fat app: zygote and freeze next to a plain fork; and which memory a limit sees.

    nox -s bench -- memory                       each three times, two or three minutes
    python -m tests.benchmarks.memory --quick    once

Each tree of processes is built in a fresh process, one after the other, the whole repeated. Tables are Markdown; cells
are medians over the repeats. Figures only, nothing is asserted. numpy and pandas, which are the fat app, and billiard
are installed, if pip can.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence

from tests.benchmarks import memory_recycling, memory_trees, memory_work

#: seconds after which one tree is given up
DEADLINE = 120.0
#: what stands in the tables of the stages
STAGES = {
    "begin": "At start",
    "collect": "After five collections in each child, and 50,000 small objects made and dropped between",
    "compute": "After some work with numpy and pandas on top",
}
#: figures of one way, by stage, or a text that says why there are none
Found = Mapping[str, Mapping[str, float]] | str
RECYCLING = memory_recycling.STAGE


def main() -> None:
    """Measure and print."""
    reader = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.memory", description=(__doc__ or "").partition("\n")[0]
    )
    reader.add_argument("--quick", action="store_true", help="once")
    # how this program runs itself, for one tree
    reader.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    options = reader.parse_args()
    if options.alone:
        _alone(*options.alone)
        return
    _install()
    if any(not _is_there(name) for name in memory_work.APP):
        sys.exit("numpy and pandas are the fat app: without them there is nothing to measure")
    repeats = 1 if options.quick else 3
    print(f"{memory_trees.CHILDREN} children of an app that imports numpy and pandas; MiB; {repeats} ×, medians")
    _show_trees(_repeated("trees", memory_trees.TREES, repeats))
    _show_recycling(_repeated(RECYCLING, memory_recycling.POOLS, 1))


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _install() -> None:
    missing = [name for name in (*memory_work.APP, "billiard") if not _is_there(name)]
    if missing:
        print(f"installing {', '.join(missing)} …", flush=True)
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *missing]
        subprocess.call(words, stderr=subprocess.DEVNULL)
        importlib.invalidate_caches()


# ---- measuring -------------------------------------------------------------------------------------------------------


def _repeated(measure: str, names: Iterable[str], repeats: int) -> dict[str, list[Found]]:
    """Every tree in turn, and again."""
    results: dict[str, list[Found]] = {}
    for _ in range(repeats):
        for name in names:
            results.setdefault(name, []).append(_apart(measure, name))
    return results


def _apart(measure: str, name: str) -> Found:
    """Measure one tree in a fresh process; a text says why that failed."""
    words = [sys.executable, "-m", "tests.benchmarks.memory", "--alone", measure, name]
    # not through pipes: children that a pool leaves behind would keep them open
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(words, stdout=out, stderr=err, start_new_session=True)
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            return f"given up after {DEADLINE:g} s"
        finally:
            # whatever is left of the tree; the group is this process's own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        err.seek(0)
        last, why = (file.read().strip().rpartition("\n")[2] for file in (out, err))
    if not last.startswith("{"):
        return f"failed: {why[:100] or 'no word'}"
    return dict(json.loads(last))


def _alone(measure: str, name: str) -> None:
    """Be the fresh process. It leaves without ceremony, so that no pool's way of closing can matter."""

    async def measured() -> Found:
        if measure == RECYCLING:
            return {RECYCLING: await memory_recycling.POOLS[name]()}
        return await memory_trees.TREES[name]()

    print(json.dumps(asyncio.run(measured())), flush=True)
    os._exit(0)


# ---- tables ----------------------------------------------------------------------------------------------------------


def _show_trees(results: Mapping[str, Sequence[Found]]) -> None:
    """Print one table for each stage; × is the ratio to the first row, ours."""
    for stage, title in STAGES.items():
        rows = {name: _medians(found, stage) for name, found in results.items()}
        us = rows[memory_trees.OURS]
        _show(title, {name: {key: _cell(row[key], us.get(key)) for key in row} for name, row in rows.items()}, results)


def _show_recycling(results: Mapping[str, Sequence[Found]]) -> None:
    """Print how many children it took."""
    tasks, limit = memory_recycling.TASKS, memory_recycling.LIMIT // memory_recycling.MIB
    rows = {name: _medians(found, memory_recycling.STAGE) for name, found in results.items()}
    title = f"{tasks} small tasks, one child of a fatter app at a time, memory limit {limit} MiB"
    _show(title, {name: {key: f"{row[key]:.0f}" for key in row} for name, row in rows.items()}, results)


def _show(title: str, rows: Mapping[str, Mapping[str, str]], results: Mapping[str, Sequence[Found]]) -> None:
    columns = next((list(row) for row in rows.values() if row), [])
    print(f"\n{title}:\n\n| way | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for name, row in rows.items():
        cells = [row[column] for column in columns] if row else [str(results[name][0])]
        print(f"| {name} | {' | '.join(cells)} |")


def _medians(found: Sequence[Found], stage: str) -> dict[str, float]:
    """Figures of one stage; none if no run came to its end."""
    runs = [run[stage] for run in found if not isinstance(run, str)]
    return {name: statistics.median(run[name] for run in runs) for name in (runs[0] if runs else ())}


def _cell(value: float, ours: float | None) -> str:
    return f"{value:.1f}" if ours is None or value == ours else f"{value:.1f} (× {value / ours:.1f})"


if __name__ == "__main__":
    main()
