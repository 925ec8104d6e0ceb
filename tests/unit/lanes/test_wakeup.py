"""A wakeup that wakes whoever sleeps beside it."""

import asyncio

import anyio

from hybridpool._lanes.prefork.wakeup import Wakeup


async def test_wakes_everyone_who_sleeps() -> None:
    """A supervisor would sleep through what it waits for."""
    wakeup = Wakeup()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as sleepers:
            for _ in range(3):
                sleepers.start_soon(wakeup.wait)
            await anyio.wait_all_tasks_blocked()
            wakeup.ring()


async def test_ringing_for_nobody_is_forgotten() -> None:
    """A supervisor would be woken by something that it has seen already."""
    wakeup = Wakeup()
    wakeup.ring()
    with anyio.move_on_after(0.01) as scope:
        await wakeup.wait()
    assert scope.cancelled_caught


async def test_it_can_ring_twice_before_anyone_is_awake() -> None:
    """Two events in one turn of the loop would raise."""
    wakeup = Wakeup()
    async with anyio.create_task_group() as sleepers:
        sleepers.start_soon(wakeup.wait)
        await anyio.wait_all_tasks_blocked()
        wakeup.ring()
        wakeup.ring()


async def test_a_time_limit_is_no_error() -> None:
    """A supervisor that is to look again after a while would end with an exception."""
    await Wakeup().wait(0.001)
    await Wakeup().wait(0)


async def test_waking_between_look_and_sleep_is_impossible() -> None:
    """A change made by the loop's next callback would be missed."""
    wakeup = Wakeup()
    asyncio.get_running_loop().call_soon(wakeup.ring)
    with anyio.fail_after(30):
        await wakeup.wait()


async def test_a_cancelled_sleeper_is_no_trouble() -> None:
    """A supervisor that was stopped would break the ring for the others."""
    wakeup = Wakeup()
    with anyio.move_on_after(0.001):
        await wakeup.wait()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as sleepers:
            sleepers.start_soon(wakeup.wait)
            await anyio.wait_all_tasks_blocked()
            wakeup.ring()
