"""Pools: ours next to those of other libraries, in one run on one machine.

    nox -s bench -- pool                             everything, three times, some ten minutes
    python -m tests.benchmarks.pool --quick          small and once, one or two minutes
    python -m tests.benchmarks.pool latency crash    some measures

Every pool is measured in turn, each measure in a fresh process, the whole repeated. A cell shows the median, [least–
most], and × the ratio to the first row, ours. Figures only, nothing is asserted. Libraries that are missing are
installed, if pip can; those that are not there after that are left out, and it says so.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import uvloop

from tests.benchmarks import pool_table
from tests.benchmarks.pool_measures import MEASURES, QUICK, Figures, Sizes
from tests.benchmarks.pool_peers import PEERS

#: seconds after which a pool's measure is given up
DEADLINE = 90.0
PACKAGES = ("billiard", "loky", "pebble", "mpire", "aiomultiprocess", "numpy", "pandas")
#: outcomes of one measure: by peer
Found = dict[str, list[Figures] | str]


def main() -> None:
    """Measure, print, and write the figures where one wants them."""
    options = _options()
    if options.alone:
        _alone(options)
        return
    _install()
    started = time.monotonic()
    names = options.measures or list(MEASURES)
    results: dict[str, Found] = {}
    for name in names:
        results[name] = _measured(name, options)
        pool_table.show(name, (MEASURES[name].__doc__ or "").strip(), results[name])
    pool_table.show_bars(results)
    print(f"\n{time.monotonic() - started:.0f} s, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the end")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))


def _options() -> argparse.Namespace:
    reader = argparse.ArgumentParser(prog="python -m tests.benchmarks.pool", description=__doc__.partition("\n")[0])
    reader.add_argument("measures", nargs="*", help=f"of {', '.join(MEASURES)}; all of them if none is named")
    reader.add_argument("--quick", action="store_true", help="small sizes, one repeat")
    reader.add_argument("--repeats", type=int, help="how often; 3, with --quick 1")
    reader.add_argument("--only", default="", help="only pools with this in their name, and ours")
    reader.add_argument("--uvloop", action="store_true", help="run the pools that use a loop on uvloop")
    reader.add_argument("--json", help="where to write the figures")
    # how this program runs itself, for one pool and one measure
    reader.add_argument("--alone", help=argparse.SUPPRESS)
    options = reader.parse_args()
    unknown = set(options.measures) - set(MEASURES)
    if unknown:
        reader.error(f"there is no measure {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    options.repeats = options.repeats or (1 if options.quick else 3)
    return options


def _install() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"installing {', '.join(missing)} …", flush=True)
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # one by one: what cannot be had must not keep the others out
        failed = [name for name in missing if subprocess.call([*words, name], stderr=subprocess.DEVNULL)]
        print(f"absent: {', '.join(failed)}" if failed else "done")
        importlib.invalidate_caches()


def _measured(measure: str, options: argparse.Namespace) -> Found:
    """Every pool in turn, and again."""
    found: Found = {}
    peers = [peer for peer in PEERS if measure in peer.measures]
    ours = [peer for peer in peers if peer.name.startswith("hybridpool")]
    chosen = [peer for peer in peers if peer in ours or options.only in peer.name]
    for _ in range(options.repeats):
        for peer in chosen:
            so_far = found.setdefault(peer.name, [])
            if peer.module and importlib.util.find_spec(peer.module) is None:
                found[peer.name] = "absent: pip could not install it"
            elif not isinstance(so_far, str):
                figures = _apart(peer.name, measure, options)
                if isinstance(figures, str):
                    found[peer.name] = figures
                else:
                    so_far.append(figures)
    return found


def _apart(peer: str, measure: str, options: argparse.Namespace) -> Figures | str:
    """Measure one pool in a fresh process; a text says why that failed."""
    flags = [word for word in ("--quick", "--uvloop") if getattr(options, word[2:])]
    words = [sys.executable, "-m", "tests.benchmarks.pool", measure, "--alone", peer, *flags]
    # not through pipes: children that a pool leaves behind would keep them open
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(words, stdout=out, stderr=err, start_new_session=True)
        try:
            process.wait(DEADLINE / 12 if options.quick else DEADLINE)
        except subprocess.TimeoutExpired:
            return "hangs: given up"
        finally:
            # whatever the pool leaves behind; the group is this process's own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        last, why = _last_line(out), _last_line(err)
    if not last.startswith("{"):
        return f"failed: {why[:100] or 'no word'}"
    return dict(json.loads(last))


def _last_line(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip().rpartition("\n")[2]


def _alone(options: argparse.Namespace) -> None:
    """Be the fresh process. It leaves without ceremony: some pools cannot be closed after a crash."""
    peer = next(peer for peer in PEERS if peer.name == options.alone)()
    sizes = QUICK if options.quick else Sizes()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if options.uvloop else None) as runner:
        figures = runner.run(MEASURES[options.measures[0]](peer, sizes))
        print(json.dumps(figures), flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
