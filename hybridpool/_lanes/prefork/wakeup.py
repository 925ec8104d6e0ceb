"""A wakeup: wakes whoever sleeps beside it, costs nothing when nobody does."""

import asyncio


class Wakeup:
    """Look, act, then `wait`: nothing can happen between the look and the sleep, as both are on one loop."""

    __slots__ = ("_sleepers",)

    def __init__(self) -> None:
        self._sleepers: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        """Wake everyone who sleeps now."""
        if self._sleepers:
            sleepers, self._sleepers = self._sleepers, []
            for sleeper in sleepers:
                if not sleeper.done():
                    sleeper.set_result(None)

    def sleeper(self) -> asyncio.Future[None]:
        """Return a future that the next ring wakes; whoever gives up waiting cancels it."""
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        return sleeper

    async def wait(self, timeout: float | None = None) -> None:
        """Sleep until the next ring, or so many seconds; None: however long it takes."""
        sleeper = self.sleeper()
        try:
            if timeout is None:
                await sleeper
            else:
                await asyncio.wait((sleeper,), timeout=timeout)
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)
