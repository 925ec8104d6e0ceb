"""An event loop in virtual time: it never sleeps, and its clock moves only when nothing else can happen.

Descriptors are real and are polled. When none is ready the clock leaps to the next timer, so an hour of limits and
back-offs passes in milliseconds, and the same seed gives the same order of events every time.
"""

import asyncio
import random
import selectors
from collections.abc import Callable
from typing import Any, Final

#: turns of the loop at one moment; more than any schedule needs
_TURNS: Final = 10_000


#: seconds that a turn takes; while a clock stands still, a task that waits for a rounded moment waits for ever
_TURN: Final = 1e-7


class Stuck(Exception):
    """Nothing can happen any more, or everything happens at one moment for ever."""


class _Selector(selectors.EpollSelector):
    """Polls; what is ready at the same moment comes in the order that the seed gives."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._registered = 0
        self._age: dict[int, int] = {}
        self.now = 0.0
        #: of the loop, since time passed last
        self.turns = 0
        #: called between two turns of the loop, and before time passes
        self.on_turn: Callable[[], None] | None = None
        self.on_leap: Callable[[], None] | None = None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self._registered += 1
        key = super().register(fileobj, events, data)
        self._age[key.fd] = self._registered
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        self.now += _TURN
        if self.turns > _TURNS:
            raise Stuck("it spins: time does not pass any more")
        if self.on_turn is not None:
            self.on_turn()
        ready = super().select(0)
        if ready:
            # Neither the kernel's order nor the descriptors' numbers belong to the seed.
            ready.sort(key=lambda event: self._age[event[0].fd])
            self._chance.shuffle(ready)
            return ready
        if timeout is None:
            raise Stuck("nothing can happen any more: no timer is set and nobody writes")
        if timeout > 0:
            if self.on_leap is not None:
                self.on_leap()
            self.now += timeout
            self.turns = 0
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose `time` is virtual seconds since its beginning."""

    def __init__(self, chance: random.Random) -> None:
        self._virtual = _Selector(chance)
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return virtual seconds."""
        return self._virtual.now

    def jump(self, seconds: float) -> None:
        """Let time pass while the loop does nothing, as if the machine had slept."""
        self._virtual.now += seconds

    def watch(self, on_turn: Callable[[], None] | None, on_leap: Callable[[], None] | None) -> None:
        """Have functions called between two turns of the loop, and each time before the clock moves on.

        What they raise ends the run.
        """
        self._virtual.on_turn, self._virtual.on_leap = on_turn, on_leap
        self._virtual.turns = 0

    def timers(self) -> int:
        """How many timers are set."""
        return sum(not timer.cancelled() for timer in self._scheduled)  # type: ignore[attr-defined]  # asyncio's own

    def watched(self) -> int:
        """How many descriptors are waited for, the loop's own apart."""
        return len(self._virtual.get_map()) - 1
