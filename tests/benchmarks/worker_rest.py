"""What a worker costs beside its tasks: to start, to stop, to hold, to be idle."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from tests.benchmarks import memory_work
from tests.benchmarks import worker_work as work
from tests.benchmarks.worker_bench import LOOK, Bench, Running
from tests.benchmarks.worker_steady import MIB, PROBES, Figures, Sizes
from tests.benchmarks.worker_systems import PREFORK, System

#: seconds in which a worker that has just worked comes to rest
CALM = 0.7


def startstop(bench: Bench, system: System, sizes: Sizes) -> dict[str, Figures]:
    """2 children: s from the start to the first task's end; from SIGTERM, when idle, until nothing is left."""
    queue = bench.queue()
    template = bench.console.template(system, queue, "noop")
    bench.console.put(template, 1)
    with bench.worker(system, queue) as worker:
        worker.expected = 1
        first = worker.until_done() - worker.started
        calm(worker)
        gone = worker.stop(queue)
    return {system.name: {"first task s": first, "gone s": gone}}


def memory(bench: Bench, system: System, sizes: Sizes) -> dict[str, Figures]:
    """PSS of all processes, MiB, 2 children: at rest, and after tasks that make and drop objects; fat: with pandas."""
    found = {}
    for app, children in (("bare", 2), ("fat", 2), *([("fat, 4 children", 4)] if system.measures & PREFORK else [])):
        queue, environment = bench.queue(), {work.FAT: "1"} if app.startswith("fat") else {}
        probe, litter = (bench.console.template(system, queue, task) for task in ("noop", "litter"))
        with bench.worker(system, queue, children=children, env=environment) as worker:
            worker.put(probe, PROBES)
            worker.until_done()
            calm(worker)
            rest, resident = held(worker)
            worker.put(litter, sizes.litter)
            worker.until_done()
            calm(worker)
            after, _ = held(worker)
        found[f"{system.name}, {app}"] = {"at rest": rest, "RSS at rest": resident, "after tasks": after}
    return found


def idle(bench: Bench, system: System, sizes: Sizes) -> dict[str, Figures]:
    """Context switches per second of an idle worker, 2 children: first process, busiest other, all; MiB of all."""
    queue = bench.queue()
    template = bench.console.template(system, queue, "noop")
    with bench.worker(system, queue) as worker:
        worker.put(template, PROBES)
        worker.until_done()
        calm(worker)
        before, begun = _switches(worker), time.monotonic()
        time.sleep(sizes.idle)
        after, took = _switches(worker), time.monotonic() - begun
        share, resident = held(worker)
    rates = {pid: (after[pid] - count) / took for pid, count in before.items() if pid in after}
    own = rates.pop(worker.process.pid)
    others = list(rates.values())
    return {
        system.name: {
            "first/s": own,
            "other/s": max(others, default=0.0),
            "all/s": own + sum(others),
            "PSS": share,
            "RSS": resident,
            "processes": 1 + len(others),
        }
    }


def calm(worker: Running) -> None:
    """Let it come to rest: nothing is announced, so this is a matter of time."""
    end = time.monotonic() + CALM
    while time.monotonic() < end:
        time.sleep(LOOK)
    assert worker.process.poll() is None


def held(worker: Running) -> tuple[float, float]:
    """Return PSS and RSS of the tree."""
    pages = [memory_work.pages(process.pid) for process in worker.tree()]
    return sum(page.share for page in pages) / MIB, sum(page.resident for page in pages) / MIB


def _switches(worker: Running) -> dict[int, int]:
    """Count the context switches of each process so far, in all its threads."""
    return {process.pid: _switched(process) for process in worker.tree()}


def _switched(process: psutil.Process) -> int:
    texts = [file.read_text() for file in Path(f"/proc/{process.pid}/task").glob("*/status")]
    lines = [line for text in texts for line in text.splitlines() if "ctxt_switches" in line]
    return sum(int(line.split()[1]) for line in lines)


ALL: Mapping[str, Callable[[Bench, System, Sizes], dict[str, Figures]]] = {
    "startstop": startstop,
    "memory": memory,
    "idle": idle,
}
