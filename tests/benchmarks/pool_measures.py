"""What is measured of a pool. Each measure opens its own, in a process of its own, and returns figures by name."""

import asyncio
import contextlib
import os
import signal
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import attrs
import psutil

from tests.benchmarks import pool_work as work
from tests.benchmarks.pool_lag import Probe
from tests.benchmarks.pool_peer import Peer

Figures = dict[str, float]
KIB, MIB = 1024, 1024 * 1024


@attrs.frozen
class Sizes:
    """How much of everything."""

    noops: int = 20_000
    round_trips: int = 2_000
    cpu_tasks: int = 2_000
    recycled: int = 1_000
    crash_calls: int = 2_000
    #: seconds after which a slow pool's one-at-a-time calls are enough
    enough: float = 5.0
    #: bytes, and how many go there and back
    payloads: Mapping[int, int] = attrs.field(factory=lambda: {KIB: 1_000, 64 * KIB: 300, MIB: 60, 64 * MIB: 4})


QUICK = Sizes(2_000, 200, 200, 100, 300, 0.5, {KIB: 100, 64 * KIB: 50, MIB: 6, 64 * MIB: 1})


@asynccontextmanager
async def opened(
    peer: Peer, children: int, recycle: int | None = None, preload: Sequence[str] = ()
) -> AsyncGenerator[Peer]:
    """A pool with every child started and warm; how fast it closes is not measured, but it is closed."""
    await peer.open(children, recycle, preload)
    if recycle is None:
        with contextlib.suppress(TimeoutError):
            await peer.many(work.nap, [0.02] * (4 * children), ignore)
        await peer.many(work.noop, range(300), ignore)
    try:
        yield peer
    finally:
        await peer.close()


def ignore(_value: object) -> None:
    """Nobody wants to know."""


async def throughput(peer: Peer, sizes: Sizes) -> Figures:
    """No-op calls a second, and the CPU time each takes in the parent and in the processes below it."""
    figures: Figures = {}
    for children in (1, 2):
        async with opened(peer, children):
            below = psutil.Process().children(recursive=True)
            wall, cpu, theirs = time.perf_counter(), time.process_time(), _used(below)
            await peer.many(work.noop, range(sizes.noops), ignore)
            wall, cpu, theirs = time.perf_counter() - wall, time.process_time() - cpu, _used(below) - theirs
        figures[f"{children} child/s"] = sizes.noops / wall
        figures[f"{children} µs parent"] = cpu / sizes.noops * 1e6
        figures[f"{children} µs below"] = theirs / sizes.noops * 1e6
    return figures


def _used(processes: Sequence[psutil.Process]) -> float:
    return sum(process.cpu_times().user + process.cpu_times().system for process in processes)


async def latency(peer: Peer, sizes: Sizes) -> Figures:
    """One call at a time, there and back."""
    async with opened(peer, 2):
        took = await _timed(peer, work.noop, None, sizes.round_trips, sizes.enough)
    cuts = statistics.quantiles(took, n=100)
    return {"p50 µs": cuts[49] * 1e6, "p99 µs": cuts[98] * 1e6}


async def _timed(
    peer: Peer, function: Callable[[Any], Any], item: object, count: int, enough: float
) -> Sequence[float]:
    """Seconds of each call: so many, or fewer if a slow pool has had enough time."""
    took: list[float] = []
    until = time.monotonic() + enough
    while len(took) < count and (len(took) < 2 or time.monotonic() < until):
        started = time.perf_counter()
        await peer.once(function, item)
        took.append(time.perf_counter() - started)
    return took


async def payload(peer: Peer, sizes: Sizes) -> Figures:
    """Bytes there and back, one call at a time: the median."""
    figures: Figures = {}
    async with opened(peer, 2):
        for size, count in sizes.payloads.items():
            took = await _timed(peer, work.echo, os.urandom(size), count, sizes.enough)
            figures[f"{size // KIB} KiB ms" if size < MIB else f"{size // MIB} MiB ms"] = statistics.median(took) * 1e3
    return figures


async def cpu(peer: Peer, sizes: Sizes) -> Figures:
    """Calls that take 1 ms of CPU time: the share of what two children could do."""
    async with opened(peer, 2):
        started = time.perf_counter()
        await peer.many(work.spin, [0.001] * sizes.cpu_tasks, ignore)
        took = time.perf_counter() - started
    return {"share": sizes.cpu_tasks * 0.001 / 2 / took}


async def lag(peer: Peer, sizes: Sizes) -> Figures:
    """How late the parent's loop is while nothing goes on, and under each load."""
    loads: Mapping[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "idle": lambda: asyncio.sleep(0.3),
        "no-op": lambda: peer.many(work.noop, range(sizes.noops), ignore),
        "1 ms": lambda: peer.many(work.spin, [0.001] * sizes.cpu_tasks, ignore),
        "1 MiB": lambda: peer.many(work.echo, [bytes(MIB)] * sizes.payloads[MIB], ignore),
        "64 MiB": lambda: peer.once(work.echo, bytes(64 * MIB)),
    }
    figures: Figures = {}
    async with opened(peer, 2):
        for name, load in loads.items():
            with Probe() as probe:
                await load()
            figures[f"{name} p99 ms"], figures[f"{name} max ms"] = probe.p99 * 1e3, probe.longest * 1e3
    return figures


async def recycle(peer: Peer, sizes: Sizes) -> Figures:
    """No-op calls, without and with replacing each child after ten; the longest gap between completions."""
    figures: Figures = {}
    times: list[float] = []
    for name, after in (("never", None), ("every 10", 10)):
        times.clear()
        async with opened(peer, 2, after):
            await peer.once(work.noop, None)
            with anyio.move_on_after(20):
                times.append(time.perf_counter())
                await peer.many(work.noop, range(sizes.recycled), lambda _: times.append(time.perf_counter()))
        figures[f"{name}/s"] = (len(times) - 1) / (times[-1] - times[0])
        figures[f"{name} gap ms"] = max((b - a for a, b in pairwise(times)), default=0.0) * 1e3
    return figures


async def crash(peer: Peer, sizes: Sizes) -> Figures:
    """One of two children is killed when 30 % of the calls are done."""
    done: list[tuple[int, float]] = []
    killed: list[tuple[int, float]] = []

    def note(value: object) -> None:
        if isinstance(value, tuple):
            done.append(value)
        if len(done) == sizes.crash_calls * 3 // 10 and not killed:
            # by now it has its next call; half of that later it is in the midst of it
            time.sleep(0.0005)
            killed.append((done[-1][0], time.monotonic()))
            os.kill(done[-1][0], signal.SIGKILL)

    async with opened(peer, 2):
        with anyio.move_on_after(sizes.crash_calls * 0.001 + 2), contextlib.suppress(Exception):
            await peer.many(work.who, [0.001] * sizes.crash_calls, note)
        lost = float(sizes.crash_calls - len(done))
        back = _full_strength(done, *killed[0]) if killed else float("nan")
        alive = 0.0
        with anyio.move_on_after(2), contextlib.suppress(Exception):
            await peer.once(work.noop, None)
            alive = 1.0
    return {"lost": lost, "2 again ms": back * 1e3, "goes on": alive}


def _full_strength(done: Sequence[tuple[int, float]], victim: int, when: float) -> float:
    """Seconds from the kill until a second process was at work again; nan: never."""
    first: dict[int, float] = {}
    for pid, started in done:
        if started > when and pid != victim:
            first[pid] = min(started, first.get(pid, started))
    return sorted(first.values())[1] - when if len(first) > 1 else float("nan")


async def memory(peer: Peer, sizes: Sizes) -> Figures:
    """Four children of a fat app after collecting garbage: what each owns alone, and what all processes hold."""
    # what forks from this process finds the app here, as it would in a user's program
    from tests.benchmarks import pool_fat

    pids: set[int] = set()
    async with opened(peer, 4, preload=[pool_fat.__name__]):
        await peer.many(work.tidy, [0.1] * 16, lambda pid: pids.add(pid) if isinstance(pid, int) else None)
        await peer.many(work.tidy, [0.1] * 8, ignore)
        tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
        held = {process.pid: process.memory_full_info() for process in tree}
    own = [held[pid].uss for pid in pids if pid in held]
    total = sum(info.pss for info in held.values())
    return {
        "4 children USS MB": statistics.mean(own) * 4 / 1e6 if own else float("nan"),
        "child PSS MB": statistics.mean(held[pid].pss for pid in pids if pid in held) / 1e6 if own else float("nan"),
        "tree PSS MB": total / 1e6,
    }


MEASURES: Mapping[str, Callable[[Peer, Sizes], Coroutine[Any, Any, Figures]]] = {
    "throughput": throughput,
    "latency": latency,
    "payload": payload,
    "cpu": cpu,
    "lag": lag,
    "recycle": recycle,
    "crash": crash,
    "memory": memory,
}
