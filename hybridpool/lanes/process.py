"""The prefork lane: calls come in here, children run them, and what children say of them is heard.

Which child gets which call is the `desk`'s part. How many children there should be is decided elsewhere, on what
`nursery` shows; that a child has served enough is `policy.recycle`'s word; what is due for a call at work is seen to
by `warden`.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence

from hybridpool import events
from hybridpool.child import frames
from hybridpool.child.frames import Back, ChildOrders, Done, Enqueue, Ready, Said
from hybridpool.errors import PoolClosed
from hybridpool.lanes.desk import Desk
from hybridpool.lanes.job import Job
from hybridpool.lanes.link import Link
from hybridpool.lanes.nursery import Nursery
from hybridpool.lanes.warden import Warden
from hybridpool.outcome import Cancelled, Lost, Refused
from hybridpool.policy import recycle
from hybridpool.policy.lifecycle import Happening, State
from hybridpool.policy.recycle import RecycleLimits

#: publish for a child: its message, and where to answer
Publishes = Callable[[Enqueue, Callable[[frames.Sent], None]], None]


class ProcessLane:
    """Calls, and the children that run them."""

    def __init__(
        self,
        bus: events.Bus,
        limits: RecycleLimits,
        orders: ChildOrders,
        publishes: Publishes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._publishes = publishes
        self._closed = False
        #: whether children leave by what they have done
        self._recycles = limits.spares > 0
        self.nursery = Nursery(bus, orders, limits, self._hear, self._buried, clock, self._break_off, self._cannot_give)
        busy: set[Link] = set()
        self.warden = Warden(busy, self.nursery, self._hear, self._given_back, self._take_unread, self._has_free)
        self.desk = Desk(busy, self.nursery, self.warden)
        #: how many children are kept: those that work at once, and the spares
        self.staff = 0

    @property
    def size(self) -> int:
        """At most so many children work at once."""
        return self.desk.size

    @property
    def takes_calls(self) -> bool:
        """It has not been told to take no more."""
        return not self._closed

    def submit(self, job: Job) -> None:
        """Take a call; it runs as soon as a child is free.

        :raises PoolClosed: if the lane takes no more calls.
        """
        if self._closed:
            raise PoolClosed("the pool is stopping and takes no more calls")
        self.desk.add(job)

    def cancel(self, job: Job, grace: float) -> None:
        """Give a call up: take it back if it has not begun, else stop it, and kill its child after so many seconds."""
        if job.cancelled_at is not None:
            return
        job.cancelled_at, job.grace = self.nursery.clock(), grace
        if job in self.desk.waiting:
            self.desk.waiting.remove(job)
            job.on_done(job, Cancelled(""), "", 0.0)
            self.desk.weigh()
            return
        self.warden.look()

    def take_back(self) -> list[Job]:
        """Take no more calls, and return those that no child has in hand. What children have in hand stays there."""
        self._closed = True
        self.warden.recalls = False
        jobs = list(self.desk.waiting)
        self.desk.waiting.clear()
        return jobs

    def abandon(self, cause: str) -> None:
        """End every call as lost: there are no children any more."""
        self._closed = True
        self.nursery.end(cause)
        # Only now: calls that children had not begun have come back.
        for job in self.take_back():
            job.on_done(job, Lost(cause, ""), "", 0.0)

    def forget_waiting(self, is_void: Callable[[Job], bool]) -> None:
        """Drop those of the calls that no child has begun which are void: somebody else will have them."""
        self.desk.waiting = deque(job for job in self.desk.waiting if not is_void(job))
        self.desk.weigh()

    def resize(self, size: int) -> None:
        """Have at most so many children work at once; whoever keeps the staff brings them to that number."""
        self.desk.size = size
        self.nursery.changed.ring()
        self.desk.dispatch_soon()

    def retire(self, link: Link, reason: str) -> None:
        """Have a child go after the calls it has in hand."""
        if link.state is State.IDLE:
            self.desk.idle.remove(link)
        self.nursery.retire(link, reason)

    def describe_children(self) -> list[str]:
        """Say of each child, in a line, what it does; for the operator."""
        return [link.describe(self.nursery.clock()) for link in self.nursery.links.values()]

    # ---- hearing -----------------------------------------------------------------------------------------

    def _hear(self, link: Link, said: Sequence[frames.FromChild]) -> None:
        now = self.nursery.clock()
        for frame in said:
            match frame:
                case Done():
                    self._done(link, frame, now)
                case Said(text=text):
                    self._bus.emit(events.ChildSaid(link.name, text))
                case Enqueue():
                    if link.is_answerable(frame):
                        self._publishes(frame, link.tell)
                case Ready() if not link.was_ready:
                    link.happens(Happening.READY)
                    if link.state is State.IDLE:
                        self.desk.idle.append(link)
                case Back(seqs=seqs):
                    self._given_back(link, link.remove(set(seqs), now))
                case _:
                    # Born twice, or not born after all. Code that a task runs has written it.
                    self._break_off(link, f"it sent {type(frame).__name__}, which has no place here")
        if self.desk.waiting:
            self.desk.dispatch()
        elif link.in_hand:
            self.warden.look_in((link,))

    def _done(self, link: Link, done: Done, now: float) -> None:
        job = link.take(done.seq, now)
        if job is None:
            job = self._take_out_of_turn(link, done, now)
        if job is None:
            return
        desk = self.desk
        desk.running -= 1
        if self.nursery.births.failed and self.nursery.births.count_success(link):
            self.nursery.changed.ring()
        desk.pace.note(job.task, done.runtime)
        link.tasks += 1
        if link.is_deaf:
            link.is_deaf = False
        link.owned = done.owned or link.owned
        if self._recycles and link.state is State.BUSY:
            reason = recycle.verdict(link.limits, tasks=link.tasks, owned=done.owned)
            if reason is not None:
                self.nursery.retire(link, reason)
        if not link.in_hand:
            self._free(link)
        job.on_done(job, done.outcome, link.name, done.runtime)
        desk.weigh()

    def _take_out_of_turn(self, link: Link, done: Done, now: float) -> Job | None:
        job = link.take_out_of_turn(done.seq, now)
        if link.fault is not None:
            self._break_off(link, link.fault)
        return job

    def _break_off(self, link: Link, why: str) -> None:
        """End a child whose word cannot be relied on any more; it gets no more calls."""
        if link.state is State.IDLE:
            self.desk.idle.remove(link)
            self.nursery.retire(link, why)
        self.nursery.break_off(link, why)

    def _cannot_give(self, link: Link, seq: int, error: OSError) -> None:
        """A call is too large for any child: it ends, and the child goes on."""
        for job in link.remove({seq}, self.nursery.clock()):
            self.desk.running -= 1
            if not link.in_hand:
                self._free(link)
            why = f"its arguments cannot be handed to a child: {error.strerror}"
            job.on_done(job, Refused(why, "OSError", "builtins", b"[]"), "", 0.0)
            self.nursery.changed.ring()
            self.desk.dispatch_soon()
            self.desk.weigh()

    def _free(self, link: Link) -> None:
        self.desk.free(link)
        if link.state is State.IDLE and len(self.nursery.links) > self.staff:
            self.nursery.changed.ring()

    def _given_back(self, link: Link, jobs: Sequence[Job]) -> None:
        """A child lives on without calls it had in hand and did not begin."""
        if jobs:
            # They may have been its last, for which a replacement was made.
            self.nursery.changed.ring()
        if jobs and not link.in_hand:
            self._free(link)
        self.desk.put_back(jobs)

    def _has_free(self) -> bool:
        return any(not link.is_deaf for link in self.desk.idle) and len(self.desk.busy) <= self.desk.size

    def _take_unread(self, link: Link) -> None:
        """Take back all that a child has not read: it does nothing, and another one can have it.

        What it has read it may begin at any moment, and stays with it.
        """
        jobs = link.take_unread(self.nursery.clock())
        if jobs and not link.is_deaf:
            link.is_deaf = True
            self._bus.emit(events.ChildDeaf(link.name, link.pid))
        self._given_back(link, jobs)

    def _buried(self, link: Link, back: list[Job], lost: list[Job], death: Lost) -> None:
        self.desk.forget(link)
        self.desk.put_back(back)
        self.desk.running -= len(lost)
        for job in lost:
            job.on_done(job, link.verdict or death, link.name, 0.0)
        self.desk.weigh()


def stop_messages(lane: ProcessLane, ids: Collection[str], grace: float) -> list[str]:
    """Give up every call of these messages, whether it has begun or not; one at work has so many seconds to stop.

    :returns: the ids of those that are here.
    """
    jobs = [job for job in (*lane.desk.waiting, *lane.desk.at_work()) if job.id in ids]
    for job in jobs:
        lane.cancel(job, grace)
    return list(dict.fromkeys(job.id for job in jobs))
