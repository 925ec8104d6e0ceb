"""A pool that is opened and closed, in place of entered and left."""

import asyncio

import anyio
import psutil
import pytest

from hybridpool import Pool, errors
from tests.integration.pool import functions
from tests.integration.pool.helpers import PATIENCE, Gate, outcomes

pytestmark = pytest.mark.may_block


async def test_by_two_tasks() -> None:
    """A pool can be opened in one task and closed in another."""
    pool = await asyncio.create_task(Pool(2).open())
    assert await pool.run(functions.add, 1) == 2
    await asyncio.create_task(pool.close())
    with pytest.raises(errors.PoolClosed):
        await pool.run(functions.add, 1)


async def test_closing_waits_for_calls(gate: Gate) -> None:
    """`close` waits for the calls that were submitted."""
    pool = await Pool(1).open()
    call = pool.submit(functions.hold, gate.path, "held")
    await gate.came()
    closing = asyncio.create_task(pool.close())
    gate.let()
    with anyio.fail_after(PATIENCE):
        await closing
    assert await outcomes([call]) == ["held"]


async def test_again() -> None:
    """A closed pool can be opened again, a second `open` is refused, and a second `close` does nothing."""
    pool = Pool(1)
    for _ in range(2):
        await pool.open()
        with pytest.raises(errors.PoolError, match="open already"):
            await pool.open()
        assert await pool.run(functions.add, 1) == 2
        await pool.close()
    await pool.close()


async def test_a_pool_that_cannot_be_opened() -> None:
    """`open` itself raises the reason why the pool cannot be opened."""
    with pytest.raises(errors.AppLoadError, match="no_such_module"):
        await Pool(1, preload=["no_such_module"]).open()


async def test_a_pool_that_breaks() -> None:
    """`close` raises what broke the pool."""
    pool = await Pool(1, initializer=functions.no_database).open()
    [failed] = await outcomes([pool.submit(functions.add, 1)])
    assert isinstance(failed, errors.PoolError)
    with pytest.raises(errors.ChildStartFailed, match="no database"):
        await pool.close()


async def test_cancelled_while_it_opens() -> None:
    """An `open` that is cancelled leaves no process behind."""
    before = set(psutil.Process().children())
    with anyio.move_on_after(0.02):
        await Pool(2).open()
    with anyio.fail_after(PATIENCE):
        while set(psutil.Process().children()) - before:
            await anyio.lowlevel.checkpoint()
