"""`Pool.submit`: the handle of a call."""

import time

import anyio
import pytest

from hybridpool import Call, Pool, errors
from tests.integration.pool import functions
from tests.integration.pool.helpers import PATIENCE, Gate, Journal, idle, open_pool, waited

# starting a zygote reads the pipe on which exec would tell its failure
pytestmark = pytest.mark.may_block


async def test_states(one: Pool, gate: Gate) -> None:
    """A handle shows its call's state, its start, its child and its run time."""
    before = time.monotonic()
    held = one.submit(functions.hold, gate.path, "value")
    behind = one.submit(functions.add, 1)
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
    """A handle raises the call's error each time it is awaited."""
    call: Call[object] = one.submit(functions.fail, "wrong")
    await call.wait()
    assert call.state == "done"
    for _ in range(2):
        with pytest.raises(ValueError, match="wrong"):
            await call


async def test_waiting_twice(one: Pool) -> None:
    """A handle returns the value each time it is awaited."""
    call = one.submit(functions.add, 1)
    assert [await call, await call] == [2, 2]


async def test_waiting_in_several_tasks(one: Pool, gate: Gate) -> None:
    """Several tasks can await one handle, and one that stops waiting does not stop the call."""
    call = one.submit(functions.hold, gate.path, 7)
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
    """A call whose handle is dropped runs, and its failure is not logged."""
    one.submit(functions.note, journal.path, "ran")
    one.submit(functions.fail)
    await idle(one, 1)
    assert journal.lines() == ["ran"]


async def test_leaving_waits_for_what_was_submitted(gate: Gate, journal: Journal) -> None:
    """Leaving the block waits for the calls that were submitted."""
    async with open_pool(2) as pool:
        calls = [pool.submit(functions.note, journal.path, number) for number in range(100)]
    assert [call.state for call in calls] == ["done"] * 100
    assert len(journal.lines()) == 100


async def test_cancelling_one_that_waits(one: Pool, gate: Gate, journal: Journal) -> None:
    """A cancelled call that waits raises `TaskCancelled` and never runs; one that is done cannot be cancelled."""
    held = one.submit(functions.hold, gate.path)
    call = one.submit(functions.note, journal.path, "ran")
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
    """`cancel` stops a running call, its state is "cancelled", and its child lives on."""
    child = await one.run(functions.who)
    call = one.submit(functions.wait_forever, gate.path)
    await gate.came()
    call.cancel()
    assert isinstance(await waited(call), errors.TaskCancelled)
    assert call.state == "cancelled"
    assert await one.run(functions.who) == child


async def test_cancelling_one_that_returns_nevertheless(one: Pool, gate: Gate, journal: Journal) -> None:
    """A cancelled call that returns a value after its clean-up is done, with that value."""
    call = one.submit(functions.careful, gate.path, journal.path)
    await gate.came()
    call.cancel()
    assert await call == "cleaned up"
    assert call.state == "done"


async def test_cancelling_one_that_does_not_stop(gate: Gate) -> None:
    """A cancelled call that ignores it is killed with its child, and its state is "cancelled"."""
    async with open_pool(1, grace=0.1) as pool:
        call = pool.submit(functions.wait_deaf, gate.path)
        await gate.came()
        call.cancel()
        assert isinstance(await waited(call), errors.TaskCancelled)
        assert (call.state, call.child) == ("cancelled", "ForkPoolWorker-1")
        assert await pool.run(functions.whose) == "ForkPoolWorker-2"


async def test_cancelling_before_there_are_children() -> None:
    """A pool can be left after its last call was cancelled before the first child is ready."""
    async with open_pool(1) as pool, anyio.create_task_group() as tasks:
        call = pool.submit(functions.add, 1)
        assert [child.state for child in pool.stats()] in ([], ["starting"])

        async def give_up() -> None:
            call.cancel()

        tasks.start_soon(give_up)
    assert call.state == "cancelled"


async def test_a_lost_call(one: Pool) -> None:
    """A handle of a call whose child died raises `ChildLost`, which names the child."""
    call = one.submit(functions.die)
    found = await waited(call)
    assert isinstance(found, errors.ChildLost)
    assert (call.state, call.child) == ("done", "ForkPoolWorker-1")
    assert "ForkPoolWorker-1" in str(found)
