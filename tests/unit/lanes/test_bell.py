"""A bell that wakes whoever sleeps beside it."""

import asyncio

import anyio

from hybridpool.lanes.bell import Bell


async def test_wakes_everyone_who_sleeps() -> None:
    """A supervisor would sleep through what it waits for."""
    bell = Bell()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as sleepers:
            for _ in range(3):
                sleepers.start_soon(bell.wait)
            await anyio.wait_all_tasks_blocked()
            bell.ring()


async def test_ringing_for_nobody_is_forgotten() -> None:
    """A supervisor would be woken by something that it has seen already."""
    bell = Bell()
    bell.ring()
    with anyio.move_on_after(0.01) as scope:
        await bell.wait()
    assert scope.cancelled_caught


async def test_it_can_ring_twice_before_anyone_is_awake() -> None:
    """Two events in one turn of the loop would raise."""
    bell = Bell()
    async with anyio.create_task_group() as sleepers:
        sleepers.start_soon(bell.wait)
        await anyio.wait_all_tasks_blocked()
        bell.ring()
        bell.ring()


async def test_a_time_limit_is_no_error() -> None:
    """A supervisor that is to look again after a while would end with an exception."""
    await Bell().wait(0.001)
    await Bell().wait(0)


async def test_waking_between_look_and_sleep_is_impossible() -> None:
    """A change made by the loop's next callback would be missed."""
    bell = Bell()
    asyncio.get_running_loop().call_soon(bell.ring)
    with anyio.fail_after(30):
        await bell.wait()


async def test_a_cancelled_sleeper_is_no_trouble() -> None:
    """A supervisor that was stopped would break the ring for the others."""
    bell = Bell()
    with anyio.move_on_after(0.001):
        await bell.wait()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as sleepers:
            sleepers.start_soon(bell.wait)
            await anyio.wait_all_tasks_blocked()
            bell.ring()
