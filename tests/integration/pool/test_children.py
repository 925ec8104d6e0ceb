"""The children of a `Pool`: how many, how long, with what, in which surroundings."""

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
import uvloop

from hybridpool import Pool, errors, events
from tests.contract.inbox import Events
from tests.integration.pool import functions
from tests.integration.pool.helpers import PATIENCE, Gate, Journal, idle, open_pool, outcomes, waited

# starting a zygote reads the pipe on which exec would tell its failure
pytestmark = pytest.mark.may_block


class Enough(Exception):
    """Ends a block in the middle."""


def pids(pool: Pool) -> dict[str, int]:
    """Return name and pid of each child."""
    return {child.name: child.pid for child in pool.stats()}


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    with anyio.fail_after(PATIENCE):
        while not true():
            await anyio.lowlevel.checkpoint()


# ---- how many --------------------------------------------------------------------------------------------------------


async def test_resize(two: Pool, gate: Gate) -> None:
    """A resize grows or shrinks the pool, and a running call ends although the pool has become smaller."""
    await two.resize(4)
    calls = [two.submit(functions.hold, gate.path, number) for number in range(5)]
    assert len(set(await gate.came(4))) == 4
    assert gate.nobody(), "more at once than the new size"
    await two.resize(1)
    gate.let(4)
    await gate.came(1)
    assert gate.nobody()
    gate.let(1)
    assert await outcomes(calls) == list(range(5))
    await idle(two, 1)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
async def test_sizes_that_are_none(two: Pool, size: Any) -> None:
    """A size that is not a whole number of at least 1 is refused, and the pool keeps its size."""
    with pytest.raises(errors.ConfigError, match="at least 1"):
        await two.resize(size)
    with pytest.raises(errors.ConfigError, match="at least 1"):
        Pool(size)
    assert await two.run(functions.add, 1) == 2


async def test_resizing_twice_at_once(two: Pool) -> None:
    """Two resizes at the same time both return, and the later one decides the size."""
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(two.resize, 5)
            tasks.start_soon(two.resize, 1)
    await idle(two, 1)


async def test_stats(two: Pool, gate: Gate) -> None:
    """`stats` shows of each child its state, its pid, the call it runs, since when, and how many it has run."""
    await idle(two, 2)
    call = two.submit(functions.hold, gate.path)
    [pid] = await gate.came()
    busy, free = sorted(two.stats(), key=lambda child: child.state)
    assert (busy.state, busy.pid, busy.in_hand, busy.tasks) == ("busy", pid, 1, 0)
    assert busy.at_work == f"{functions.__name__}:hold"
    assert 0 < busy.working_for < PATIENCE
    assert (free.state, free.in_hand, free.at_work, free.working_for) == ("idle", 0, None, 0)
    gate.let()
    await call
    assert sum(child.tasks for child in two.stats()) == 1


async def test_autoscale(gate: Gate) -> None:
    """An autoscaled pool grows to its maximum under load and shrinks to its minimum without load."""
    async with Pool(autoscale=(1, 3), autoscale_idle=0.05) as pool:
        calls = [pool.submit(functions.hold, gate.path) for _ in range(4)]
        assert len(set(await gate.came(3))) == 3
        assert gate.nobody()
        gate.let(4)
        await outcomes(calls)
        await idle(pool, 1)


async def test_a_hundred_children(gate: Gate) -> None:
    """A hundred children start, run a hundred calls at the same time, and are gone when the pool is left."""
    async with open_pool(100) as pool:
        calls = [pool.submit(functions.hold, gate.path) for _ in range(100)]
        assert len(set(await gate.came(100))) == 100
        gate.let(100)
        assert await outcomes(calls) == [None] * 100
        found = pids(pool).values()
        assert len(found) == 100
    assert not any(map(psutil.pid_exists, found))


# ---- how long --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_max_tasks_per_child(limit: int) -> None:
    """A child retires after exactly `max_tasks_per_child` calls, however many more were in its channel."""
    observed = Events()
    async with open_pool(2, max_tasks_per_child=limit, recycle_jitter=0, on_event=observed) as pool:
        number = 20 * limit if limit > 1 else 40
        counts = Counter([name async for name in pool.map(functions.whose_of, range(number))])
        assert sum(counts.values()) == number
        assert max(counts.values()) <= limit
        full = [event.child for event in observed.of(events.ChildRetired) if "max_tasks_per_child" in event.reason]
        assert sorted(full) == sorted(name for name, had in counts.items() if had == limit)
        await idle(pool, 3)
    for event in observed.of(events.ChildGone):
        assert (event.cause, event.expected) == ("exit code 0", True)


async def test_capacity_while_a_child_retires(gate: Gate, second_gate: Gate) -> None:
    """As many calls as the pool has children run at once while children that retire are still closing down."""
    initializer = partial(functions.kept_until_let_go, second_gate.path)
    async with open_pool(2, max_tasks_per_child=1, initializer=initializer, grace=PATIENCE) as pool:
        calls = []
        for _ in range(3):
            calls += [pool.submit(functions.hold, gate.path) for _ in range(2)]
            await gate.came(2)
            gate.let(2)
            # both wait at the second gate before they go, and the next two run meanwhile
            await second_gate.came(2)
        assert await outcomes(calls) == [None] * 6
        second_gate.let(100)


async def test_recycle(two: Pool, gate: Gate) -> None:
    """`recycle` replaces the named child after its running call has ended, and leaves the other children alone."""
    held = two.submit(functions.hold, gate.path, "done")
    [pid] = await gate.came()
    [busy] = [name for name, found in pids(two).items() if found == pid]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(two.recycle, busy)
        await until(lambda: "retiring" in {child.state for child in two.stats()})
        gate.let()
    assert await held == "done"
    assert busy not in pids(two)
    await idle(two, 2)
    with pytest.raises(errors.PoolError, match=f"no child '{busy}'; there are ForkPoolWorker"):
        await two.recycle(busy)


async def test_recycling_all_at_once(two: Pool) -> None:
    """Recycling all children at once replaces each of them exactly once, and calls go on meanwhile."""
    before = pids(two)
    await until(lambda: len(pids(two)) == 2)
    before = pids(two)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for name in before:
                tasks.start_soon(two.recycle, name)
            assert [value async for value in two.map(functions.add, range(2000))] == list(range(1, 2001))
    assert not before.keys() & pids(two).keys()
    await idle(two, 2)
    assert list(pids(two)) == ["ForkPoolWorker-3", "ForkPoolWorker-4"]


async def test_capacity_while_a_replacement_is_born(gate: Gate, second_gate: Gate, tmp_path: Path) -> None:
    """A child that is recycled by hand works until its replacement is ready."""
    flag = tmp_path / "flag"
    initializer = partial(functions.held_birth, second_gate.path, str(flag))
    async with open_pool(2, initializer=initializer) as pool:
        await idle(pool, 2)
        flag.touch()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.recycle, "ForkPoolWorker-1")
            await second_gate.came()
            calls = [pool.submit(functions.hold, gate.path) for _ in range(2)]
            assert len(set(await gate.came(2))) == 2
            second_gate.let()
            gate.let(2)
            await outcomes(calls)
        await idle(pool, 2)
        assert "ForkPoolWorker-1" not in pids(pool)


async def test_giving_up_a_recycle(second_gate: Gate, tmp_path: Path) -> None:
    """A recycling that is cancelled before the replacement is ready leaves the pool at its size."""
    flag = tmp_path / "flag"
    async with open_pool(2, initializer=partial(functions.held_birth, second_gate.path, str(flag))) as pool:
        await idle(pool, 2)
        flag.touch()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.recycle, "ForkPoolWorker-1")
            await second_gate.came()
            tasks.cancel_scope.cancel()
        second_gate.let()
        await idle(pool, 2)


async def test_memory_limit() -> None:
    """A child whose memory exceeds `max_memory_per_child` is replaced, and one below the limit is not."""
    observed = Events()
    async with open_pool(1, max_memory_per_child="64MB", on_event=observed) as pool:
        first = await pool.run(functions.keep, 1_000_000)
        assert await pool.run(functions.keep, 90_000_000) == first
        assert await pool.run(functions.keep, 1_000_000) != first
        [retired] = observed.of(events.ChildRetired)
        assert retired.child == first
        assert retired.reason.startswith("max_memory_per_child: ")


# ---- with what -------------------------------------------------------------------------------------------------------


async def test_plain_initializer() -> None:
    """A call finds what the plain initializer returned in its own child; without an initializer it finds None."""
    async with open_pool(2, initializer=functions.plain_resource) as pool:
        found = await outcomes([pool.submit(functions.resource) for _ in range(20)])
        assert {one[0] for one in found} <= set(pids(pool).values())  # type: ignore[index]
    async with open_pool(1) as pool:
        assert await pool.run(functions.resource) is None


async def test_generator_initializer(journal: Journal) -> None:
    """A generator initializer is closed once per child, at its retirement or the pool's end, not when a call fails."""
    async with open_pool(2, initializer=partial(functions.kept, journal.path), grace=PATIENCE) as pool:
        await idle(pool, 2)
        first, second = pids(pool).items()
        with pytest.raises(ValueError, match="resource of"):
            await pool.run(functions.fail_with_resource)
        assert Counter(journal.lines()) == Counter([f"open {first[1]}", f"open {second[1]}"])
        await pool.recycle(first[0])
        assert f"close {first[1]}" in journal.lines()
        assert f"close {second[1]}" not in journal.lines()
    lines = journal.lines()
    assert len(lines) == len(set(lines)) == 6
    assert {line.split()[1] for line in lines if "open" in line} == {
        line.split()[1] for line in lines if "close" in line
    }


async def test_an_initializer_by_cloudpickle() -> None:
    """A local function works as an initializer with cloudpickle."""
    async with open_pool(1, initializer=lambda: "local") as pool:
        assert await pool.run(functions.resource) == "local"


@pytest.mark.parametrize("initializer", [functions.no_database, functions.never_born], ids=["fails", "hangs"])
async def test_children_that_cannot_be_born(initializer: Callable[[], None]) -> None:
    """A pool whose initializer fails or hangs ends with `ChildStartFailed`, says why, and fails the calls that wait."""
    fails = initializer is functions.no_database
    why = "no database" if fails else "not ready within"
    waiting: list[Awaitable[int]] = []

    async def use() -> None:
        async with open_pool(1, initializer=initializer, start_timeout=PATIENCE if fails else 0.3) as pool:
            waiting.append(pool.submit(functions.add, 1))
            await pool.run(functions.add, 2)

    with anyio.fail_after(PATIENCE):
        with pytest.raises(errors.ChildStartFailed, match=why):
            await use()
    [found] = await outcomes(waiting)
    assert isinstance(found, errors.PoolError)


async def test_preload() -> None:
    """A preloaded module is imported once, by the zygote; a name that does not exist is refused with a suggestion."""
    async with open_pool(2, preload=[functions.__name__]) as pool:
        importers = set(await outcomes([pool.submit(functions.imported_by) for _ in range(20)]))
        assert len(importers) == 1
        assert not importers & {*pids(pool).values(), os.getpid()}
    with pytest.raises(errors.AppLoadError, match=r"no module 'tests\.integration\.pool\.function'.*functions"):
        async with open_pool(1, preload=["tests.integration.pool.function"]):
            raise AssertionError("it was entered")


# ---- children of children --------------------------------------------------------------------------------------------


async def test_children_may_have_children(two: Pool) -> None:
    """A call may start processes by multiprocessing, subprocess, and executors that fork or spawn."""
    assert await two.run(functions.by_processes) == [0, 0]
    assert await two.run(functions.by_subprocess) == "42\n"
    for method in ("fork", "spawn"):
        assert await two.run(functions.by_executor, method) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("how", ["recycled", "timed out", "pool left"])
async def test_what_calls_leave_goes_with_the_child(how: str) -> None:
    """A process that a call left behind ends with its child: recycled, killed at a time limit, or at the pool's end."""
    async with open_pool(1) as pool:
        process = psutil.Process(await pool.run(functions.leave_process))
        assert process.is_running()
        if how == "recycled":
            await pool.recycle("ForkPoolWorker-1")
        elif how == "timed out":
            with pytest.raises(errors.TimeLimitExceeded):
                await pool.run(functions.nap, 60, timeout=0.1)
        if how != "pool left":
            await until(lambda: not process.is_running())
    await until(lambda: not process.is_running())


# ---- in which surroundings -------------------------------------------------------------------------------------------


async def test_in_a_process_full_of_threads() -> None:
    """A pool works in a process that has many threads."""
    end = threading.Event()
    threads = [threading.Thread(target=end.wait) for _ in range(50)]
    for thread in threads:
        thread.start()
    try:
        async with open_pool(2) as pool:
            assert sum([value async for value in pool.map(functions.add, range(500))]) == sum(range(501))
    finally:
        end.set()
        for thread in threads:
            thread.join()


async def test_two_pools_at_once(gate: Gate) -> None:
    """Two pools in one process have their own children and initializers, and neither waits for the other."""
    async with open_pool(1, initializer=lambda: "a") as one, open_pool(1, initializer=lambda: "b") as other:
        held = one.submit(functions.hold, gate.path)
        await gate.came()
        assert await other.run(functions.resource) == "b"
        gate.let()
        await held
        assert await one.run(functions.resource) == "a"
        assert not set(pids(one).values()) & set(pids(other).values())


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_pool_in_a_thread(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Pools work in threads other than the main one, on asyncio's loop and on uvloop."""
    found: list[object] = []

    async def use() -> None:
        async with open_pool(2) as pool:
            found.append(await pool.run(functions.add, 1))
            with pytest.raises(errors.TimeLimitExceeded):
                await pool.run(functions.nap, 60, timeout=0.1)
            found.extend([value async for value in pool.map(functions.add, range(3))])

    def run() -> None:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(use())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(map(str, found)) == sorted(["2", "1", "2", "3"] * 2)


async def test_leaving_by_an_exception(gate: Gate) -> None:
    """An exception that leaves the block kills the running calls, and fails those that run and those that wait."""
    found: list[int] = []
    waiting: list[Any] = []

    async def leave() -> None:
        async with open_pool(2) as pool:
            await idle(pool, 2)
            waiting.extend(pool.submit(functions.hold, gate.path) for _ in range(3))
            found.extend(await gate.came(2))
            raise Enough

    with anyio.fail_after(PATIENCE):
        with pytest.raises(Enough):
            await leave()
    assert not any(map(psutil.pid_exists, found))
    assert {type(one) for one in await outcomes(waiting)} == {errors.ChildLost, errors.PoolClosed}
    assert {call.state for call in waiting} == {"done"}


async def test_leaving_by_cancellation(gate: Gate) -> None:
    """A cancelled scope around the block ends the pool without waiting for its calls."""
    found: list[int] = []
    with anyio.fail_after(PATIENCE), anyio.CancelScope() as scope:
        async with open_pool(1) as pool, anyio.create_task_group() as tasks:
            tasks.start_soon(pool.run, functions.hold, gate.path)
            found.extend(await gate.came())
            scope.cancel()
    assert scope.cancelled_caught
    assert not any(map(psutil.pid_exists, found))


def open_fds() -> int:
    """Count what this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_is_left() -> None:
    """A pool that was left leaves no open descriptor and no process."""
    async with open_pool(1):
        # the first one opens the files that are opened once
        pass
    before = open_fds()
    family = psutil.Process().children(recursive=True)
    for _ in range(3):
        async with open_pool(2, max_tasks_per_child=3) as pool:
            assert len([value async for value in pool.map(functions.add, range(20))]) == 20
            await outcomes([pool.submit(functions.die)])
    assert open_fds() == before
    assert psutil.Process().children(recursive=True) == family


async def test_the_zygote_dies(two: Pool, gate: Gate) -> None:
    """When the zygote is killed, the running call is lost and the pool goes on with a new zygote."""
    await idle(two, 2)
    zygote = psutil.Process(two.stats()[0].pid).parent()
    assert zygote is not None
    call = two.submit(functions.wait_forever, gate.path)
    await gate.came()
    os.kill(zygote.pid, signal.SIGKILL)
    assert isinstance(await waited(call), errors.ChildLost)
    with anyio.fail_after(PATIENCE):
        assert await two.run(functions.add, 1) == 2
