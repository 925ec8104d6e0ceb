"""Keeps the number of children at the lane's size: forks, retires the surplus, kills what is not born in time."""

import random

from hybridpool import events
from hybridpool.errors import ChildBirthFailed
from hybridpool.lanes.process import ProcessLane
from hybridpool.policy import backoff
from hybridpool.policy.lifecycle import State
from hybridpool.policy.staff import StaffPlan, StaffView, plan

#: births that may fail in a row before the pool gives up; with the back-off below that takes about a minute
_BIRTHS_TO_GIVE_UP = 8


class StaffKeeper:
    """The loop and what it remembers: until when not to fork, because births fail."""

    def __init__(self, lane: ProcessLane, bus: events.Bus, birth_timeout: float, spares: int) -> None:
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
            decided = plan(self._view()) if nursery.zygote is not None else StaffPlan()
            self._carry_out(decided)
            await nursery.changed.wait(decided.look_again_in)

    def _view(self) -> StaffView:
        links = self._lane.nursery.links.values()
        target = self._lane.size
        self._lane.staff = target + self._spares
        return StaffView(
            target=target,
            spares=self._spares,
            now=self._lane.nursery.clock(),
            idle=[link.name for link in self._lane.desk.idle if not link.on_last],
            busy=sum(1 for link in links if link.state is State.BUSY and not link.on_last),
            starting=[(link.name, link.ordered_at) for link in links if link.state is State.STARTING],
            failed_births=self._lane.nursery.failed_births,
            fork_after=self._fork_after,
            birth_timeout=self._birth_timeout,
        )

    def _carry_out(self, decided: StaffPlan) -> None:
        nursery = self._lane.nursery
        for name in decided.kill_unborn:
            reason = f"not ready within {self._birth_timeout:g} s (worker_proc_alive_timeout)"
            nursery.give_up(nursery.links[name], reason)
        for name in decided.retire:
            self._lane.retire(nursery.links[name], "more children than needed")
        for _ in range(decided.fork):
            nursery.spawn()

    def _back_off(self) -> None:
        """After a birth that failed, wait longer each time before the next."""
        nursery = self._lane.nursery
        failures = nursery.failed_births
        if failures and nursery.failed_at != self._failure_seen_at:
            self._failure_seen_at = nursery.failed_at
            if failures >= _BIRTHS_TO_GIVE_UP:
                raise ChildBirthFailed(f"{failures} children in a row were not born; the last: {nursery.last_failure}")
            wait = backoff.delay(failures, first=0.25, factor=2.0, limit=15.0, jitter=random.random())
            self._fork_after = nursery.clock() + wait
            self._bus.emit(events.BirthFailed("", nursery.last_failure, wait))
