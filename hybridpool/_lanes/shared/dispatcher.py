"""The dispatcher of a lane whose children run several calls at once: which child gets which call.

A call goes to the child with the fewest, as long as one has room. A call that must not stand beside others, because too
many of its children have died, waits in a queue of its own for a child that runs nothing else.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hybridpool._lanes.base import Job
from hybridpool._lanes.children.registry import ChildRegistry
from hybridpool._lanes.quota import TaskQuota, insert_by_priority
from hybridpool._lanes.shared.child_handle import SharedChildHandle
from hybridpool._lanes.wakeup import Wakeup
from hybridpool._outcome import Cancelled
from hybridpool._policy.lifecycle import State

#: calls that are put into one message
_MAX_CALLS_AT_ONCE: Final = 64
#: seconds until a child for calls that run apart is ordered again
_ORDER_AGAIN_S: Final = 1.0


class SharedDispatcher:
    """Knows which calls wait, and gives them to children."""

    def __init__(self, registry: ChildRegistry, watch: Callable[[SharedChildHandle, Sequence[Job]], None]) -> None:
        """:param watch: called with a child and the calls that it was given."""
        self._registry = registry
        self._watch = watch
        self._due = False
        #: orders a child for calls that run apart, when that could not be done at once
        self._order: asyncio.TimerHandle | None = None
        #: calls that no child was given
        self.queue: deque[Job] = deque()
        #: of these, the ones that are not to run beside others
        self.apart: deque[Job] = deque()
        self.quota = TaskQuota()
        #: how many calls are in flight
        self.running = 0
        #: notified when no call waits or runs
        self.emptied = Wakeup()
        #: notified when the number of calls that wait or run has changed
        self.load_changed = Wakeup()

    @property
    def waiting(self) -> int:
        """How many calls no child was given."""
        return len(self.queue) + len(self.apart) + self.quota.count

    @property
    def load(self) -> int:
        """How many calls wait or run, without those that were given up: their submitters have been told."""
        return self.waiting + self.running - sum(len(child.given_up) for child in self.children())

    def waiting_jobs(self) -> list[Job]:
        """Return the calls that no child was given."""
        return [*self.queue, *self.apart, *self.quota.parked()]

    def children(self) -> list[SharedChildHandle]:
        """Return the children of this lane."""
        return [child for child in self._registry.children.values() if isinstance(child, SharedChildHandle)]

    def in_flight(self) -> list[Job]:
        """Return the calls that children were given, and that have not been given up."""
        return [
            call.job
            for child in self.children()
            for number, call in child.calls.items()
            if number not in child.given_up
        ]

    def add(self, job: Job) -> None:
        """Take a call; a child gets it as soon as one has room."""
        if job.concurrency is None or not self.quota.park_if_full(job):
            insert_by_priority(self.apart if job.is_apart else self.queue, job)
        self.dispatch_soon()

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Put calls that are to be started again before all others; they keep their order."""
        given_up: list[Job] = []
        for job in reversed(list(jobs)):
            job.handed_at, job.child = None, ""
            if job.cancelled_at is not None:
                given_up.append(job)
            elif job.is_apart:
                self.apart.appendleft(job)
            else:
                self.queue.appendleft(job)
        self.dispatch_soon()
        for job in given_up:
            job.on_done(job, Cancelled(""), "", 0.0)

    def take_out(self, job: Job) -> bool:
        """Take a call that waits out of its queue; False: it does not wait."""
        for queue in (self.queue, self.apart):
            if job in queue:
                queue.remove(job)
                if job.concurrency is not None:
                    # No end of a call would free those that are held back, if this was the only one of its task.
                    self._queue_again(self.quota.replace(job))
                return True
        return self.quota.remove(job)

    def withdraw(self, which: Callable[[Job], bool] | None) -> list[Job]:
        """Take calls out of the queues.

        :param which: tells of a call whether to take it; None: all.
        """
        taken = [job for job in self.waiting_jobs() if which is None or which(job)]
        for job in taken:
            self.take_out(job)
        self.notify_load()
        return taken

    def ended(self, job: Job) -> None:
        """Note that a call has ended, or that its child was let go without it."""
        self.running -= 1
        if job.concurrency is not None:
            self._release(job)

    def _release(self, job: Job) -> None:
        self._queue_again(self.quota.release(job))

    def _queue_again(self, freed: Job | None) -> None:
        if freed is not None:
            (self.apart if freed.is_apart else self.queue).appendleft(freed)
            self.dispatch_soon()

    def notify_load(self) -> None:
        """After calls have come or gone: wake the tasks that wait for that."""
        self.load_changed.notify_all()
        if not self.load:
            self.emptied.notify_all()

    def dispatch_soon(self) -> None:
        """Hand out at the end of this turn of the loop."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self.dispatch)

    def dispatch(self) -> None:
        """Hand out what can be handed out."""
        self._due = False
        self._dispatch_apart()
        if not self.queue:
            return
        open_children = [child for child in self.children() if child.takes_calls and not child.is_apart]
        given: dict[SharedChildHandle, list[Job]] = {child: [] for child in open_children}
        while self.queue and open_children:
            # One that is to be replaced has its turn when all others are full.
            child = min(open_children, key=lambda one: (bool(one.retires_because), len(one.calls) + len(given[one])))
            job = self._next(self.queue)
            if job is None:
                break
            jobs = given[child]
            jobs.append(job)
            if len(jobs) >= child.room:
                open_children.remove(child)
        for child, jobs in given.items():
            for start in range(0, len(jobs), _MAX_CALLS_AT_ONCE):
                self._give(child, jobs[start : start + _MAX_CALLS_AT_ONCE])

    def _next(self, queue: deque[Job]) -> Job | None:
        """Take the first call that may start out of a queue; park those of which enough are at work."""
        while queue:
            job = queue.popleft()
            if job.concurrency is not None and not self.quota.take(job):
                continue
            if job.may_start is None or job.may_start(job):
                return job
            # It has been dealt with, and does not run.
            if job.concurrency is not None:
                self._release(job)
            self.notify_load()
        return None

    def _dispatch_apart(self) -> None:
        """Give the first of the calls that run apart to a child of its own; order one, or let it go."""
        apart = [child for child in self.children() if child.is_apart]
        free = next((child for child in apart if child.takes_calls), None)
        if free is not None:
            job = self._next(self.apart)
            if job is not None:
                self._give(free, [job])
            elif free.state is State.IDLE:
                # They were withdrawn, or wait for others of their task.
                self._registry.retire(free, "no call is left to run apart")
        elif self.apart and not apart and self._order is None:
            if self._registry.spawn_failures.failed:
                self._order_later()
            else:
                self._order_apart()

    def _order_later(self) -> None:
        """Order a child in a while: starts fail, and only the reconciler knows when to try again."""
        self._order = asyncio.get_running_loop().call_later(_ORDER_AGAIN_S, self._order_apart)

    def _order_apart(self) -> None:
        self._order = None
        is_wanted = self.apart and not any(child.is_apart for child in self.children())
        if is_wanted and not self._registry.spawn(is_apart=True):
            self._order_later()
        elif is_wanted:
            # The reconciler watches whether it is ready in time.
            self._registry.changed.notify_all()

    def _give(self, child: SharedChildHandle, jobs: Sequence[Job]) -> None:
        self.running += len(jobs)
        child.give(jobs, self._registry.clock())
        self._watch(child, jobs)
