"""The prefork lane: calls wait here, children take them.

A child has one call in hand, or, when calls of that name were brief lately, as many as `policy.depth` allows. Calls
that come in one turn of the loop are handed out at its end, so a burst is spread over the children in whole messages.
How many children there should be is decided elsewhere, on what `nursery` shows; that a child has served enough is
`policy.recycle`'s word; what is due for a call at work is seen to by `warden`.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence

from hybridpool import events
from hybridpool.child import frames
from hybridpool.child.frames import Back, ChildOrders, Done, Enqueue, Ready, Said
from hybridpool.errors import PoolClosed
from hybridpool.lanes.bell import Bell
from hybridpool.lanes.job import Job
from hybridpool.lanes.link import Link
from hybridpool.lanes.nursery import Nursery
from hybridpool.lanes.warden import Warden
from hybridpool.outcome import Cancelled, Lost
from hybridpool.policy import recycle
from hybridpool.policy.depth import Pace
from hybridpool.policy.lifecycle import Happening, State
from hybridpool.policy.recycle import RecycleLimits

#: publish for a child: its message, and where to answer
Publishes = Callable[[Enqueue, Callable[[frames.Sent], None]], None]


class ProcessLane:
    """Calls, and the children that run them."""

    def __init__(self, bus: events.Bus, limits: RecycleLimits, orders: ChildOrders, publishes: Publishes) -> None:
        self._bus = bus
        self._limits = limits
        self._publishes = publishes
        self._pace = Pace()
        self._waiting: deque[Job] = deque()
        self._idle: deque[Link] = deque()
        #: children with calls in hand
        self._busy: set[Link] = set()
        self._in_hand = 0
        self._due = False
        self._closed = False
        self.nursery = Nursery(bus, orders, self._hear, self._buried)
        self._warden = Warden(self._busy, self.nursery, self._given_back)
        #: at most so many children work at once
        self.size = 0
        #: how many children are kept: those, and the spares
        self.staff = 0
        #: rings when the load, waiting and running calls, is not within `watch`
        self.load_changed = Bell()
        self.watch: tuple[int, int] = (0, sys.maxsize)
        #: rings when no call waits or runs
        self.at_rest = Bell()

    @property
    def waiting(self) -> int:
        """How many calls no child has in hand."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many calls children have in hand."""
        return self._in_hand

    @property
    def load(self) -> int:
        """How many calls wait or run."""
        return len(self._waiting) + self._in_hand

    @property
    def idle(self) -> list[Link]:
        """The children that wait for a call, the one to be given the next call first."""
        return list(self._idle)

    def submit(self, job: Job) -> None:
        """Take a call; it runs as soon as a child is free.

        :raises PoolClosed: if the lane takes no more calls.
        """
        if self._closed:
            raise PoolClosed("the pool is stopping and takes no more calls")
        self._waiting.append(job)
        if len(self._waiting) == 1 and self._idle:
            self._dispatch()
        else:
            self._dispatch_soon()
        self._weigh()

    def cancel(self, job: Job, grace: float) -> None:
        """Give a call up: take it back if it has not begun, else stop it, and kill its child after so many seconds."""
        if job.cancelled_at is not None:
            return
        job.cancelled_at, job.grace = time.monotonic(), grace
        if job in self._waiting:
            self._waiting.remove(job)
            job.on_done(job, Cancelled(""), "", 0.0)
            return
        self._warden.look()

    def take_back(self) -> list[Job]:
        """Take no more calls, and return those that no child has in hand."""
        self._closed = True
        jobs = list(self._waiting)
        self._waiting.clear()
        return jobs

    def abandon(self, cause: str) -> None:
        """End every call as lost: there are no children any more."""
        for job in self.take_back():
            job.on_done(job, Lost(cause, ""), "", 0.0)
        self.nursery.lose_zygote(cause)

    def forget_waiting(self, is_void: Callable[[Job], bool]) -> None:
        """Drop those of the calls that no child has begun which are void: somebody else will have them."""
        self._waiting = deque(job for job in self._waiting if not is_void(job))
        self._weigh()

    def resize(self, size: int) -> None:
        """Have at most so many children work at once; whoever keeps the staff brings them to that number."""
        self.size = size
        self.nursery.changed.ring()
        self._dispatch_soon()

    def retire(self, link: Link, reason: str) -> None:
        """Have a child go after the calls it has in hand."""
        if link.state is State.IDLE:
            self._idle.remove(link)
        self.nursery.retire(link, reason)

    # ---- handing out -------------------------------------------------------------------------------------

    def _dispatch_soon(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._due = False
        if not self._waiting:
            return
        now = time.monotonic()
        while self._waiting and self._idle and len(self._busy) < self.size:
            self._give(self._idle.popleft(), now)
        if self._waiting and self._pace.depth(self._waiting[0].task) > 1:
            for link in list(self._busy):
                self._top_up(link, now)
        self._warden.look_in(self._busy)

    def _give(self, link: Link, now: float) -> None:
        """Hand an idle child its share of what waits."""
        depth = self._pace.depth(self._waiting[0].task)
        share = -(-len(self._waiting) // max(1, min(self.size, len(self._idle) + 1 + len(self._busy))))
        jobs = self._next(min(depth, share, self._left(link)))
        if not jobs:
            self._idle.appendleft(link)
            return
        self._hand(link, jobs, now, brief=depth > 1)

    def _top_up(self, link: Link, now: float) -> None:
        """Put more brief calls behind those a child has in hand, when few are left."""
        if not self._waiting or link.state is not State.BUSY or link.recalled or link.on_last:
            return
        depth = self._pace.depth(self._waiting[0].task)
        have = len(link.in_hand)
        if depth == 1 or have > depth // 2 or self._pace.depth(link.in_hand[0][1].task) == 1:
            return
        jobs = self._next(min(depth - have, self._left(link) - have))
        if jobs:
            self._hand(link, jobs, now, brief=True)

    def _next(self, most: int) -> list[Job]:
        """Take calls that may start from the head of the line: one, or as many as are brief."""
        jobs: list[Job] = []
        while self._waiting and len(jobs) < most:
            if jobs and self._pace.depth(self._waiting[0].task) == 1:
                break
            job = self._waiting.popleft()
            if job.may_start is None or job.may_start(job):
                jobs.append(job)
        return jobs

    def _left(self, link: Link) -> int:
        return sys.maxsize if self._limits.tasks is None else max(1, self._limits.tasks - link.tasks)

    def _hand(self, link: Link, jobs: Sequence[Job], now: float, *, brief: bool) -> None:
        self._busy.add(link)
        self._in_hand += len(jobs)
        link.give(jobs, now, brief=brief)
        if self._limits.tasks is not None and link.tasks + len(link.in_hand) >= self._limits.tasks:
            link.on_last = True
            self.nursery.changed.ring()

    # ---- hearing -----------------------------------------------------------------------------------------

    def _hear(self, link: Link, said: Sequence[frames.FromChild]) -> None:
        now = time.monotonic()
        for frame in said:
            match frame:
                case Done():
                    self._done(link, frame, now)
                case Said(text=text):
                    self._bus.emit(events.ChildSaid(link.name, text))
                case Enqueue():
                    self._publishes(frame, link.answer)
                case Ready():
                    link.happens(Happening.READY)
                    if link.state is State.IDLE:
                        self._idle.append(link)
                case Back(seqs=seqs):
                    self._given_back(link, link.remove(set(seqs)))
                case _:
                    raise TypeError(f"{link.name} said {frame!r}, which is no child's word")
        if self._waiting:
            self._dispatch()
        elif link.in_hand:
            self._warden.look_in((link,))

    def _done(self, link: Link, done: Done, now: float) -> None:
        job = link.take(done.seq, now)
        if job is None:
            return
        self._in_hand -= 1
        self.nursery.failed_births = 0
        self._pace.note(job.task, done.runtime)
        link.tasks += 1
        link.owned = done.owned or link.owned
        reason = recycle.verdict(self._limits, tasks=link.tasks, owned=done.owned)
        if reason is not None and link.state is State.BUSY:
            self.nursery.retire(link, reason)
        if not link.in_hand:
            self._free(link)
        job.on_done(job, done.outcome, link.name, done.runtime)
        self._weigh()

    def _free(self, link: Link) -> None:
        """A child has nothing in hand any more."""
        self._busy.discard(link)
        link.happens(Happening.DONE)
        if link.state is State.IDLE:
            # The last to finish is the first to go on: its memory is warm, and a surplus shows at the far end.
            self._idle.appendleft(link)
            if len(self.nursery.links) > self.staff:
                self.nursery.changed.ring()

    def _given_back(self, link: Link, jobs: Sequence[Job]) -> None:
        """A child lives on without calls it had in hand and did not begin."""
        if jobs and not link.in_hand:
            self._free(link)
        self._back(jobs)

    def _back(self, jobs: Sequence[Job]) -> None:
        """Put calls that a child had in hand and did not begin back to the head of the line."""
        self._in_hand -= len(jobs)
        self._waiting.extendleft(reversed(jobs))
        self._dispatch_soon()

    def _buried(self, link: Link, back: list[Job], lost: list[Job], cause: str) -> None:
        self._busy.discard(link)
        if link in self._idle:
            self._idle.remove(link)
        self._back(back)
        self._in_hand -= len(lost)
        for job in lost:
            job.on_done(job, link.verdict or Lost(cause, link.name), link.name, 0.0)
        self._weigh()

    def _weigh(self) -> None:
        least, most = self.watch
        load = len(self._waiting) + self._in_hand
        if not least <= load <= most:
            self.load_changed.ring()
        if not load:
            self.at_rest.ring()
