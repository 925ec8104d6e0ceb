"""A pool is a guest: in any loop, beside task groups, with functions and options of all kinds."""

import asyncio
import functools
import math
import os
import pickle
import re
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from hybridpool import App, Pool, embedded
from hybridpool.errors import CannotSend, ConfigError, PoolError
from tests.integration.pool import functions
from tests.integration.pool.helpers import PATIENCE, open_pool

# starting a zygote reads the pipe on which exec would tell its failure
pytestmark = pytest.mark.may_block


# ---- cancellation ----------------------------------------------------------------------------------------------------


def without_addresses(value: object) -> str:
    """Name a parameter alike in each process of a run."""
    return re.sub("0x[0-9a-f]+", "…", repr(value))


async def fail() -> None:
    """Fail."""
    raise ValueError


@pytest.mark.parametrize("is_caught", [True, False])
async def test_a_task_group_that_failed(is_caught: bool) -> None:
    """A task group that failed inside leaves no cancellation behind, whether its error is caught inside or outside."""

    async def program() -> int:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with open_pool(1) as pool:
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(fail())
                        group.create_task(pool.run(functions.spin, 2))
                except* ValueError:
                    if not is_caught:
                        raise
                assert await pool.run(functions.add, 1) == 2
        except* ValueError:
            assert not is_caught
        await asyncio.sleep(0)
        return task.cancelling()

    # In a task of its own: nothing around it may take the cancellation back.
    assert await asyncio.create_task(program()) == 0


async def test_a_cancellation_from_outside() -> None:
    """A cancellation that is meant for the program is not taken for one that was left behind."""

    async def program() -> None:
        async with open_pool(1) as pool:
            await pool.run(functions.spin, 5)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.create_task(program()), 1.0)


# ---- loops and threads -----------------------------------------------------------------------------------------------


def elsewhere(function: Callable[[], Awaitable[object]]) -> object:
    """Await it on a loop of another thread; return its value or what it raised."""
    found: list[object] = []

    async def wait() -> object:
        return await asyncio.wait_for(function(), PATIENCE)

    def run() -> None:
        try:
            found.append(asyncio.run(wait()))
        except Exception as error:  # noqa: BLE001  # it is what the test wants to look at
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


async def test_another_loop(one: Pool) -> None:
    """Calls from another loop or thread are refused in one line that says what to write, and the pool works on."""
    call = one.submit(functions.spin, 0.1)

    async def iterate() -> object:
        return [value async for value in mapped]

    async def wait() -> object:
        return await call

    mapped = one.map(functions.add, [1])
    for use in (lambda: one.run(functions.add, 1), iterate, wait, call.wait, lambda: one.resize(2)):
        error = await asyncio.to_thread(elsewhere, use)
        assert isinstance(error, PoolError), use
        assert "another event loop" in str(error)
    for blocking in (lambda: one.submit(functions.add, 1), lambda: one.map(functions.add, [1]), one.stats):
        with pytest.raises(PoolError, match="run_coroutine_threadsafe"):
            await asyncio.to_thread(blocking)
    loop = asyncio.get_running_loop()
    sent = await asyncio.to_thread(
        lambda: asyncio.run_coroutine_threadsafe(one.run(functions.add, 1), loop).result(PATIENCE)
    )
    assert sent == 2
    assert isinstance(await call, int)


def test_no_loop_of_asyncio() -> None:
    """Pools and embedded workers raise an error that names asyncio where asyncio does not run, as under trio."""
    with pytest.raises(PoolError, match="needs asyncio"):
        Pool(1).__aenter__().send(None)
    with pytest.raises(ConfigError, match="needs asyncio"):
        embedded(App("guest")).__aenter__().send(None)


# ---- options and limits ----------------------------------------------------------------------------------------------

WRONG_SECONDS = [
    -1,
    math.nan,
    math.inf,
    -math.inf,
    True,
    "5",
    "soon",
    timedelta(seconds=1),
    Decimal(1),
    [1],
    1e30,
    10**400,
]


@pytest.mark.parametrize("wrong", WRONG_SECONDS, ids=repr)
async def test_limits_that_are_no_seconds(one: Pool, wrong: Any) -> None:
    """A limit that is not a number of seconds is refused where it is written, and costs no child."""
    child = await one.run(functions.who)
    with pytest.raises(ConfigError, match=r"^run\(timeout=…\) must be seconds, not "):
        await one.run(functions.add, 1, timeout=wrong)
    with pytest.raises(ConfigError, match=r"^run\(soft_timeout=…\) must be seconds, not "):
        await one.run(functions.add, 1, timeout=None, soft_timeout=wrong)
    with pytest.raises(ConfigError, match=r"^map\(timeout=…\) must be seconds, not "):
        one.map(functions.add, [1], timeout=wrong)
    assert await one.run(functions.who, timeout=PATIENCE) == child


@pytest.mark.parametrize("wrong", [0, -1, math.nan, 1.5, True, "2", None], ids=repr)
async def test_counts_that_are_none(one: Pool, wrong: Any) -> None:
    """A number of children or of items under way that is not a whole number of at least 1 is refused at once."""
    with pytest.raises(ConfigError, match=r"^resize\(…\) must be a whole number of at least 1, not "):
        await one.resize(wrong)
    if wrong is not None:
        with pytest.raises(ConfigError, match=r"^map\(limit=…\) must be a whole number of at least 1, not "):
            one.map(functions.add, [1], limit=wrong)
    assert await one.run(functions.add, 1) == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_age": 5}, "'max_age' is not an option of Pool; did you mean 'max_age_per_child'?"),
        ({"zzz": 1}, "'zzz' is not an option of Pool"),
        *[({"time_limit": wrong}, "Pool(time_limit=…) must be seconds, not") for wrong in WRONG_SECONDS],
        ({"grace": None}, "Pool(grace=…) must be seconds, not None"),
        ({"start_timeout": math.nan}, "Pool(start_timeout=…) must be seconds, not nan"),
        ({"size": math.nan}, "Pool(size=…) must be a whole number of at least 1, not nan"),
        ({"max_tasks_per_child": True}, "Pool(max_tasks_per_child=…) must be a whole number of at least 1, not True"),
        ({"preload": "numpy"}, "Pool(preload=…) must be a list of module names, not 'numpy'"),
        ({"preload": [5]}, "Pool(preload=…) must be a list of module names, not one with 5 in it"),
        ({"initializer": 5}, "Pool(initializer=…) must be a function, not 5"),
        ({"initializer": functions.coroutine}, "Pool(initializer=…) must not be async"),
        ({"on_event": "log"}, "Pool(on_event=…) must be a function, not 'log'"),
        ({"on_event": functions.coroutine}, "Pool(on_event=…) must not be async"),
    ],
    ids=without_addresses,
)
def test_options(options: dict[str, Any], complaint: str) -> None:
    """A wrong option of a pool is refused with our own message, which suggests the right name."""
    with pytest.raises(ConfigError) as raised:
        Pool(**options)
    assert str(raised.value).startswith(complaint)


# ---- functions -------------------------------------------------------------------------------------------------------


async def test_parameters_named_like_limits(one: Pool) -> None:
    """A function with a parameter `timeout` or `soft_timeout` gets the argument given by that name."""
    assert await one.run(functions.fetch, "u", timeout=5, soft_timeout=4) == ["u", 5, 4]
    assert await one.run(functions.fetch, "u", timeout=None) == ["u", None, 20.0]
    assert await one.run(functools.partial(functions.fetch, timeout=5), "u", soft_timeout=-1) == ["u", 5, -1]
    assert await one.submit(functions.fetch, "u", timeout=5) == ["u", 5, 20.0]


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (5, "5 cannot be called"),
        (None, "None cannot be called"),
        (functions.generator, "generator is a generator function"),
        (functions.async_generator, "async_generator is a generator function"),
    ],
    ids=without_addresses,
)
async def test_what_no_child_runs(one: Pool, function: Any, complaint: str) -> None:
    """A function that a child cannot run to a value is refused where the call is written."""
    with pytest.raises(CannotSend, match=complaint):
        one.submit(function, 1)
    with pytest.raises(CannotSend, match=complaint):
        await one.run(function)
    with pytest.raises(CannotSend, match=complaint):
        one.map(function, [1])
    with pytest.raises(CannotSend, match="map takes an iterable of items, not 5"):
        one.map(functions.add, 5)  # type: ignore[call-overload]  # that is the point
    assert await one.run(functions.who) != os.getpid()


async def test_pickling(one: Pool) -> None:
    """A pool and a call refuse to be pickled, and say why."""
    with pytest.raises(TypeError, match="a Pool cannot be pickled"):
        pickle.dumps(one)
    with pytest.raises(TypeError, match="belongs to its pool"):
        pickle.dumps(one.submit(functions.add, 1))
