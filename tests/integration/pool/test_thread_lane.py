"""Functions that wait, on the threads of one child."""

import pytest

from hybridpool import Pool, errors
from tests.integration.pool import coroutines, functions
from tests.integration.pool.helpers import Gate, open_pool, outcomes, waited

pytestmark = pytest.mark.may_block


async def test_many_at_once_in_one_child(gate: Gate) -> None:
    """Calls wait together on threads of one child; there are no more threads than slots."""
    async with open_pool(1, thread_slots=8) as pool:
        threads = pool.lane("thread")
        calls = [threads.submit(coroutines.hold_thread, gate.path, number) for number in range(9)]
        assert len(set(await gate.came(8))) == 1
        assert gate.nobody()
        gate.let(9)
        assert await outcomes(calls) == list(range(9))
        names = {await threads.run(coroutines.thread_name) for _ in range(5)}
        assert names <= {f"ThreadLane-1-{number}" for number in range(1, 9)}


async def test_values_and_errors(one: Pool) -> None:
    """Values of any size and errors come back as from a child of its own."""
    threads = one.lane("thread")
    assert len(await threads.run(functions.zeros, 3_000_000)) == 3_000_000
    assert [value async for value in threads.map(abs, range(-50, 0))] == list(range(50, 0, -1))
    with pytest.raises(ValueError, match="invalid literal"):
        await threads.run(int, "x")


async def test_limits(one: Pool, gate: Gate) -> None:
    """Limits are raised in Python code; the neighbour, and the next call of the same thread, hear nothing of it."""
    threads = one.lane("thread")
    other = threads.submit(coroutines.hold_thread, gate.path, "other")
    await gate.came(1)
    assert await threads.run(coroutines.loops_on_a_thread, gate.path, timeout=None, soft_timeout=0.05) == "0.05"
    with pytest.raises(errors.TimeLimitExceeded, match="it was told to stop"):
        await threads.run(coroutines.loops_on_a_thread, gate.path, timeout=0.05)
    call = threads.submit(coroutines.loops_on_a_thread, gate.path)
    await gate.came(3)
    call.cancel()
    assert isinstance(await waited(call), errors.TaskCancelled)
    assert [value async for value in threads.map(abs, range(100))] == list(range(100))
    gate.let(1)
    assert await other == "other"
    assert [child.name for child in one.stats()] == ["ForkPoolWorker-1", "ThreadLane-1"]


async def test_one_that_cannot_be_stopped(gate: Gate) -> None:
    """A call that does not stop is given up; other calls go to a new child, and the neighbour ends."""
    async with open_pool(1, grace=0.05) as pool:
        threads = pool.lane("thread")
        stubborn = threads.submit(coroutines.hold_stubbornly, gate.path)
        other = threads.submit(coroutines.hold_thread, gate.path, "other")
        await gate.came(2)
        stubborn.cancel()
        assert isinstance(await waited(stubborn), errors.TaskCancelled)
        assert (await threads.run(coroutines.thread_name)).startswith("ThreadLane-2")
        # One more than there are calls: what stops it may reach it when it has read its own already.
        gate.let(3)
        assert await other == "other"


async def test_no_more_threads(one: Pool, gate: Gate) -> None:
    """Where no further thread can be started, calls wait for one that is there."""
    threads = one.lane("thread")
    await threads.run(coroutines.allow_no_more_threads)
    calls = [threads.submit(coroutines.hold_thread, gate.path, number) for number in range(3)]
    await gate.came(1)
    gate.let(3)
    assert await outcomes(calls) == [0, 1, 2]
    assert await threads.run(coroutines.thread_name) == "ThreadLane-1-1"


async def test_death_of_the_child(one: Pool, gate: Gate) -> None:
    """When the child dies each of its calls raises `ChildLost`: a pool starts no call twice."""
    threads = one.lane("thread")
    calls = [threads.submit(coroutines.hold_thread, gate.path), threads.submit(coroutines.dies_on_a_thread, gate.path)]
    await gate.came(2)
    gate.let(2)
    found = await outcomes(calls)
    assert isinstance(found[1], errors.ChildLost)
    assert (await threads.run(coroutines.thread_name)).startswith("ThreadLane-2")
