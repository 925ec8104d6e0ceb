"""The desk of a lane: the calls that wait, the children that are free, and the handing out of the ones to the others.

A child has one call in hand, or, when calls of that name were short lately, as many as `policy.depth` allows. Calls
that come in one turn of the loop are handed out at its end, so a burst is spread over the children in whole messages.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Sequence

from hybridpool.lanes.bell import Bell
from hybridpool.lanes.freight import Freight
from hybridpool.lanes.job import Job
from hybridpool.lanes.link import Link
from hybridpool.lanes.nursery import Nursery
from hybridpool.lanes.warden import Warden
from hybridpool.outcome import Cancelled
from hybridpool.policy import recycle
from hybridpool.policy.depth import Pace
from hybridpool.policy.lifecycle import Happening, State


class Desk:
    """Who waits, who is free, who has what in hand."""

    def __init__(self, busy: set[Link], nursery: Nursery, warden: Warden) -> None:
        """:param busy: the children with calls in hand; kept here."""
        self._nursery = nursery
        self._warden = warden
        self._due = False
        self.pace = Pace()
        #: calls that no child has in hand
        self.waiting: deque[Job] = deque()
        #: children that wait for a call, the one to be given the next call first
        self.idle: deque[Link] = deque()
        self.busy = busy
        #: how many calls children have in hand
        self.running = 0
        #: at most so many children work at once
        self.size = 0
        #: rings when the load is not within `watch`
        self.load_changed = Bell()
        self.watch: tuple[int, int] = (0, sys.maxsize)
        #: rings when no call waits or runs
        self.at_rest = Bell()
        #: rings when a child gets calls
        self.begun = Bell()

    @property
    def load(self) -> int:
        """How many calls wait or run."""
        return len(self.waiting) + self.running

    def at_work(self) -> list[Job]:
        """Return the calls that children have in hand."""
        return [job for link in self.busy for _, job in link.in_hand]

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

    def free(self, link: Link) -> None:
        """A child has nothing in hand any more."""
        self.busy.discard(link)
        link.happens(Happening.DONE)
        if link.state is State.IDLE and link.is_deaf:
            # It may be given calls when there is no other, and has them back after a while.
            self.idle.append(link)
        elif link.state is State.IDLE:
            # The last to finish is the first to go on: its memory is warm, and a surplus shows at the far end.
            self.idle.appendleft(link)

    def forget(self, link: Link) -> None:
        """A child is gone."""
        self.busy.discard(link)
        if link in self.idle:
            self.idle.remove(link)

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
        now = self._nursery.clock()
        while self.waiting and self.idle and len(self.busy) < self.size:
            self._give(self.idle.popleft(), now)
        if self.waiting and self._depth(self.waiting[0]) > 1:
            for link in list(self.busy):
                self._top_up(link, now)
        self._warden.look_in(self.busy)

    def _give(self, link: Link, now: float) -> None:
        """Hand an idle child its share of what waits."""
        depth = self._depth(self.waiting[0])
        share = -(-len(self.waiting) // max(1, min(self.size, len(self.idle) + 1 + len(self.busy))))
        jobs = self._next(min(depth, share, _left(link)))
        if not jobs:
            self.idle.appendleft(link)
            return
        self._hand(link, jobs, now)

    def _top_up(self, link: Link, now: float) -> None:
        """Put more short calls behind those a child has in hand, when few are left."""
        if not self.waiting or link.state is not State.BUSY or link.recalled or link.on_last or link.is_doomed:
            return
        depth = self._depth(self.waiting[0])
        have = len(link.in_hand)
        if depth == 1 or have > depth // 2 or self._depth(link.in_hand[0][1]) == 1:
            return
        jobs = self._next(min(depth - have, _left(link) - have))
        if jobs:
            self._hand(link, jobs, now)

    def _depth(self, job: Job) -> int:
        """How many calls such as this may be in a channel at once."""
        return 1 if job.is_alone or isinstance(job.body, Freight) else self.pace.depth(job.task)

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

    def _hand(self, link: Link, jobs: Sequence[Job], now: float) -> None:
        self.busy.add(link)
        self.running += len(jobs)
        link.give(jobs, now)
        self.begun.ring()
        if recycle.is_last(link.limits, tasks=link.tasks + len(link.in_hand) - 1):
            link.on_last = True
            self._nursery.changed.ring()


def _left(link: Link) -> int:
    """How many more calls the child may run before it is replaced."""
    return sys.maxsize if link.limits.tasks is None else max(1, link.limits.tasks - link.tasks)
