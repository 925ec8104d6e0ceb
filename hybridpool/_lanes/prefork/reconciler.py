"""Keeps the number of children at the lane's size: forks, retires the surplus, kills what is not born in time."""

import random

from hybridpool import events
from hybridpool._lanes.prefork.lane import ProcessLane
from hybridpool._policy import backoff
from hybridpool._policy.lifecycle import State
from hybridpool._policy.reconcile import LaneView, ReconcilePlan, plan
from hybridpool._policy.recycle import age_reason
from hybridpool.errors import ChildStartFailed

#: starts that may fail in a row before a pool that has nobody left gives up; with the back-off below that takes about
#: half a minute
FAILED_STARTS_TO_GIVE_UP = 8


class Reconciler:
    """The loop and what it remembers: until when not to fork, because spawn_failures fail."""

    def __init__(
        self, lane: ProcessLane, bus: events.Bus, start_timeout: float, spares: int, first_starts: int | None
    ) -> None:
        """Keep the headcount of a lane.

        :param first_starts: starts that may fail in a row while not one child was ever READY; None: as many as later.
        """
        self._first_starts = first_starts or FAILED_STARTS_TO_GIVE_UP
        self._lane = lane
        self._bus = bus
        self._start_timeout = start_timeout
        self._spares = spares
        self._failure_seen_at = 0.0
        self._fork_after = 0.0

    async def run(self) -> None:
        """Keep the headcount for ever.

        :raises ChildStartFailed: if children die or hang again and again before they are ready.
        """
        registry = self._lane.registry
        while True:
            self._back_off()
            older_in = self._mark_the_oldest()
            decided = plan(self._view()) if registry.zygote is not None else ReconcilePlan()
            if self._carry_out(decided):
                await registry.changed.wait(_sooner(decided.look_again_in, older_in))

    def _view(self) -> LaneView:
        children = self._lane.registry.children.values()
        target = self._lane.size
        self._lane.headcount = target + self._spares
        return LaneView(
            target=target,
            spares=self._spares,
            now=self._lane.registry.clock(),
            idle=[child.name for child in self._lane.dispatcher.idle if not child.is_going],
            busy=sum(1 for child in children if child.state is State.BUSY and not child.is_going),
            replaceable=[child.name for child in children if child.leaving and child.state in (State.IDLE, State.BUSY)],
            starting=[
                (child.name, child.ordered_at)
                for child in children
                if child.state is State.STARTING and not child.start_failure
            ],
            parting=[
                (child.name, child.parted_at)
                for child in children
                if child.parted_at is not None
                and not child.start_failure
                and (child.pid == 0 or not child.is_to_be_killed)
            ],
            failed_starts=self._lane.registry.spawn_failures.failed,
            fork_after=self._fork_after,
            start_timeout=self._start_timeout,
        )

    def _mark_the_oldest(self) -> float | None:
        """Have a child replaced that is past its age; one at a time, so that no two are missed at once.

        :returns: seconds until the next one is past it; None while one is on its way, whose end rings.
        """
        registry = self._lane.registry
        now, nearest = registry.clock(), None
        for child in registry.children.values():
            if child.leaving is not None and child.state in (State.IDLE, State.BUSY):
                return None
            if child.limits.age is not None and child.state in (State.IDLE, State.BUSY):
                age = now - child.ordered_at
                child.leaving = age_reason(child.limits, age=age)
                if child.leaving is not None:
                    return None
                nearest = _sooner(nearest, child.limits.age - age)
        return nearest

    def _carry_out(self, decided: ReconcilePlan) -> bool:
        """Do it; False if a child could not be ordered, which calls for another plan at once."""
        registry = self._lane.registry
        for name in decided.kill_unborn:
            reason = f"not ready within {self._start_timeout:g} s (worker_proc_alive_timeout)"
            registry.give_up(registry.children[name], reason)
        for name in decided.kill_lingering:
            registry.give_up(
                registry.children[name], f"not gone within {self._start_timeout:g} s (worker_proc_alive_timeout)"
            )
        for name in decided.retire:
            child = registry.children[name]
            self._lane.retire(child, child.leaving or "more children than needed")
        return all(registry.spawn() for _ in range(decided.fork))

    def _back_off(self) -> None:
        """After a birth that failed, wait longer each time before the next."""
        registry = self._lane.registry
        spawn_failures = registry.spawn_failures
        failures = spawn_failures.failed
        if failures and spawn_failures.failed_at != self._failure_seen_at:
            self._failure_seen_at = spawn_failures.failed_at
            limit = FAILED_STARTS_TO_GIVE_UP if spawn_failures.ever_ready else self._first_starts
            if failures >= limit and not any(child.was_ready for child in registry.children.values()):
                raise ChildStartFailed(
                    f"{failures} children in a row were not born; the last: {spawn_failures.last_failure}"
                )
            wait = backoff.delay(failures, first=0.25, factor=2.0, limit=15.0, jitter=random.random())
            self._fork_after = registry.clock() + wait
            self._bus.emit(events.ChildStartFailed("", spawn_failures.last_failure, wait))


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)
