"""Holds the calls of tasks with a rate limit until their turn. `policy.rate_limit` decides when that is.

Of each such task at most one call that has not begun is in the lane: so the calls start in the order in which they
came, and children that are busy do not let several turns pass and then start as many calls at once.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping

import attrs

from hybridpool._lanes.base import Job
from hybridpool._policy.rate_limit import TaskRate
from hybridpool._worker.received import Received
from hybridpool._worker.redelivery import MAX_HELD, RedeliveryTracker

#: seconds added to timers, which may fire a little early
TIMER_MARGIN_S = 0.0005


@attrs.define(eq=False)
class _Limited:
    """A task with a rate limit, and its calls that wait."""

    rate: TaskRate
    held: deque[Job] = attrs.field(factory=deque)
    #: it is in the lane, and has not begun
    next: Job | None = None
    timer: asyncio.TimerHandle | None = None


class RateLimits:
    """The tasks that have a limit. It is false if none has, and then nothing of it needs to be asked."""

    def __init__(
        self,
        rates: Mapping[str, float],
        submit: Callable[[Job], None],
        tracker: RedeliveryTracker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold calls.

        :param rates: by task: calls in a second.
        :param submit: gives a call to its lane.
        :param tracker: has other messages come in place of those that wait.
        """
        self._tasks = {name: _Limited(TaskRate(rate)) for name, rate in rates.items()}
        self._submit = submit
        self._tracker = tracker
        self._clock = clock

    def __bool__(self) -> bool:
        return bool(self._tasks)

    @property
    def tasks(self) -> dict[str, float]:
        """Those that have a limit, and how many of their calls may start in a second."""
        return {name: limited.rate.rate for name, limited in self._tasks.items()}

    def set(self, task: str, rate: float) -> None:
        """Change the limit of a task.

        :param rate: calls in a second; 0: no limit.
        """
        limited = self._tasks.pop(task, None)
        if rate:
            changed = self._tasks[task] = _Limited(TaskRate(rate))
            if limited is not None:
                before = limited.rate
                # counted from the last start
                changed.rate.next_at = before.next_at and before.next_at - 1 / before.rate + 1 / rate
                changed.held, changed.next = limited.held, limited.next
                if limited.timer is not None:
                    limited.timer.cancel()
                self._go_on(changed)
        elif limited is not None:
            if limited.timer is not None:
                limited.timer.cancel()
            for job in limited.held:
                self._hand_over(job)

    def away(self, task: str) -> float:
        """Return for how many seconds the broker is to hold a message that has just come; 0: it can be taken."""
        limited = self._tasks.get(task)
        if limited is None:
            return 0.0
        waiting = len(limited.held) + (limited.next is not None)
        return limited.rate.away(waiting, self._clock(), random.random())

    def submit(self, job: Job) -> None:
        """Take a call: it is given to its lane at its turn."""
        limited = self._tasks.get(job.task)
        if limited is None:
            self._submit(job)
            return
        limited.held.append(job)
        self._go_on(limited)
        if job is not limited.next and sum(len(one.held) for one in self._tasks.values()) <= MAX_HELD // 2:
            self._tracker.hold(_received(job))

    def takes_turn(self, job: Job) -> bool:
        """Tell whether a call that a child is about to be given may start; if not, it is held again."""
        limited = self._tasks.get(job.task)
        if limited is None or _received(job).had_turn:
            return True
        if limited.rate.take(self._clock()):
            # It came by another way: its limit was changed while it was in the lane.
            if limited.next is job:
                limited.next = None
            limited.held.appendleft(job)
            self._go_on(limited)
            return False
        _received(job).had_turn = True
        return True

    def left_lane(self, job: Job) -> None:
        """Note that a call is no longer one that waits in the lane: it begins, or will not run."""
        limited = self._tasks.get(job.task)
        if limited is not None and limited.next is job:
            limited.next = None
            self._go_on(limited)

    def jobs(self) -> list[Job]:
        """Return the calls that wait here for their turn."""
        return [job for limited in self._tasks.values() for job in limited.held]

    def held(self) -> list[Received]:
        """Return their messages."""
        return [_received(job) for job in self.jobs()]

    def drop(self) -> list[Received]:
        """Forget the calls that wait here, and return their messages."""
        dropped = self.held()
        for limited in self._tasks.values():
            limited.held.clear()
            limited.next = None
            if limited.timer is not None:
                limited.timer.cancel()
                limited.timer = None
        for received in dropped:
            self._tracker.release(received)
        return dropped

    def _go_on(self, limited: _Limited) -> None:
        """Give the next call to the lane if it is its turn, or set a timer for that."""
        if limited.next is not None or not limited.held:
            return
        left = limited.rate.next_at - self._clock()
        if left <= 0:
            limited.next = limited.held.popleft()
            self._hand_over(limited.next)
        elif limited.timer is None:
            limited.timer = asyncio.get_running_loop().call_later(left + TIMER_MARGIN_S, self._due, limited)

    def _due(self, limited: _Limited) -> None:
        limited.timer = None
        self._go_on(limited)

    def _hand_over(self, job: Job) -> None:
        self._tracker.release(_received(job))
        self._submit(job)


def _received(job: Job) -> Received:
    assert isinstance(job.cargo, Received)
    return job.cargo
