"""InlinePool: a test sees of it what it sees of a pool with children."""

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest

from hybridpool import current_task, errors, resource
from hybridpool._pool import Pool
from hybridpool.testing import InlinePool

pytestmark = pytest.mark.anyio
EVENTS: list[str] = []


def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def fail(text: str) -> None:
    """Raise."""
    raise ValueError(text)


def grown(values: list[int]) -> list[int]:
    """Change the argument, and return it."""
    values.append(1)
    return values


def unsendable() -> object:
    """Return what cannot be sent."""
    return threading.Lock()


def large(value: bytes) -> bytes:
    """Return as much as came."""
    return value


def where() -> tuple[int, str, object]:
    """Return process, task and resource."""
    task = current_task()
    return os.getpid(), task.child if task else "", resource()


def connection() -> Iterator[str]:
    """Open, and close again."""
    EVENTS.append("opened")
    yield "a connection"
    EVENTS.append("closed")


def broken() -> None:
    """Fail to be made."""
    raise OSError("no database")


async def test_values_and_errors_come_back() -> None:
    """`run`, `submit` and `map` return the values of a function, and `run` raises its error."""
    async with InlinePool() as pool:
        assert await pool.run(double, 4) == 8
        with pytest.raises(ValueError, match="no"):
            await pool.run(fail, "no")
        call = pool.submit(double, 5)
        assert call.state == "waiting"
        assert await call == 10
        assert (call.state, call.child) == ("done", "InlinePool")
        assert [value async for value in pool.map(double, range(300))] == [2 * n for n in range(300)]
        assert sorted([value async for value in pool.map(double, [2, 1], ordered=False)]) == [2, 4]


async def test_it_is_a_pool() -> None:
    """An InlinePool is a Pool: it takes the same options and a new size, refuses size 0, and has no children."""
    async with InlinePool(3, max_tasks_per_child=5, time_limit=1) as pool:
        assert isinstance(pool, Pool)
        assert pool.stats() == []
        await pool.resize(2)
        with pytest.raises(errors.ConfigError):
            await pool.resize(0)
        with pytest.raises(errors.PoolError, match="no child"):
            await pool.recycle("ForkPoolWorker-1")
    with pytest.raises(errors.ConfigError):
        InlinePool(0)


async def test_calls_share_nothing() -> None:
    """A call changes a copy of its argument, and the caller's own stays as it was."""
    mine: list[int] = []
    async with InlinePool() as pool:
        assert await pool.run(grown, mine) == [1]
    assert mine == []


async def test_what_cannot_be_sent_is_refused() -> None:
    """A lock is refused as an argument and as a return value, by an error that names it."""
    async with InlinePool() as pool:
        with pytest.raises(errors.CannotSend, match="argument 1, a lock"):
            pool.submit(large, threading.Lock())  # type: ignore[call-overload]  # that is the mistake
        with pytest.raises(errors.CannotSend, match="returned a lock"):
            await pool.run(unsendable)


@pytest.mark.may_block
@pytest.mark.parametrize("size", [200_000, 3_000_000])
async def test_large_values_travel(size: int) -> None:
    """Large values come back whole, and the calls that follow are run."""
    async with InlinePool() as pool:
        assert await pool.run(large, b"x" * size) == b"x" * size
        assert await asyncio.gather(*(pool.run(double, n) for n in range(3))) == [0, 2, 4]


async def test_inside_of_a_call() -> None:
    """A call finds its task and its resource, and neither is there when the block has ended."""
    EVENTS.clear()
    async with InlinePool(initializer=connection) as pool:
        assert await pool.run(where) == (os.getpid(), "InlinePool", "a connection")
        assert EVENTS == ["opened"]
    assert EVENTS == ["opened", "closed"]
    assert resource() is None
    assert current_task() is None


async def test_an_initializer_that_fails_ends_the_pool() -> None:
    """An initializer that fails is raised as `ChildStartFailed` before the block is entered, and leaves no resource."""
    with pytest.raises(errors.ChildStartFailed, match="no database"):
        async with InlinePool(initializer=broken):
            raise AssertionError("it was entered")
    assert resource() is None


async def test_cancelled_before_it_began() -> None:
    """A call that is cancelled before it begins raises `TaskCancelled` to its caller."""
    async with InlinePool() as pool:
        call = pool.submit(double, 1)
        call.cancel()
        with pytest.raises(errors.TaskCancelled):
            await call


async def test_leaving() -> None:
    """A block that ends runs the calls that wait; after an error it ends them with `PoolError`, and takes no more."""
    async with InlinePool() as pool:
        call = pool.submit(double, 2)
    assert await call == 4
    try:
        async with InlinePool() as pool:
            call = pool.submit(double, 2)
            raise KeyError
    except KeyError:
        pass
    with pytest.raises(errors.PoolError, match="was not run"):
        await call
    with pytest.raises(errors.PoolClosed):
        pool.submit(double, 2)


async def test_opened_and_closed_apart() -> None:
    """A pool is opened and closed by two calls, without a block."""
    pool = await InlinePool().open()
    assert await pool.run(double, 1) == 2
    await pool.close()
