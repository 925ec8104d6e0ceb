"""The dispatcher of a lane: the calls that wait, the children that are free, and which child gets which call.

A child has one call in hand, or, when calls of that name were short lately, as many as `policy.depth` allows. Calls
that come in one turn of the loop are handed out at its end, so a burst is spread over the children in whole messages.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Sequence

from hybridpool._ipc.blobs import OutgoingBlob
from hybridpool._lanes.base import Job
from hybridpool._lanes.prefork.child_handle import ChildHandle
from hybridpool._lanes.prefork.children import ChildRegistry
from hybridpool._lanes.prefork.wakeup import Wakeup
from hybridpool._lanes.prefork.watchdog import Watchdog
from hybridpool._outcome import Cancelled
from hybridpool._policy import recycle
from hybridpool._policy.lifecycle import ChildEvent, State
from hybridpool._policy.pipelining import DurationEstimate


class Dispatcher:
    """Who waits, who is free, who has what in hand."""

    def __init__(self, busy: set[ChildHandle], registry: ChildRegistry, watchdog: Watchdog) -> None:
        """:param busy: the children with calls in hand; kept here."""
        self._registry = registry
        self._watchdog = watchdog
        self._due = False
        self.pace = DurationEstimate()
        #: calls that no child has in hand
        self.waiting: deque[Job] = deque()
        #: children that wait for a call, the one to be given the next call first
        self.idle: deque[ChildHandle] = deque()
        self.busy = busy
        #: how many calls children have in hand
        self.running = 0
        #: at most so many children work at once
        self.size = 0
        #: rings when the load is not within `watch`
        self.load_changed = Wakeup()
        self.watch: tuple[int, int] = (0, sys.maxsize)
        #: rings when no call waits or runs
        self.at_rest = Wakeup()
        #: rings when a child gets calls
        self.begun = Wakeup()

    @property
    def load(self) -> int:
        """How many calls wait or run."""
        return len(self.waiting) + self.running

    def at_work(self) -> list[Job]:
        """Return the calls that children have in hand."""
        return [job for child in self.busy for _, job in child.in_hand]

    def weigh(self) -> None:
        """After the load has changed: wake whoever wants to know."""
        least, most = self.watch
        load = len(self.waiting) + self.running
        if not least <= load <= most:
            self.load_changed.ring()
        if not load:
            self.at_rest.ring()

    def add(self, job: Job) -> None:
        """Take a call; a child gets it as soon as one is free."""
        if job.priority and self.waiting and self.waiting[-1].priority < job.priority:
            self.waiting.insert(next(at for at, one in enumerate(self.waiting) if one.priority < job.priority), job)
        else:
            self.waiting.append(job)
        if len(self.waiting) == 1 and self.idle:
            self.dispatch()
        elif not self._due:
            self.dispatch_soon()
        if len(self.waiting) + self.running > self.watch[1]:
            self.load_changed.ring()

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Put calls that a child had in hand and did not begin back to the head of the line, if they are wanted."""
        self.running -= len(jobs)
        given_up = []
        for job in reversed(jobs):
            job.handed_at, job.child = None, ""
            if job.cancelled_at is None:
                self.waiting.appendleft(job)
            else:
                given_up.append(job)
        if self.waiting:
            self.dispatch_soon()
        for job in given_up:
            job.on_done(job, Cancelled(""), "", 0.0)
        self.weigh()

    def free(self, child: ChildHandle) -> None:
        """A child has nothing in hand any more."""
        self.busy.discard(child)
        child.happens(ChildEvent.DONE)
        if child.state is State.IDLE and child.is_deaf:
            # It may be given calls when there is no other, and has them back after a while.
            self.idle.append(child)
        elif child.state is State.IDLE:
            # The last to finish is the first to go on: its memory is warm, and a surplus shows at the far end.
            self.idle.appendleft(child)

    def forget(self, child: ChildHandle) -> None:
        """A child is gone."""
        self.busy.discard(child)
        if child in self.idle:
            self.idle.remove(child)

    # ---- handing out -------------------------------------------------------------------------------------

    def dispatch_soon(self) -> None:
        """Hand out at the end of this turn of the loop."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self.dispatch)

    def dispatch(self) -> None:
        """Hand out what can be handed out."""
        self._due = False
        if not self.waiting:
            return
        now = self._registry.clock()
        while self.waiting and self.idle and len(self.busy) < self.size:
            self._give(self.idle.popleft(), now)
        if self.waiting and self._depth(self.waiting[0]) > 1:
            for child in list(self.busy):
                self._top_up(child, now)
        self._watchdog.arm(self.busy)

    def _give(self, child: ChildHandle, now: float) -> None:
        """Hand an idle child its share of what waits."""
        depth = self._depth(self.waiting[0])
        share = -(-len(self.waiting) // max(1, min(self.size, len(self.idle) + 1 + len(self.busy))))
        jobs = self._next(min(depth, share, _left(child)))
        if not jobs:
            self.idle.appendleft(child)
            return
        self._hand(child, jobs, now)

    def _top_up(self, child: ChildHandle, now: float) -> None:
        """Put more short calls behind those a child has in hand, when few are left."""
        if (
            not self.waiting
            or child.state is not State.BUSY
            or child.recalled
            or child.on_last
            or child.is_to_be_killed
        ):
            return
        depth = self._depth(self.waiting[0])
        have = len(child.in_hand)
        if depth == 1 or have > depth // 2 or self._depth(child.in_hand[0][1]) == 1:
            return
        jobs = self._next(min(depth - have, _left(child) - have))
        if jobs:
            self._hand(child, jobs, now)

    def _depth(self, job: Job) -> int:
        """How many calls such as this may be in a channel at once."""
        return 1 if job.is_alone or isinstance(job.body, OutgoingBlob) else self.pace.depth(job.task)

    def _next(self, most: int) -> list[Job]:
        """Take calls that may start from the head of the line: one, or as many as are short."""
        jobs: list[Job] = []
        waiting, short = self.waiting, ""
        while waiting and len(jobs) < most:
            job = waiting[0]
            if jobs and (job.task != short or job.is_alone or type(job.body) is not bytes):
                if self._depth(job) == 1:
                    break
                short = job.task
            waiting.popleft()
            if job.may_start is None or job.may_start(job):
                jobs.append(job)
            else:
                self.weigh()
        return jobs

    def _hand(self, child: ChildHandle, jobs: Sequence[Job], now: float) -> None:
        self.busy.add(child)
        self.running += len(jobs)
        child.give(jobs, now)
        self.begun.ring()
        if recycle.is_last(child.limits, tasks=child.tasks + len(child.in_hand) - 1):
            child.on_last = True
            self._registry.changed.ring()


def _left(child: ChildHandle) -> int:
    """How many more calls the child may run before it is replaced."""
    return sys.maxsize if child.limits.tasks is None else max(1, child.limits.tasks - child.tasks)
