"""The prefork lane: it takes calls, has children run them, and hears what the children say of them.

The lane alone changes the state of its calls and children. `dispatcher` decides which child gets which call,
`children` starts and ends children, `watchdog` enforces the limits of the calls that run; these three are the lane's
private parts, and no module outside this package imports them. The supervisors (`reconciler`, `autoscaler`,
`memory_watch`, `zygote_keeper`) decide from a snapshot, and act through the lane's methods.
"""

import time
from collections.abc import Callable, Sequence

from hybridpool import events
from hybridpool._ipc import frames
from hybridpool._ipc.frames import CallsGivenBack, ChildOrders, Done, Enqueue, LogLines, Ready, Stacks
from hybridpool._lanes.base import Job, Publishes
from hybridpool._lanes.children.handle import CallInFlight, ChildHandle
from hybridpool._lanes.children.lane import ChildLane
from hybridpool._lanes.children.registry import ChildRegistry
from hybridpool._lanes.prefork.dispatcher import Dispatcher
from hybridpool._lanes.prefork.watchdog import Watchdog
from hybridpool._lanes.snapshot import LaneSnapshot
from hybridpool._outcome import Lost, Outcome, Refused
from hybridpool._policy import recycle
from hybridpool._policy.lifecycle import ChildEvent, State
from hybridpool._policy.recycle import RecycleLimits
from hybridpool._policy.waiting_advice import WaitingAdvice


class PreforkLane(ChildLane[Dispatcher]):
    """Calls, and the children that run them."""

    def __init__(
        self,
        bus: events.Bus,
        limits: RecycleLimits,
        orders: ChildOrders,
        publishes: Publishes,
        spares: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a lane without children.

        :param publishes: publishes the messages of children's tasks.
        :param spares: ready children that are kept beyond the size.
        :param clock: returns monotonic seconds; all of the lane goes by it.
        """
        registry = ChildRegistry(
            bus, orders, limits, self._hear, self._on_exit, clock, self._break_off, self._cannot_give
        )
        super().__init__(bus, registry, clock)
        self._publishes = publishes
        self._spares = spares
        #: whether children are replaced after what they have done
        self._recycles = limits.spares > 0
        #: how many children are kept: those that work at once, and the spares
        self._headcount = spares
        self._advice = WaitingAdvice()
        self._spawn_failures = self._registry.spawn_failures
        self._watchdog = Watchdog(
            lambda: self._dispatcher.busy,
            self._registry,
            self._hear,
            self._given_back,
            self._take_unread,
            lambda: self._dispatcher.has_free,
        )
        self._dispatcher = Dispatcher(self._registry, self._watchdog.arm)

    # ---- calls -------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """At most so many children work at once."""
        return self._dispatcher.size

    @property
    def demand(self) -> int:
        """How many calls run, or would if there were more children."""
        return self._dispatcher.demand

    def _stop(self, _job: Job, /) -> None:
        self._watchdog.check()

    def stop_taking(self) -> None:
        """Take no more calls. Those that lie behind a long one stay there: no other child is to run them."""
        super().stop_taking()
        self._watchdog.recalls = False

    def recall_unbegun(self) -> None:
        """Call back the calls that children have not begun, where submitters want to know when they begin.

        They wait for a child again, and are asked whether they may start; in a lane that stops they wait until its end.
        """
        self._watchdog.recall_unbegun()

    def queued(self) -> list[Job]:
        """Return the calls that wait for a child."""
        return list(self._dispatcher.queue)

    # ---- children ----------------------------------------------------------------------------------------

    def _leaves_idle(self, child: ChildHandle) -> None:
        self._dispatcher.idle.remove(child)

    def resize(self, size: int) -> None:
        """Have at most so many children work at once; the reconciler brings their number to that."""
        self._dispatcher.size = size
        self._headcount = size + self._spares
        self._registry.changed.notify_all()
        self._dispatcher.dispatch_soon()

    def kill_for(self, child: str, number: int, outcome: Outcome) -> None:
        """Kill a child for the call it runs, unless that call has ended.

        :param number: of the call, as in the child's snapshot.
        :param outcome: how the call ends.
        """
        handle = self._registry.children.get(child)
        if handle is not None:
            self._watchdog.kill_for(handle, number, outcome)

    # ---- watching ----------------------------------------------------------------------------------------

    def snapshot(self) -> LaneSnapshot:
        """Return what the lane and its children do at this moment."""
        dispatcher = self._dispatcher
        children = {name: child.snapshot() for name, child in self._registry.children.items()}
        return LaneSnapshot(
            at=self.clock(),
            size=dispatcher.size,
            queued=len(dispatcher.queue) + dispatcher.quota.count,
            running=dispatcher.running,
            children=tuple(children.values()),
            idle=tuple(children[child.name] for child in dispatcher.idle),
            can_fork=self._registry.zygote is not None,
            starts=self._spawn_failures.record(),
        )

    async def wait_load_outside(self, least: int, most: int, timeout: float | None = None) -> None:
        """Wait until the demand is less than `least` or more than `most`; return at once if it is.

        :param timeout: seconds after which to return all the same; None: no limit.
        """
        self._dispatcher.load_bounds = (least, most)
        if least <= self._dispatcher.demand <= most:
            await self._dispatcher.load_changed.wait(timeout)

    def wake_scaler(self) -> None:
        """End `wait_load_outside`."""
        self._dispatcher.load_changed.notify_all()

    async def wait_calls_given(self) -> None:
        """Wait until a child is given calls."""
        await self._dispatcher.calls_given.wait()

    # ---- what children say -------------------------------------------------------------------------------

    def _hear(self, child: ChildHandle, said: Sequence[frames.FromChild]) -> None:
        now = self.clock()
        dispatcher = self._dispatcher
        for frame in said:
            match frame:
                case Done():
                    self._done(child, frame, now)
                case LogLines(text=text):
                    self._bus.emit(events.ChildLogged(child.name, text))
                case Enqueue():
                    if child.is_answerable(frame):
                        self._publishes(frame, child.tell)
                case Stacks(text=text):
                    self._stack_reports.hear(child, text)
                case Ready() if not child.was_ready:
                    child.transition(ChildEvent.READY)
                    if child.state is State.IDLE:
                        dispatcher.idle.append(child)
                case CallsGivenBack(seqs=seqs):
                    self._given_back(child, child.remove(set(seqs), now))
                case _:
                    # READY a second time, or a failed start after READY. Code that a task runs has written it.
                    self._break_off(child, f"it sent {type(frame).__name__}, which has no place here")
        if dispatcher.queue:
            dispatcher.dispatch()
        elif child.head is not None:
            self._watchdog.arm((child,))

    def _done(self, child: ChildHandle, done: Done, now: float) -> None:
        job = child.pop_finished(done.seq, now)
        if job is None:
            job = self._pop_out_of_turn(child, done, now)
        if job is None:
            return
        dispatcher, spawn_failures, runtime = self._dispatcher, self._spawn_failures, done.runtime
        dispatcher.running -= 1
        if job.concurrency is not None:
            dispatcher.release(job)
        if spawn_failures.failed and spawn_failures.count_success(child):
            self._registry.changed.notify_all()
        dispatcher.durations.note(job.task, runtime)
        child.tasks += 1
        if child.is_unresponsive:
            child.is_unresponsive = False
        if done.owned:
            child.owned = done.owned
        if self._recycles and child.state is State.BUSY:
            reason = recycle.retire_reason(child.limits, tasks=child.tasks, owned=done.owned)
            if reason is not None:
                self._registry.retire(child, reason)
        if done.cpu >= 0:
            self._advise(job, done, now)
        if child.head is None:
            self._free(child)
        job.on_done(job, done.outcome, child.name, runtime)
        dispatcher.notify_load()

    def _advise(self, job: Job, done: Done, now: float) -> None:
        """Say of a function that only waits, while calls wait for a child, that it need not hold one."""
        waiting = bool(self._dispatcher.queue)
        if self._advice.note(job.task, cpu_percent=done.cpu, runtime=done.runtime, are_others_waiting=waiting, now=now):
            self._bus.emit(events.TaskOnlyWaits(events.TaskRef(job.task, job.id), 100 - done.cpu, done.runtime))

    def _pop_out_of_turn(self, child: ChildHandle, done: Done, now: float) -> Job | None:
        job = child.pop_out_of_turn(done.seq, now)
        if child.fault is not None:
            self._break_off(child, child.fault)
        return job

    def _break_off(self, child: ChildHandle, why: str) -> None:
        """End a child that cannot be relied on any more; it gets no more calls."""
        if child.state is State.IDLE:
            self._dispatcher.idle.remove(child)
            self._registry.retire(child, why)
        self._registry.break_off(child, why)

    def _cannot_give(self, child: ChildHandle, number: int, error: OSError) -> None:
        """A call is too large for any child: it ends, and the child goes on."""
        for job in child.remove({number}, self.clock()):
            self._dispatcher.running -= 1
            if job.concurrency is not None:
                self._dispatcher.release(job)
            if child.head is None:
                self._free(child)
            why = f"its arguments cannot be handed to a child: {error.strerror}"
            job.on_done(job, Refused(why, "OSError", "builtins", b"[]"), "", 0.0)
            self._registry.changed.notify_all()
            self._dispatcher.dispatch_soon()
            self._dispatcher.notify_load()

    def _free(self, child: ChildHandle) -> None:
        self._dispatcher.mark_free(child)
        if child.state is State.IDLE and len(self._registry.children) > self._headcount:
            self._registry.changed.notify_all()

    def _given_back(self, child: ChildHandle, jobs: Sequence[Job]) -> None:
        """A child goes on without calls that it was given and did not begin."""
        if not jobs:
            return
        # They may have been its last, for which a replacement was made.
        self._registry.changed.notify_all()
        if child.head is None:
            self._free(child)
        self._dispatcher.put_back(jobs)

    def _take_unread(self, child: ChildHandle) -> None:
        """Take back all calls that a child has not read: it does nothing, and another child can run them.

        What it has read it may begin at any moment, and stays with it.
        """
        jobs = child.take_unread(self.clock())
        if jobs and not child.is_unresponsive:
            child.is_unresponsive = True
            self._bus.emit(events.ChildUnresponsive(child.name, child.pid))
        self._given_back(child, jobs)

    def _on_exit(self, child: ChildHandle, back: list[CallInFlight], lost: list[CallInFlight], death: Lost) -> None:
        self._dispatcher.remove(child)
        self._dispatcher.put_back([call.job for call in back])
        self._dispatcher.running -= len(lost)
        for call in lost:
            if call.job.concurrency is not None:
                self._dispatcher.release(call.job)
            # A child that failed to answer in order may have begun several: all end as the first of them.
            call.job.on_done(call.job, lost[0].verdict or death, child.name, 0.0)
        self._dispatcher.notify_load()
