"""`Pool.submit`: the handle of a call."""

import time

import anyio
import pytest

from hybridpool import Pool, errors
from tests.integration.pool import chores
from tests.integration.pool.helpers import PATIENCE, Gate, Journal, idle, open_pool, waited

# starting a zygote reads the pipe on which exec would tell its failure
pytestmark = pytest.mark.may_block


async def test_states(one: Pool, gate: Gate) -> None:
    """Nobody could see where a call is, since when it runs, or where it ran."""
    before = time.monotonic()
    held = one.submit(chores.hold, gate.path, "value")
    behind = one.submit(chores.add, 1)
    await gate.came()
    assert (held.name, held.state, behind.state) == ("hold", "running", "waiting")
    assert held.started_at is not None
    assert before <= held.started_at <= time.monotonic()
    assert (behind.started_at, behind.child) == (None, "")
    gate.let()
    assert await held == "value"
    assert await behind == 2
    assert (held.state, behind.state) == ("done", "done")
    assert held.child == behind.child == one.stats()[0].name
    assert 0 < held.runtime < PATIENCE


async def test_a_call_that_fails(one: Pool) -> None:
    """A failure would be told once only, or at the wrong time."""
    call = one.submit(chores.fail, "wrong")
    await call.wait()
    assert call.state == "done"
    for _ in range(2):
        with pytest.raises(ValueError, match="wrong"):
            await call


async def test_waiting_twice(one: Pool) -> None:
    """A value could be had only once."""
    call = one.submit(chores.add, 1)
    assert [await call, await call] == [2, 2]


async def test_waiting_in_several_tasks(one: Pool, gate: Gate) -> None:
    """One who stops waiting would take the value from the others, or stop the call."""
    call = one.submit(chores.hold, gate.path, 7)
    values = []

    async def wait() -> None:
        values.append(await call)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait)
        await gate.came()
        with anyio.move_on_after(0.05) as impatient:
            await call
        assert impatient.cancelled_caught
        gate.let()
    assert values == [7, 7, 7]


async def test_nobody_waits(one: Pool, journal: Journal) -> None:
    """A call nobody waits for would not run, or its failure be shouted at nobody."""
    one.submit(chores.note, journal.path, "ran")
    one.submit(chores.fail)
    await idle(one, 1)
    assert journal.lines() == ["ran"]


async def test_leaving_waits_for_what_was_submitted(gate: Gate, journal: Journal) -> None:
    """Calls that were submitted would be lost when the block ends."""
    async with open_pool(2) as pool:
        calls = [pool.submit(chores.note, journal.path, number) for number in range(100)]
    assert [call.state for call in calls] == ["done"] * 100
    assert len(journal.lines()) == 100


async def test_cancelling_one_that_waits(one: Pool, gate: Gate, journal: Journal) -> None:
    """A call that is given up would still run, or whoever waits for it wait for ever."""
    held = one.submit(chores.hold, gate.path)
    call = one.submit(chores.note, journal.path, "ran")
    await gate.came()
    call.cancel()
    call.cancel()
    assert call.state == "cancelled"
    with pytest.raises(errors.TaskCancelled, match="note"):
        await call
    gate.let()
    await held
    held.cancel()
    assert (held.state, held.child) == ("done", one.stats()[0].name)
    assert journal.lines() == []


async def test_cancelling_one_that_runs(one: Pool, gate: Gate) -> None:
    """A handle could not stop its call, or not tell that it was stopped."""
    child = await one.run(chores.who)
    call = one.submit(chores.wait_forever, gate.path)
    await gate.came()
    call.cancel()
    assert isinstance(await waited(call), errors.TaskCancelled)
    assert call.state == "cancelled"
    assert await one.run(chores.who) == child


async def test_cancelling_one_that_returns_nevertheless(one: Pool, gate: Gate, journal: Journal) -> None:
    """What a call returns after its clean-up would be thrown away."""
    call = one.submit(chores.careful, gate.path, journal.path)
    await gate.came()
    call.cancel()
    assert await call == "cleaned up"
    assert call.state == "done"


async def test_cancelling_one_that_does_not_stop(gate: Gate) -> None:
    """A handle could not get rid of a call that ignores it."""
    async with open_pool(1, grace=0.1) as pool:
        call = pool.submit(chores.wait_deaf, gate.path)
        await gate.came()
        call.cancel()
        assert isinstance(await waited(call), errors.TaskCancelled)
        assert (call.state, call.child) == ("cancelled", "ForkPoolWorker-1")
        assert await pool.run(chores.whose) == "ForkPoolWorker-2"


async def test_cancelling_before_there_are_children() -> None:
    """The last call given up before the first child is born would leave the pool waiting for it."""
    async with open_pool(1) as pool, anyio.create_task_group() as tasks:
        call = pool.submit(chores.add, 1)
        assert [child.state for child in pool.stats()] in ([], ["starting"])

        async def give_up() -> None:
            call.cancel()

        tasks.start_soon(give_up)
    assert call.state == "cancelled"


async def test_a_lost_call(one: Pool) -> None:
    """A handle of a call whose child died would never end."""
    call = one.submit(chores.die)
    found = await waited(call)
    assert isinstance(found, errors.ChildLost)
    assert (call.state, call.child) == ("done", "ForkPoolWorker-1")
    assert "ForkPoolWorker-1" in str(found)
