"""A wakeup: it wakes the tasks that wait for it at that moment, and costs nothing when none does."""

import asyncio


class Wakeup:
    """A notification that is not sticky: one that comes while no task waits is forgotten.

    So a task checks its condition first, and waits only if it does not hold. Nothing can change between the check and
    the wait as long as the task does not await in between: everything that notifies runs on the same event loop.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def notify_all(self) -> None:
        """Wake all tasks that wait now."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def waiter(self) -> asyncio.Future[None]:
        """Return a future that the next notification resolves; a caller that gives up waiting cancels it."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until the next notification.

        :param timeout: seconds after which to return without one; None: wait without a limit.
        """
        waiter = self.waiter()
        try:
            if timeout is None:
                await waiter
            else:
                await asyncio.wait((waiter,), timeout=timeout)
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
