"""The prefork lane: calls come in here, children run them, and what children say of them is heard.

Which child gets which call is the `dispatcher`'s part. How many children there should be is decided elsewhere, on what
`registry` shows; that a child has served enough is `policy.recycle`'s word; what is due for a call at work is seen to
by `watchdog`.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence

from hybridpool import events
from hybridpool._ipc import frames
from hybridpool._ipc.frames import CallsGivenBack, ChildOrders, Done, Enqueue, LogLines, Ready
from hybridpool._lanes.base import Job
from hybridpool._lanes.prefork.child_handle import ChildHandle
from hybridpool._lanes.prefork.children import ChildRegistry
from hybridpool._lanes.prefork.dispatcher import Dispatcher
from hybridpool._lanes.prefork.watchdog import Watchdog
from hybridpool._outcome import Cancelled, Lost, Refused
from hybridpool._policy import recycle
from hybridpool._policy.lifecycle import ChildEvent, State
from hybridpool._policy.recycle import RecycleLimits
from hybridpool.errors import PoolClosed

#: publish for a child: its message, and where to answer
Publishes = Callable[[Enqueue, Callable[[frames.EnqueueAnswer], None]], None]


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
        self.registry = ChildRegistry(
            bus, orders, limits, self._hear, self._on_exit, clock, self._break_off, self._cannot_give
        )
        busy: set[ChildHandle] = set()
        self.watchdog = Watchdog(busy, self.registry, self._hear, self._given_back, self._take_unread, self._has_free)
        self.dispatcher = Dispatcher(busy, self.registry, self.watchdog)
        #: how many children are kept: those that work at once, and the spares
        self.headcount = 0

    @property
    def size(self) -> int:
        """At most so many children work at once."""
        return self.dispatcher.size

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
        self.dispatcher.add(job)

    def cancel(self, job: Job, grace: float) -> None:
        """Give a call up: take it back if it has not begun, else stop it, and kill its child after so many seconds."""
        if job.cancelled_at is not None:
            return
        job.cancelled_at, job.grace = self.registry.clock(), grace
        if job in self.dispatcher.waiting:
            self.dispatcher.waiting.remove(job)
            job.on_done(job, Cancelled(""), "", 0.0)
            self.dispatcher.weigh()
            return
        self.watchdog.look()

    def take_back(self) -> list[Job]:
        """Take no more calls, and return those that no child has in hand. What children have in hand stays there."""
        self._closed = True
        self.watchdog.recalls = False
        jobs = list(self.dispatcher.waiting)
        self.dispatcher.waiting.clear()
        return jobs

    def abandon(self, cause: str) -> None:
        """End every call as lost: there are no children any more."""
        self._closed = True
        self.registry.end(cause)
        # Only now: calls that children had not begun have come back.
        for job in self.take_back():
            job.on_done(job, Lost(cause, ""), "", 0.0)

    def forget_waiting(self, is_void: Callable[[Job], bool]) -> None:
        """Drop those of the calls that no child has begun which are void: somebody else will have them."""
        self.dispatcher.waiting = deque(job for job in self.dispatcher.waiting if not is_void(job))
        self.dispatcher.weigh()

    def resize(self, size: int) -> None:
        """Have at most so many children work at once; whoever keeps the headcount brings them to that number."""
        self.dispatcher.size = size
        self.registry.changed.ring()
        self.dispatcher.dispatch_soon()

    def retire(self, child: ChildHandle, reason: str) -> None:
        """Have a child go after the calls it has in hand."""
        if child.state is State.IDLE:
            self.dispatcher.idle.remove(child)
        self.registry.retire(child, reason)

    def describe_children(self) -> list[str]:
        """Say of each child, in a line, what it does; for the operator."""
        return [child.describe(self.registry.clock()) for child in self.registry.children.values()]

    # ---- hearing -----------------------------------------------------------------------------------------

    def _hear(self, child: ChildHandle, said: Sequence[frames.FromChild]) -> None:
        now = self.registry.clock()
        for frame in said:
            match frame:
                case Done():
                    self._done(child, frame, now)
                case LogLines(text=text):
                    self._bus.emit(events.ChildLogged(child.name, text))
                case Enqueue():
                    if child.is_answerable(frame):
                        self._publishes(frame, child.tell)
                case Ready() if not child.was_ready:
                    child.happens(ChildEvent.READY)
                    if child.state is State.IDLE:
                        self.dispatcher.idle.append(child)
                case CallsGivenBack(seqs=seqs):
                    self._given_back(child, child.remove(set(seqs), now))
                case _:
                    # Born twice, or not born after all. Code that a task runs has written it.
                    self._break_off(child, f"it sent {type(frame).__name__}, which has no place here")
        if self.dispatcher.waiting:
            self.dispatcher.dispatch()
        elif child.in_hand:
            self.watchdog.arm((child,))

    def _done(self, child: ChildHandle, done: Done, now: float) -> None:
        job = child.take(done.seq, now)
        if job is None:
            job = self._take_out_of_turn(child, done, now)
        if job is None:
            return
        dispatcher = self.dispatcher
        dispatcher.running -= 1
        if self.registry.spawn_failures.failed and self.registry.spawn_failures.count_success(child):
            self.registry.changed.ring()
        dispatcher.pace.note(job.task, done.runtime)
        child.tasks += 1
        if child.is_deaf:
            child.is_deaf = False
        child.owned = done.owned or child.owned
        if self._recycles and child.state is State.BUSY:
            reason = recycle.retire_reason(child.limits, tasks=child.tasks, owned=done.owned)
            if reason is not None:
                self.registry.retire(child, reason)
        if not child.in_hand:
            self._free(child)
        job.on_done(job, done.outcome, child.name, done.runtime)
        dispatcher.weigh()

    def _take_out_of_turn(self, child: ChildHandle, done: Done, now: float) -> Job | None:
        job = child.take_out_of_turn(done.seq, now)
        if child.fault is not None:
            self._break_off(child, child.fault)
        return job

    def _break_off(self, child: ChildHandle, why: str) -> None:
        """End a child whose word cannot be relied on any more; it gets no more calls."""
        if child.state is State.IDLE:
            self.dispatcher.idle.remove(child)
            self.registry.retire(child, why)
        self.registry.break_off(child, why)

    def _cannot_give(self, child: ChildHandle, seq: int, error: OSError) -> None:
        """A call is too large for any child: it ends, and the child goes on."""
        for job in child.remove({seq}, self.registry.clock()):
            self.dispatcher.running -= 1
            if not child.in_hand:
                self._free(child)
            why = f"its arguments cannot be handed to a child: {error.strerror}"
            job.on_done(job, Refused(why, "OSError", "builtins", b"[]"), "", 0.0)
            self.registry.changed.ring()
            self.dispatcher.dispatch_soon()
            self.dispatcher.weigh()

    def _free(self, child: ChildHandle) -> None:
        self.dispatcher.free(child)
        if child.state is State.IDLE and len(self.registry.children) > self.headcount:
            self.registry.changed.ring()

    def _given_back(self, child: ChildHandle, jobs: Sequence[Job]) -> None:
        """A child lives on without calls it had in hand and did not begin."""
        if jobs:
            # They may have been its last, for which a replacement was made.
            self.registry.changed.ring()
        if jobs and not child.in_hand:
            self._free(child)
        self.dispatcher.put_back(jobs)

    def _has_free(self) -> bool:
        return (
            any(not child.is_deaf for child in self.dispatcher.idle)
            and len(self.dispatcher.busy) <= self.dispatcher.size
        )

    def _take_unread(self, child: ChildHandle) -> None:
        """Take back all that a child has not read: it does nothing, and another one can have it.

        What it has read it may begin at any moment, and stays with it.
        """
        jobs = child.take_unread(self.registry.clock())
        if jobs and not child.is_deaf:
            child.is_deaf = True
            self._bus.emit(events.ChildUnresponsive(child.name, child.pid))
        self._given_back(child, jobs)

    def _on_exit(self, child: ChildHandle, back: list[Job], lost: list[Job], death: Lost) -> None:
        self.dispatcher.forget(child)
        self.dispatcher.put_back(back)
        self.dispatcher.running -= len(lost)
        for job in lost:
            job.on_done(job, child.verdict or death, child.name, 0.0)
        self.dispatcher.weigh()


def stop_messages(lane: ProcessLane, ids: Collection[str], grace: float) -> list[str]:
    """Give up every call of these messages, whether it has begun or not; one at work has so many seconds to stop.

    :returns: the ids of those that are here.
    """
    jobs = [job for job in (*lane.dispatcher.waiting, *lane.dispatcher.at_work()) if job.id in ids]
    for job in jobs:
        lane.cancel(job, grace)
    return list(dict.fromkeys(job.id for job in jobs))
