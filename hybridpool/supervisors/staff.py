"""Keeps the number of children at the lane's size: forks, retires the surplus, kills what is not born in time."""

import random

from hybridpool import events
from hybridpool.errors import ChildBirthFailed
from hybridpool.lanes.process import ProcessLane
from hybridpool.policy import backoff
from hybridpool.policy.lifecycle import State
from hybridpool.policy.recycle import too_old
from hybridpool.policy.staff import StaffPlan, StaffView, plan

#: births that may fail in a row before a pool that has nobody left gives up; with the back-off below that takes about
#: half a minute
_BIRTHS_TO_GIVE_UP = 8


class StaffKeeper:
    """The loop and what it remembers: until when not to fork, because births fail."""

    def __init__(
        self, lane: ProcessLane, bus: events.Bus, birth_timeout: float, spares: int, first_births: int | None
    ) -> None:
        """Keep the staff of a lane.

        :param first_births: births that may fail in a row while not one child was ever READY; None: as many as later.
        """
        self._first_births = first_births or _BIRTHS_TO_GIVE_UP
        self._lane = lane
        self._bus = bus
        self._birth_timeout = birth_timeout
        self._spares = spares
        self._failure_seen_at = 0.0
        self._fork_after = 0.0

    async def run(self) -> None:
        """Keep the staff for ever.

        :raises ChildBirthFailed: if children die or hang again and again before they are ready.
        """
        nursery = self._lane.nursery
        while True:
            self._back_off()
            older_in = self._mark_the_oldest()
            decided = plan(self._view()) if nursery.zygote is not None else StaffPlan()
            if self._carry_out(decided):
                await nursery.changed.wait(_sooner(decided.look_again_in, older_in))

    def _view(self) -> StaffView:
        links = self._lane.nursery.links.values()
        target = self._lane.size
        self._lane.staff = target + self._spares
        return StaffView(
            target=target,
            spares=self._spares,
            now=self._lane.nursery.clock(),
            idle=[link.name for link in self._lane.desk.idle if not link.is_going],
            busy=sum(1 for link in links if link.state is State.BUSY and not link.is_going),
            outworn=[link.name for link in links if link.leaving and link.state in (State.IDLE, State.BUSY)],
            starting=[
                (link.name, link.ordered_at) for link in links if link.state is State.STARTING and not link.stillborn
            ],
            parting=[
                (link.name, link.parted_at)
                for link in links
                if link.parted_at is not None and not link.stillborn and (link.pid == 0 or not link.is_doomed)
            ],
            failed_births=self._lane.nursery.births.failed,
            fork_after=self._fork_after,
            birth_timeout=self._birth_timeout,
        )

    def _mark_the_oldest(self) -> float | None:
        """Have a child replaced that is past its age; one at a time, so that no two are missed at once.

        :returns: seconds until the next one is past it; None while one is on its way, whose end rings.
        """
        nursery = self._lane.nursery
        now, nearest = nursery.clock(), None
        for link in nursery.links.values():
            if link.leaving is not None and link.state in (State.IDLE, State.BUSY):
                return None
            if link.limits.age is not None and link.state in (State.IDLE, State.BUSY):
                age = now - link.ordered_at
                link.leaving = too_old(link.limits, age=age)
                if link.leaving is not None:
                    return None
                nearest = _sooner(nearest, link.limits.age - age)
        return nearest

    def _carry_out(self, decided: StaffPlan) -> bool:
        """Do it; False if a child could not be ordered, which calls for another plan at once."""
        nursery = self._lane.nursery
        for name in decided.kill_unborn:
            reason = f"not ready within {self._birth_timeout:g} s (worker_proc_alive_timeout)"
            nursery.give_up(nursery.links[name], reason)
        for name in decided.kill_lingering:
            nursery.give_up(
                nursery.links[name], f"not gone within {self._birth_timeout:g} s (worker_proc_alive_timeout)"
            )
        for name in decided.retire:
            link = nursery.links[name]
            self._lane.retire(link, link.leaving or "more children than needed")
        return all(nursery.spawn() for _ in range(decided.fork))

    def _back_off(self) -> None:
        """After a birth that failed, wait longer each time before the next."""
        nursery = self._lane.nursery
        births = nursery.births
        failures = births.failed
        if failures and births.failed_at != self._failure_seen_at:
            self._failure_seen_at = births.failed_at
            limit = _BIRTHS_TO_GIVE_UP if births.ever_ready else self._first_births
            if failures >= limit and not any(link.was_ready for link in nursery.links.values()):
                raise ChildBirthFailed(f"{failures} children in a row were not born; the last: {births.last_failure}")
            wait = backoff.delay(failures, first=0.25, factor=2.0, limit=15.0, jitter=random.random())
            self._fork_after = nursery.clock() + wait
            self._bus.emit(events.BirthFailed("", births.last_failure, wait))


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)
