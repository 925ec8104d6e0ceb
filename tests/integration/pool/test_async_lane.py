"""Coroutine functions in a pool: they run together on the event loop of one child."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import anyio
import pytest

from hybridpool import Pool, errors, events
from tests.integration.pool import coroutines, functions
from tests.integration.pool.helpers import PATIENCE, Gate, Journal, open_pool, outcomes, waited

pytestmark = pytest.mark.may_block


async def test_many_at_once_in_one_child(one: Pool, gate: Gate) -> None:
    """Coroutines wait together in one child, which is born with the first of them, and end in any order."""
    assert [child.name for child in one.stats()] == ["ForkPoolWorker-1"]
    calls = [one.submit(coroutines.hold, gate.path, number) for number in range(50)]
    assert len(set(await gate.came(50))) == 1
    assert (await one.run(coroutines.who))[1] == "AsyncLane-1"
    assert await one.run(functions.add, 1, 2) == 3, "plain functions still have their own child"
    gate.let(50)
    assert await outcomes(calls) == list(range(50))
    assert [child.name for child in one.stats()] == ["ForkPoolWorker-1", "AsyncLane-1"]


async def test_no_more_than_there_are_slots(gate: Gate) -> None:
    """The call beyond the slots begins when another one has ended."""
    async with open_pool(1, async_slots=2) as pool:
        calls = [pool.submit(coroutines.hold, gate.path, number) for number in range(3)]
        await gate.came(2)
        assert await pool.run(functions.add, 1, 1) == 2
        assert gate.nobody()
        assert [call.state for call in calls] == ["running", "running", "waiting"]
        gate.let(1)
        await gate.came(1)
        gate.let(2)
        assert await outcomes(calls) == [0, 1, 2]


async def test_context_belongs_to_the_call(one: Pool, gate: Gate) -> None:
    """What a call sets in a context variable no other call sees."""
    calls = [one.submit(coroutines.own_context, gate.path, text) for text in ("a", "b")]
    await gate.came(2)
    gate.let(2)
    assert await outcomes(calls) == ["a", "b"]


async def test_context_goes_with_the_call(one: Pool) -> None:
    """What a call has in its context is freed when it ends, without a garbage collection."""
    for _ in range(20):
        await one.run(coroutines.leaves_something)
    assert await one.run(coroutines.count_left) == 0


async def test_errors_and_map(one: Pool) -> None:
    """An exception comes back as from any function, and `map` takes a coroutine function."""
    with pytest.raises(LookupError, match="not there"):
        await one.run(coroutines.fails)
    assert [value async for value in one.map(functions.coroutine, range(300))] == list(range(300))


async def test_soft_limit_at_the_await(one: Pool, gate: Gate) -> None:
    """The soft limit is raised where the coroutine waits, can be caught, and leaves the task uncancelled."""
    other = one.submit(coroutines.hold, gate.path, "other")
    assert await one.run(coroutines.ends_softly, gate.path, timeout=None, soft_timeout=0.05) == "0.05 0"
    await gate.came(2)
    gate.let(1)
    assert await other == "other"


async def test_hard_limit_spares_the_neighbours(one: Pool, gate: Gate, journal: Journal) -> None:
    """A coroutine over its hard limit is told to stop and cleans up; its neighbour and its child go on."""
    other = one.submit(coroutines.hold, gate.path, "other")
    child = await one.run(coroutines.who)
    with pytest.raises(errors.TimeLimitExceeded, match="it was told to stop"):
        await one.run(coroutines.cleans_up, gate.path, journal.path, timeout=0.05)
    assert journal.lines() == ["clean"]
    with pytest.raises(errors.TimeLimitExceeded):
        await one.run(coroutines.in_a_group, gate.path, journal.path, timeout=0.05)
    assert journal.lines() == ["clean", "cancelled", "cancelled"]
    await gate.came(4)
    gate.let(1)
    assert await other == "other"
    assert await one.run(coroutines.who) == child


async def test_cancelling(one: Pool, gate: Gate, journal: Journal) -> None:
    """A call that is cancelled is told so at its `await`; one that waits for a slot never begins."""
    call = one.submit(coroutines.cleans_up, gate.path, journal.path)
    await gate.came(1)
    call.cancel()
    assert isinstance(await waited(call), errors.TaskCancelled)
    assert journal.lines() == ["clean"]


async def test_one_that_does_not_stop(gate: Gate) -> None:
    """A coroutine that swallows its end is given up; its neighbour ends in the old child, new calls go to another."""
    async with open_pool(1) as pool:
        other = pool.submit(coroutines.hold, gate.path, "other")
        with pytest.raises(errors.TimeLimitExceeded):
            await pool.run(coroutines.never_stops, gate.path, timeout=0.05)
        await gate.came(2)
        assert (await pool.run(coroutines.who))[1] == "AsyncLane-2"
        gate.let(1)
        assert await other == "other"
        with anyio.fail_after(PATIENCE):
            while "AsyncLane-1" in [child.name for child in pool.stats()]:
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("function", [coroutines.holds_the_loop, coroutines.holds_the_loop_in_a_subtask])
async def test_one_that_holds_the_loop(gate: Gate, function: Callable[[str], Awaitable[object]]) -> None:
    """A call that does not let the loop go on is named with its code, and stopped at its limit; its neighbour lives."""
    heard: list[object] = []
    async with open_pool(1, on_event=heard.append) as pool:
        other = pool.submit(coroutines.hold, gate.path, "other")
        await gate.came(1)
        with pytest.raises(errors.TimeLimitExceeded):
            await pool.run(function, gate.path, timeout=0.8)
        await gate.came(1)
        gate.let(1)
        assert await other == "other"
    [blocked] = [event for event in heard if isinstance(event, events.LoopBlocked)]
    assert blocked.task.name.endswith(":" + getattr(function, "__name__", ""))
    assert blocked.behind == 1
    assert "while True" in blocked.stack or "pass" in blocked.stack
    assert "bootstrap" not in blocked.stack, "frames of the library help nobody"


async def test_one_that_holds_the_loop_in_c(gate: Gate) -> None:
    """Where nothing can be raised the child is killed for the call that holds it, and only that call has timed out."""
    heard: list[object] = []
    async with open_pool(1, on_event=heard.append) as pool:
        other = pool.submit(coroutines.hold, gate.path)
        await gate.came(1)
        with pytest.raises(errors.TimeLimitExceeded, match="AsyncLane-1 was killed"):
            await pool.run(coroutines.blocks_in_c, gate.path, timeout=1.0)
        assert isinstance(await waited(other), errors.ChildLost)
    [blocked] = [event for event in heard if isinstance(event, events.LoopBlocked)]
    assert blocked.task.name.endswith(":blocks_in_c")
    assert "inside a function in C" in blocked.stack


async def test_tasks_that_break_the_loop(one: Pool, gate: Gate) -> None:
    """A task that stops the loop, exits in a task of its own, cancels what is not its own, or forks, harms no other."""
    child = await one.run(coroutines.who)
    other = one.submit(coroutines.hold, gate.path, "other")
    await gate.came(1)
    assert await one.run(coroutines.stops_the_loop) == "stopped"
    with pytest.raises(errors.TaskFailed, match="SystemExit"):
        await one.run(coroutines.exits_in_a_subtask)
    assert await one.run(coroutines.cancels_the_loops_own) == "cancelled"
    assert await one.run(coroutines.forks) == "parent"
    gate.let(1)
    assert await other == "other"
    assert await one.run(coroutines.who) == child


async def test_death_of_the_child(one: Pool, gate: Gate) -> None:
    """When the child dies each of its calls raises `ChildLost`: a pool starts no call twice."""
    calls = [one.submit(coroutines.hold, gate.path) for _ in range(3)]
    [pid] = set(await gate.came(3))
    os.kill(pid, signal.SIGKILL)
    assert [type(found) for found in await outcomes(calls)] == [errors.ChildLost] * 3
    assert (await one.run(coroutines.who))[1] == "AsyncLane-2"


async def test_lanes_by_name(one: Pool) -> None:
    """`Pool.lane` refuses what cannot run there, in one line that says what to do."""
    with pytest.raises(errors.ConfigError, match="there is no lane 'fiber'; there are process, async, thread"):
        one.lane("fiber")  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(errors.CannotSend, match=r'add is not async def.*use the lane "thread" or "process"'):
        await one.lane("async").run(functions.add, 1, 2)
    with pytest.raises(errors.CannotSend, match="coroutine is async def, and a thread runs plain functions"):
        await one.lane("thread").run(functions.coroutine, 1)
    assert await one.lane("process").run(functions.coroutine, 7) == 7
    assert (await one.lane("process").run(coroutines.who))[1] == "ForkPoolWorker-1"


async def test_nothing_is_loaded_without_coroutines(one: Pool) -> None:
    """A child of plain functions has no event loop loaded."""
    assert await one.run(functions.loaded, "asyncio", "uvloop") == []


async def test_leaving_waits_for_coroutines(gate: Gate) -> None:
    """Leaving the block waits for the calls of every lane."""
    async with open_pool(1) as pool:
        call = pool.submit(coroutines.hold, gate.path, 5)
        thread = pool.lane("thread").submit(coroutines.hold_thread, gate.path, 6)
        await gate.came(2)
        asyncio.get_running_loop().call_soon(gate.let, 2)
    assert [await call, await thread] == [5, 6]
