"""Outcomes of acknowledged messages that wait to be stored or sent: bounded, and waited for when the worker stops."""

from collections.abc import Callable

import anyio

from hybridpool import events
from hybridpool._policy.backlog import holds_back


class Backlog:
    """Counts them, and has no more messages taken while there are too many."""

    def __init__(self, hold_back: Callable[[bool], None], bus: events.Bus) -> None:
        """:param hold_back: told whether messages are not to be taken."""
        self._hold_back = hold_back
        self._bus = bus
        self.waiting = 0
        #: bytes
        self.size = 0
        self.is_held_back = False
        self._emptied = anyio.Event()

    def add(self, size: int) -> None:
        """Count an outcome.

        :param size: bytes of its message and its result.
        """
        self.waiting += 1
        self.size += size
        self._decide()

    def remove(self, size: int) -> None:
        """Count it no more: what follows from it is done."""
        self.waiting -= 1
        self.size -= size
        self._decide()
        if not self.waiting:
            self._emptied.set()

    def _decide(self) -> None:
        decided = holds_back(self.waiting, self.size, is_held_back=self.is_held_back)
        if decided is self.is_held_back:
            return
        self.is_held_back = decided
        self._hold_back(decided)
        self._bus.emit(events.IntakeHeld(self.waiting, self.size) if decided else events.IntakeResumed(self.waiting))

    async def wait_empty(self, quiet: float, limit: float | None) -> None:
        """Wait until nothing waits.

        :param quiet: seconds after which it is said that the worker waits.
        :param limit: seconds; None: for ever.
        """
        with anyio.move_on_after(limit):
            with anyio.move_on_after(quiet):
                await self._wait_empty()
                return
            self._bus.emit(events.StopDelayed(self.waiting, limit))
            await self._wait_empty()

    async def _wait_empty(self) -> None:
        while self.waiting:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    def give_up(self) -> None:
        """Say what is lost; call it when nothing more can be stored or sent."""
        if self.waiting:
            self._bus.emit(events.OutcomesLost(self.waiting))
