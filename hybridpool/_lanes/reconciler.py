"""The reconciler keeps the number of children at the lane's size: it forks, retires the surplus, and kills children
that are not ready, or not gone, in time.
"""

import random
from typing import Any

from hybridpool import events
from hybridpool._lanes.children.lane import ChildLane
from hybridpool._lanes.snapshot import LaneSnapshot
from hybridpool._policy import backoff
from hybridpool._policy.lifecycle import State
from hybridpool._policy.reconcile import LaneView, ReconcilePlan, plan
from hybridpool._policy.recycle import RecycleLimits, age_reason
from hybridpool.errors import ChildStartFailed

#: starts that may fail in a row before a pool without children gives up; with the back-off below that takes about half
#: a minute
FAILED_STARTS_TO_GIVE_UP = 8


class Reconciler:
    """The loop and its state: until when not to fork, because starts failed."""

    def __init__(
        self, lane: ChildLane[Any], bus: events.Bus, start_timeout: float, spares: int, first_starts: int | None
    ) -> None:
        """Keep the number of a lane's children.

        :param start_timeout: seconds a child may take to be ready, or to exit.
        :param spares: ready children beyond the lane's size.
        :param first_starts: starts that may fail in a row while no child was ever READY; None: as many as later.
        """
        self._first_starts = first_starts or FAILED_STARTS_TO_GIVE_UP
        self._lane = lane
        self._bus = bus
        self._start_timeout = start_timeout
        self._spares = spares
        self._failure_seen_at = 0.0
        self._fork_after = 0.0

    async def run(self) -> None:
        """Keep the number of children for ever.

        :raises ChildStartFailed: if children die or hang again and again before they are ready.
        """
        while True:
            seen = self._lane.snapshot()
            self._back_off(seen)
            replaced, oldest_in = self._oldest(seen)
            if replaced is not None:
                self._lane.retire(*replaced, once_replaced=True)
                seen = self._lane.snapshot()
            decided = plan(self._view(seen)) if seen.can_fork else ReconcilePlan()
            if self._carry_out(decided, seen):
                await self._lane.wait_changed(_sooner(decided.check_again_in, oldest_in))

    def _view(self, seen: LaneSnapshot) -> LaneView:
        children = seen.children
        return LaneView(
            target=seen.size,
            spares=self._spares,
            now=seen.at,
            idle=[child.name for child in seen.idle if not child.is_being_replaced],
            busy=sum(1 for child in children if child.state is State.BUSY and not child.is_being_replaced),
            replaceable=[child.name for child in children if child.retires_because and child.is_serving],
            starting=[
                (child.name, child.ordered_at)
                for child in children
                if child.state is State.STARTING and not child.start_failed and not child.is_apart
            ],
            starting_apart=[
                (child.name, child.ordered_at)
                for child in children
                if child.state is State.STARTING and not child.start_failed and child.is_apart
            ],
            exiting=[
                (child.name, child.finished_at)
                for child in children
                if child.finished_at is not None
                and not child.start_failed
                and (child.pid == 0 or not child.is_to_be_killed)
            ],
            failed_starts=seen.starts.failed,
            fork_after=self._fork_after,
            start_timeout=self._start_timeout,
        )

    def _oldest(self, seen: LaneSnapshot) -> tuple[tuple[str, str] | None, float | None]:
        """Find a child that is past its age; one at a time is replaced, so that the pool never misses two at once.

        :returns: its name, and why it is to be replaced; and in how many seconds the next one is past its age. Both
            None while one is being replaced: its end is notified.
        """
        nearest = None
        for child in seen.children:
            if not child.is_serving:
                continue
            if child.retires_because is not None:
                return None, None
            if child.max_age is not None:
                age = seen.at - child.ordered_at
                reason = age_reason(RecycleLimits(age=child.max_age), age=age)
                if reason is not None:
                    return (child.name, reason), None
                nearest = _sooner(nearest, child.max_age - age)
        return None, nearest

    def _carry_out(self, decided: ReconcilePlan, seen: LaneSnapshot) -> bool:
        """Do it; False if a child could not be ordered, which calls for another plan at once."""
        limit = f"within {self._start_timeout:g} s (worker_proc_alive_timeout)"
        for name in decided.kill_not_ready:
            self._lane.give_up(name, f"not ready {limit}")
        for name in decided.kill_not_gone:
            self._lane.give_up(name, f"not gone {limit}")
        if decided.retire:
            reasons = {child.name: child.retires_because for child in seen.children}
            for name in decided.retire:
                self._lane.retire(name, reasons[name] or "more children than needed")
        return all(self._lane.spawn() for _ in range(decided.fork))

    def _back_off(self, seen: LaneSnapshot) -> None:
        """After a start that failed, wait longer each time before the next."""
        starts = seen.starts
        if starts.failed and starts.failed_at != self._failure_seen_at:
            self._failure_seen_at = starts.failed_at
            limit = FAILED_STARTS_TO_GIVE_UP if starts.ever_ready else self._first_starts
            if starts.failed >= limit and not any(child.was_ready for child in seen.children):
                raise ChildStartFailed(
                    f"{starts.failed} children in a row failed to start; the last: {starts.last_failure}"
                )
            wait = backoff.delay(starts.failed, first=0.25, factor=2.0, limit=15.0, jitter=random.random())
            self._fork_after = self._lane.clock() + wait
            self._bus.emit(events.ChildStartFailed("", starts.last_failure, wait))


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)
