"""Brings the lane's size to what `policy.autoscale` wants, as far as `policy.headroom` finds memory for it."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Final

import attrs

from hybridpool import events
from hybridpool._daemon_threads import run_in_daemon_thread
from hybridpool._lanes.prefork import memory_readings
from hybridpool._lanes.prefork.lane import PreforkLane
from hybridpool._policy.autoscale import ScaleLimits, ScaleMemory, decide
from hybridpool._policy.headroom import Bound, Fit, fit

#: seconds until the memory of new children is known, or memory may have been freed
CHECK_AGAIN_S: Final = 0.5


class Autoscaler:
    """The loop and its state."""

    def __init__(
        self,
        lane: PreforkLane,
        limits: ScaleLimits,
        bus: events.Bus,
        budget: int | None,
        on_scaled: Callable[[int], None] = lambda _: None,
        others: Callable[[], list[int]] = list,
    ) -> None:
        """Scale a lane.

        :param budget: bytes that children may own together; None: what cgroup and host leave.
        :param on_scaled: called with each new size.
        :param others: returns the pids of the children of other lanes, which count for the budget.
        """
        self._lane = lane
        self.limits = limits
        self._bus = bus
        self._budget = budget
        self._on_scaled = on_scaled
        self._others = others
        self._memory = ScaleMemory()
        #: bytes that the largest child owned so far
        self._heaviest = 0
        self._held_by: str | None = None

    def limit(self, floor: int, ceiling: int) -> None:
        """Change the least and the greatest size; the lane is brought between them at once."""
        self.limits = attrs.evolve(self.limits, floor=floor, ceiling=ceiling)
        self._lane.wake_scaler()

    async def run(self) -> None:
        """Scale for ever."""
        lane = self._lane
        while True:
            decided = decide(
                load=lane.demand,
                size=lane.size,
                limits=self.limits,
                memory=self._memory,
                now=lane.clock(),
            )
            self._memory, (least, most), check_again_in = decided.memory, decided.watch, decided.look_again_in
            size = decided.size
            if size > lane.size:
                fitting = await self._fit(size)
                size = fitting.size
                if fitting.is_short:
                    (least, most), check_again_in = (0, sys.maxsize), CHECK_AGAIN_S
            if size != lane.size and lane.takes_calls:
                before = lane.size
                lane.resize(size)
                self._on_scaled(size)
                self._bus.emit(events.PoolScaled(before, size))
            # It returns at once if the load has changed while memory was read.
            await lane.wait_load_outside(least, most, check_again_in)

    async def _fit(self, wanted: int) -> Fit:
        """Find out how much of a growth memory allows."""
        pids = [child.pid for child in self._lane.snapshot().children if child.pid]
        owned, bounds = await run_in_daemon_thread(partial(_read_memory, [*pids, *self._others()]))
        self._heaviest = max(self._heaviest, *(owned.get(pid, 0) for pid in pids), 0)
        if self._budget is not None:
            bounds.append(
                Bound(name="the memory budget", limit=self._budget, used=sum(owned.values()), reserve=0),
            )
        fitting = fit(size=self._lane.size, wanted=wanted, heaviest=self._heaviest, bounds=bounds)
        if fitting.held_by and not self._held_by:
            self._bus.emit(events.PoolHeld(fitting.size, wanted, fitting.held_by))
        self._held_by = fitting.held_by
        return fitting


def _read_memory(pids: list[int]) -> tuple[dict[int, int], list[Bound]]:
    return memory_readings.owned(pids), memory_readings.bounds()
