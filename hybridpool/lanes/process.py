"""The prefork lane: calls wait here, children take them, one at a time each.

It acts on what it is told (submit, retire) and on what children say. How many children there should be is decided
elsewhere, on what `nursery` shows; that a child has served enough is `policy.recycle`'s word.
"""

import sys
from collections import deque
from collections.abc import Callable

from hybridpool import events
from hybridpool.child import frames
from hybridpool.child.frames import ChildOrders, Done, Enqueue, Ready, Said
from hybridpool.errors import PoolClosed
from hybridpool.lanes.bell import Bell
from hybridpool.lanes.job import Job
from hybridpool.lanes.link import Link
from hybridpool.lanes.nursery import Nursery
from hybridpool.outcome import Lost
from hybridpool.policy import recycle
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
        self._waiting: deque[Job] = deque()
        self._idle: deque[Link] = deque()
        self._closed = False
        self.nursery = Nursery(bus, orders, self._hear, self._buried)
        #: at most so many calls run at once, and so many children are kept
        self.size = 0
        #: calls that children have in hand
        self.running = 0
        #: rings when the load, waiting and running calls, is not within `watch`
        self.load_changed = Bell()
        self.watch: tuple[int, int] = (0, sys.maxsize)

    @property
    def waiting(self) -> int:
        """How many calls no child has begun."""
        return len(self._waiting)

    @property
    def load(self) -> int:
        """How many calls wait or run."""
        return len(self._waiting) + self.running

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
        self._dispatch()
        self._weigh()

    def take_back(self) -> list[Job]:
        """Take no more calls, and return those that no child has begun."""
        self._closed = True
        jobs = list(self._waiting)
        self._waiting.clear()
        return jobs

    def forget_waiting(self, is_void: Callable[[Job], bool]) -> None:
        """Drop those of the calls that no child has begun which are void: somebody else will have them."""
        self._waiting = deque(job for job in self._waiting if not is_void(job))
        self._weigh()

    def resize(self, size: int) -> None:
        """Run at most so many calls at once; whoever keeps the staff brings the children to that number."""
        self.size = size
        self.nursery.changed.ring()
        self._dispatch()

    def retire(self, link: Link, reason: str) -> None:
        """Have a child go after the call it has in hand."""
        if link.state is State.IDLE:
            self._idle.remove(link)
        self.nursery.retire(link, reason)

    def _dispatch(self) -> None:
        while self._waiting and self._idle and self.running < self.size:
            job = self._waiting.popleft()
            if job.may_start is not None and not job.may_start(job):
                continue
            link = self._idle.popleft()
            self.running += 1
            if recycle.is_last(self._limits, tasks=link.tasks):
                link.on_last = True
                self.nursery.changed.ring()
            link.give(job)

    def _hear(self, link: Link, frame: frames.FromChild) -> None:
        match frame:
            case Done():
                self._done(link, frame)
            case Said(text=text):
                self._bus.emit(events.ChildSaid(link.name, text))
            case Enqueue():
                self._publishes(frame, link.answer)
            case Ready():
                link.happens(Happening.READY)
                if link.state is State.IDLE:
                    self._idle.append(link)
                    self._dispatch()
            case _:
                raise TypeError(f"{link.name} said {frame!r}, which is no child's word")

    def _done(self, link: Link, done: Done) -> None:
        job = link.take(done.seq)
        if job is None:
            return
        self.running -= 1
        link.tasks += 1
        self.nursery.failed_births = 0
        link.owned = done.owned or link.owned
        link.happens(Happening.DONE)
        if link.state is State.IDLE:
            reason = recycle.verdict(self._limits, tasks=link.tasks, owned=done.owned)
            if reason is not None:
                self.nursery.retire(link, reason)
            else:
                # The last to finish is the first to go on: its memory is warm, and a surplus shows at the far end.
                self._idle.appendleft(link)
                if len(self.nursery.links) > self.size:
                    self.nursery.changed.ring()
        # The next call first: a child that waits costs more than a log line that does.
        self._dispatch()
        job.on_done(job, done.outcome, link.name, done.runtime)
        self._weigh()

    def _weigh(self) -> None:
        least, most = self.watch
        if not least <= self.load <= most:
            self.load_changed.ring()

    def _buried(self, link: Link, back: list[Job], lost: list[Job], cause: str) -> None:
        if link in self._idle:
            self._idle.remove(link)
        self.running -= len(back) + len(lost)
        self._waiting.extendleft(reversed(back))
        for job in lost:
            job.on_done(job, Lost(cause, link.name), link.name, 0.0)
        self._dispatch()
        self._weigh()
