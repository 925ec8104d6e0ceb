"""A wakeup wakes the tasks that wait for it."""
# pyright: reportPrivateUsage=false

import asyncio

import anyio

from hybridpool._lanes.wakeup import Wakeup


async def test_wakes_all_tasks_that_wait() -> None:
    """A notification wakes every task that waits."""
    wakeup = Wakeup()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as waiters:
            for _ in range(3):
                waiters.start_soon(wakeup.wait)
            await anyio.wait_all_tasks_blocked()
            wakeup.notify_all()


async def test_a_notification_is_not_sticky() -> None:
    """A notification that comes while no task waits wakes none later."""
    wakeup = Wakeup()
    wakeup.notify_all()
    with anyio.move_on_after(0.01) as scope:
        await wakeup.wait()
    assert scope.cancelled_caught


async def test_two_notifications_in_one_turn() -> None:
    """Two notifications in one turn of the loop are as good as one."""
    wakeup = Wakeup()
    async with anyio.create_task_group() as waiters:
        waiters.start_soon(wakeup.wait)
        await anyio.wait_all_tasks_blocked()
        wakeup.notify_all()
        wakeup.notify_all()


async def test_a_waiter_that_gave_up() -> None:
    """A future that its owner has cancelled does not keep the others from being woken, and none is kept."""
    wakeup = Wakeup()
    given_up, waiting = wakeup.waiter(), wakeup.waiter()
    given_up.cancel()
    wakeup.notify_all()
    assert waiting.done()
    assert wakeup._waiters == []


async def test_a_time_limit_is_not_an_error() -> None:
    """A wait with a time limit returns when it is up."""
    await Wakeup().wait(0.001)
    await Wakeup().wait(0)


async def test_no_notification_is_missed_between_check_and_wait() -> None:
    """A change made by the loop's next callback wakes the task that begins to wait now."""
    wakeup = Wakeup()
    asyncio.get_running_loop().call_soon(wakeup.notify_all)
    with anyio.fail_after(30):
        await wakeup.wait()


async def test_a_cancelled_wait_leaves_nothing() -> None:
    """A task whose wait was cancelled does not keep others from being woken."""
    wakeup = Wakeup()
    with anyio.move_on_after(0.001):
        await wakeup.wait()
    await wakeup.wait(0.001)
    assert wakeup._waiters == []
    with anyio.fail_after(30):
        async with anyio.create_task_group() as waiters:
            waiters.start_soon(wakeup.wait)
            await anyio.wait_all_tasks_blocked()
            wakeup.notify_all()
