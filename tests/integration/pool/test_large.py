"""Large arguments and results: whole, without holding up the loop, and nothing left of them."""

import gc
import os
import resource
from pathlib import Path

import anyio
import pytest

from hybridpool import Pool, errors
from tests.integration.pool import functions
from tests.integration.pool.helpers import PATIENCE, Gate, Journal, open_pool, outcomes, waited

pytestmark = pytest.mark.may_block
MIB = 1024 * 1024


def files() -> int:
    """Count this process's descriptors, but for those that only wait for the collector."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("size", [60_000, 96 * 1024, 100_000, MIB, MIB + 1, 9 * MIB])
async def test_sizes(two: Pool, size: int) -> None:
    """A value of any size around the transport's limits arrives complete, as an argument and as a result."""
    data = os.urandom(size)
    with anyio.fail_after(PATIENCE):
        assert await two.run(functions.length, data) == size
        assert await two.run(functions.give, data) == data
        assert await two.run(functions.give, {"key": [data, 1]}) == {"key": [data, 1]}


async def test_arrays_both_ways(two: Pool) -> None:
    """An array travels both ways out of band, comes back complete, and the caller's own copy stays unchanged."""
    mine = functions.Numbers(bytearray(3 * MIB))
    with anyio.fail_after(PATIENCE):
        back = await two.run(functions.set_first, mine, 7)
    assert (back.data[0], back.data[-1], mine.data[0]) == (7, 0, 0)


async def test_the_loop_goes_on(two: Pool) -> None:
    """The event loop goes on turning while a large value is written and read."""
    call = two.submit(functions.give, bytes(64 * MIB))
    turns = 0
    with anyio.fail_after(PATIENCE):
        while call.state != "done":
            turns += 1
            await anyio.lowlevel.checkpoint()
    assert len(await call) == 64 * MIB
    # one turn for each step would be about ten
    assert turns > 100


async def test_a_map_of_large_ones(two: Pool) -> None:
    """A map of large values keeps their order and leaves no file behind."""
    before = files()
    with anyio.fail_after(PATIENCE):
        found = [
            (len(data), data[:1]) async for data in two.map(functions.give, (bytes([n]) * 2 * MIB for n in range(30)))
        ]
    assert found == [(2 * MIB, bytes([n])) for n in range(30)]
    assert files() == before


async def test_small_ones_pass_a_large_one_by(one: Pool) -> None:
    """Small calls behind a large one get their own results."""
    calls = [one.submit(functions.length, bytes(size)) for size in (1, 5 * MIB, 2, 3, 200_000, 4)]
    assert await outcomes(calls) == [1, 5 * MIB, 2, 3, 200_000, 4]


async def test_a_child_that_dies_before_it_begins_a_large_call(gate: Gate) -> None:
    """A large call runs in another child, with its argument, if the first child dies before it begins."""
    before = files()
    async with open_pool(1) as pool:
        held = pool.submit(functions.hold, gate.path)
        [pid] = await gate.came()
        large = pool.submit(functions.length, bytes(5 * MIB))
        os.kill(pid, 9)
        assert isinstance(await waited(held), errors.ChildLost)
        assert await outcomes([large]) == [5 * MIB]
        del large
        await pool.run(functions.add, 1)
    assert files() == before


async def test_a_child_that_dies_with_a_large_argument(one: Pool, journal: Journal) -> None:
    """A large call whose child dies in it is not run again, and leaves no file behind."""
    before = files()
    lost = await waited(one.submit(functions.note_and_die, journal.path, bytes(5 * MIB)))
    assert isinstance(lost, errors.ChildLost)
    assert journal.lines() == [str(5 * MIB)]
    assert await one.run(functions.add, 1) == 2
    del lost
    assert files() <= before


async def test_cancelled_while_it_is_written(two: Pool) -> None:
    """A large call that is cancelled while it is written leaves no file behind and costs no child."""
    before = files()
    for _ in range(5):
        with anyio.move_on_after(0.005):
            await two.run(functions.length, bytes(32 * MIB))
    assert await two.run(functions.add, 1) == 2
    with anyio.fail_after(PATIENCE):
        while files() > before:
            await anyio.lowlevel.checkpoint()


async def test_a_value_that_cannot_be_read(two: Pool) -> None:
    """A value that fails to unpickle in the caller's process raises its error to the caller."""
    for size in (200_000, 3 * MIB):
        failed = await waited(two.submit(functions.unreadable, size))
        assert isinstance(failed, ValueError)
        assert "cannot be read" in str(failed)


async def test_no_descriptor_for_a_value(one: Pool) -> None:
    """A result that finds no free descriptor fails its call with a hint at `ulimit -n`, and the pool works on."""
    await one.run(functions.add, 1)
    call = one.submit(functions.give, bytes(200_000))
    with anyio.fail_after(PATIENCE):
        while call.state == "waiting":
            await anyio.lowlevel.checkpoint()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        failed = await waited(call)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(failed, errors.TaskFailed)
    assert "ulimit -n" in str(failed)
    assert await one.run(functions.give, bytes(200_000)) == bytes(200_000)


async def test_a_large_initializer() -> None:
    """An initializer of hundreds of kilobytes reaches the children."""
    async with open_pool(2, initializer=functions.Model(bytes(300_000))) as pool:
        assert await pool.run(functions.resource_size) == 300_000
