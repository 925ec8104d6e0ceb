"""The dispatcher of a lane: the calls that wait, the children that are free, and which child gets which call.

A child has one call in flight, or, when calls of that name were short lately, as many as `policy.pipelining` allows.
Calls that come in one turn of the loop are handed out at its end, so a burst is spread over the children in whole
messages.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Collection, Sequence

from hybridpool._ipc.blobs import OutgoingBlob
from hybridpool._lanes.base import Job
from hybridpool._lanes.children.handle import ChildHandle
from hybridpool._lanes.children.registry import ChildRegistry
from hybridpool._lanes.quota import TaskQuota, insert_by_priority
from hybridpool._lanes.wakeup import Wakeup
from hybridpool._outcome import Cancelled
from hybridpool._policy import recycle
from hybridpool._policy.lifecycle import ChildEvent, State
from hybridpool._policy.pipelining import DurationEstimate


class Dispatcher:
    """Knows which calls wait and which children are idle or busy, and gives calls to children."""

    def __init__(self, registry: ChildRegistry, watch: Callable[[Collection[ChildHandle]], None]) -> None:
        """:param watch: called with the busy children after calls were handed out."""
        self._registry = registry
        self._watch = watch
        self._due = False
        self.durations = DurationEstimate()
        #: calls that no child was given
        self.queue: deque[Job] = deque()
        #: holds calls back of which as many are at work as their tasks allow. They are not in the queue: no child that
        #: becomes free could run them
        self.quota = TaskQuota()
        #: children that wait for a call, the one to be given the next call first
        self.idle: deque[ChildHandle] = deque()
        #: children with calls in flight
        self.busy: set[ChildHandle] = set()
        #: how many calls are in flight
        self.running = 0
        #: at most so many children work at once
        self.size = 0
        #: notified when the demand is not within `load_bounds`
        self.load_changed = Wakeup()
        self.load_bounds: tuple[int, int] = (0, sys.maxsize)
        #: notified when no call waits or runs
        self.emptied = Wakeup()
        #: notified when a child is given calls
        self.calls_given = Wakeup()

    @property
    def load(self) -> int:
        """How many calls wait or run."""
        return len(self.queue) + self.quota.count + self.running

    @property
    def demand(self) -> int:
        """How many calls run, or would if there were more children."""
        return len(self.queue) + self.running

    def waiting_jobs(self) -> list[Job]:
        """Return the calls that no child was given."""
        return [*self.quota.parked(), *self.queue]

    @property
    def has_free(self) -> bool:
        """There is an idle child that would be given the next call."""
        return any(not child.is_unresponsive for child in self.idle) and len(self.busy) <= self.size

    def in_flight(self) -> list[Job]:
        """Return the calls that children were given."""
        return [call.job for child in self.busy for call in child.calls.values()]

    def notify_load(self) -> None:
        """After the load has changed: wake the tasks that wait for that."""
        least, most = self.load_bounds
        demand = len(self.queue) + self.running
        if not least <= demand <= most:
            self.load_changed.notify_all()
        if not demand:
            # Then no call is held back either: that takes another of its task, which runs.
            self.emptied.notify_all()

    def add(self, job: Job) -> None:
        """Take a call; a child gets it as soon as one is free."""
        if job.concurrency is not None and self.quota.park_if_full(job):
            return
        if job.priority:
            insert_by_priority(self.queue, job)
        else:
            self.queue.append(job)
        if len(self.queue) == 1 and self.idle:
            self.dispatch()
        elif not self._due:
            self.dispatch_soon()
        if len(self.queue) + self.running > self.load_bounds[1]:
            self.load_changed.notify_all()

    def withdraw(self, which: Callable[[Job], bool] | None) -> list[Job]:
        """Take calls back that no child was given.

        :param which: tells of a call whether to take it; None: all.
        """
        taken = [job for job in self.waiting_jobs() if which is None or which(job)]
        if taken:
            gone = {id(job): job for job in taken if not self.quota.remove(job)}
            self.queue = deque(job for job in self.queue if id(job) not in gone)
            for job in gone.values():
                self._replace(job)
        self.notify_load()
        return taken

    def take_out(self, job: Job) -> bool:
        """Take back a call that no child was given; False: it does not wait."""
        if job in self.queue:
            self.queue.remove(job)
            self._replace(job)
            return True
        return self.quota.remove(job)

    def _replace(self, job: Job) -> None:
        """Let a call that is held back wait for a child in place of one that was taken back.

        If that was the only one of its task that waited or ran, no end of a call would free the others.
        """
        freed = self.quota.replace(job) if job.concurrency is not None else None
        if freed is not None:
            self.queue.appendleft(freed)
            self.dispatch_soon()

    def release(self, job: Job) -> None:
        """Note that a call with a `concurrency` has ended, or was given back: another one may start."""
        freed = self.quota.release(job)
        if freed is not None:
            self.queue.appendleft(freed)
            self.dispatch_soon()

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Put calls that a child was given and did not begin back to the head of the queue, if they are wanted."""
        self.running -= len(jobs)
        given_up = []
        for job in reversed(jobs):
            job.handed_at, job.child = None, ""
            if job.concurrency is not None:
                self.release(job)
            if job.cancelled_at is None:
                self.queue.appendleft(job)
            else:
                given_up.append(job)
        if self.queue:
            self.dispatch_soon()
        for job in given_up:
            job.on_done(job, Cancelled(""), "", 0.0)
        self.notify_load()

    def mark_free(self, child: ChildHandle) -> None:
        """Note that a child has no call in flight any more."""
        self.busy.discard(child)
        child.transition(ChildEvent.DONE)
        if child.state is State.IDLE and child.is_unresponsive:
            # It may be given calls when there is no other, and they are taken back after a while.
            self.idle.append(child)
        elif child.state is State.IDLE:
            # The last to finish is the first to go on: its memory is warm, and a surplus shows at the far end.
            self.idle.appendleft(child)

    def remove(self, child: ChildHandle) -> None:
        """Note that a child is gone."""
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
        if not self.queue:
            return
        now = self._registry.clock()
        while self.queue and self.idle and len(self.busy) < self.size:
            self._give(self.idle.popleft(), now)
        if self.queue and self._depth(self.queue[0]) > 1:
            for child in list(self.busy):
                self._top_up(child, now)
        self._watch(self.busy)

    def _give(self, child: ChildHandle, now: float) -> None:
        """Hand an idle child its share of the queue."""
        depth = self._depth(self.queue[0])
        share = -(-len(self.queue) // max(1, min(self.size, len(self.idle) + 1 + len(self.busy))))
        jobs = self._next(min(depth, share, _left(child)))
        if not jobs:
            self.idle.appendleft(child)
            return
        self._hand(child, jobs, now)

    def _top_up(self, child: ChildHandle, now: float) -> None:
        """Put more short calls behind those a child has in flight, when few are left."""
        head = child.head
        if (
            not self.queue
            or head is None
            or child.state is not State.BUSY
            or head.recalled
            or child.on_last
            or child.is_to_be_killed
        ):
            return
        depth = self._depth(self.queue[0])
        have = len(child.calls)
        if depth == 1 or have > depth // 2 or self._depth(head.job) == 1:
            return
        jobs = self._next(min(depth - have, _left(child) - have))
        if jobs:
            self._hand(child, jobs, now)

    def _depth(self, job: Job) -> int:
        """How many calls such as this may be in a channel at once."""
        return 1 if isinstance(job.body, OutgoingBlob) else self.durations.depth(job.task)

    def _next(self, most: int) -> list[Job]:
        """Take calls that may start from the head of the queue: one, or as many as are short."""
        jobs: list[Job] = []
        queue, short = self.queue, ""
        while queue and len(jobs) < most:
            job = queue[0]
            if jobs and (job.task != short or type(job.body) is not bytes):
                if self._depth(job) == 1:
                    break
                short = job.task
            queue.popleft()
            if job.concurrency is not None and not self.quota.take(job):
                continue
            if job.may_start is None or job.may_start(job):
                jobs.append(job)
            else:
                if job.concurrency is not None:
                    self.release(job)
                self.notify_load()
        return jobs

    def _hand(self, child: ChildHandle, jobs: Sequence[Job], now: float) -> None:
        self.busy.add(child)
        self.running += len(jobs)
        child.give(jobs, now)
        self.calls_given.notify_all()
        if recycle.is_last(child.limits, tasks=child.tasks + len(child.calls) - 1):
            child.on_last = True
            self._registry.changed.notify_all()


def _left(child: ChildHandle) -> int:
    """How many more calls the child may run before it is replaced."""
    return sys.maxsize if child.limits.tasks is None else max(1, child.limits.tasks - child.tasks)
