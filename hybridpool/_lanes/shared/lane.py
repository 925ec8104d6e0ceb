"""A lane whose children run several calls at once: `async` (on an event loop) or `thread`.

The lane alone changes the state of its calls and children, as the prefork lane does. What differs: a child has slots,
its calls end in any order, it is not killed for one call while others run in it, and when it dies, most of its calls
are innocent (`_policy.death_of_shared`): they run again at once, in this worker, without their submitter's knowing.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from hybridpool import events
from hybridpool._ipc import frames
from hybridpool._ipc.frames import ChildOrders, Done, Enqueue, LogLines, LoopHeld, Ready, Stacks
from hybridpool._lanes.base import Job, Publishes
from hybridpool._lanes.children.handle import CallInFlight, ChildHandle
from hybridpool._lanes.children.lane import ChildLane
from hybridpool._lanes.children.registry import ChildRegistry
from hybridpool._lanes.shared.child_handle import SharedChildHandle
from hybridpool._lanes.shared.dispatcher import SharedDispatcher
from hybridpool._lanes.shared.options import SharedOptions
from hybridpool._lanes.shared.watchdog import SharedWatchdog
from hybridpool._lanes.snapshot import LaneSnapshot
from hybridpool._outcome import Cancelled, Lost, Outcome, Raised, Refused
from hybridpool._policy import recycle
from hybridpool._policy.death_of_shared import Fate, SharedDeath, fates, runs_apart
from hybridpool._policy.lifecycle import ChildEvent, State
from hybridpool._policy.recycle import RecycleLimits
from hybridpool.errors import TaskCancelled


class SharedLane(ChildLane[SharedDispatcher]):
    """Calls, and the children that run them."""

    def __init__(
        self,
        bus: events.Bus,
        limits: RecycleLimits,
        orders: ChildOrders,
        publishes: Publishes,
        options: SharedOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a lane without children.

        :param publishes: publishes the messages of children's tasks.
        :param clock: returns monotonic seconds; all of the lane goes by it.
        """
        registry = ChildRegistry(
            bus,
            orders,
            limits,
            self._hear,
            self._on_exit,
            clock,
            self._break_off,
            self._cannot_give,
            SharedChildHandle,
        )
        super().__init__(bus, registry, clock)
        self._publishes = publishes
        self._options = options
        self._size = 0
        self._watchdog = SharedWatchdog(bus, registry, options, self._children, self._give_up_call)
        self._dispatcher = SharedDispatcher(registry, self._watchdog.watch)

    # ---- calls -------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """At most so many children work at once."""
        return self._size

    def _stop(self, job: Job, /) -> None:
        child = self._registry.children.get(job.child)
        if isinstance(child, SharedChildHandle):
            number = next((number for number, call in child.calls.items() if call.job is job), 0)
            self._watchdog.check(child, number)

    def stop_calls(self) -> None:
        """Tell every call to stop, so that its code can clean up before its child is killed."""
        for child in self._dispatcher.children():
            for number, call in child.calls.items():
                if number not in child.stopped_at and number not in child.given_up:
                    # No limit is told any more: the message goes back to the broker.
                    child.stop_timer(number)
                    child.stopped_at[number] = self.clock()
                    call.if_stopped = Lost("the worker stops", child.name)
                    child.interrupt(number, "the worker stops")

    # ---- children ----------------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        """Have at most so many children work at once; the reconciler brings their number to that."""
        self._size = size
        self._registry.changed.notify_all()
        self._dispatcher.dispatch_soon()

    def _children(self) -> list[SharedChildHandle]:
        return self._dispatcher.children()

    def _leaves_idle(self, child: ChildHandle) -> None:
        """Nothing: calls go to any child that serves."""

    def snapshot(self) -> LaneSnapshot:
        """Return what the lane and its children do at this moment."""
        children = {name: child.snapshot() for name, child in self._registry.children.items()}
        return LaneSnapshot(
            at=self.clock(),
            size=self._size,
            queued=self._dispatcher.waiting,
            running=self._dispatcher.running,
            children=tuple(children.values()),
            idle=tuple(one for one in children.values() if one.state is State.IDLE),
            can_fork=self._registry.zygote is not None,
            starts=self._registry.spawn_failures.record(),
        )

    # ---- what children say -------------------------------------------------------------------------------

    def _hear(self, child: ChildHandle, said: Sequence[frames.FromChild]) -> None:
        assert isinstance(child, SharedChildHandle)
        for frame in said:
            match frame:
                case Done():
                    self._done(child, frame)
                case LogLines(text=text):
                    self._bus.emit(events.ChildLogged(child.name, text))
                case Enqueue():
                    if child.is_answerable(frame):
                        self._publishes(frame, child.tell)
                case LoopHeld(seq=seq, stack=stack):
                    self._watchdog.held(child, seq, stack)
                case Stacks(text=text):
                    self._stack_reports.hear(child, text)
                case Ready() if not child.was_ready:
                    child.transition(ChildEvent.READY)
                    self._dispatcher.dispatch_soon()
                case _:
                    # Code that a task runs has written it.
                    self._break_off(child, f"it sent {type(frame).__name__}, which has no place here")
        if self._dispatcher.queue or self._dispatcher.apart:
            self._dispatcher.dispatch_soon()

    def _done(self, child: SharedChildHandle, done: Done) -> None:
        call = child.take_ended(done.seq, self.clock())
        if call is None:
            if child.fault is not None:
                self._break_off(child, child.fault)
            return
        job, starts = call.job, self._registry.spawn_failures
        self._dispatcher.ended(job)
        if starts.failed and starts.count_success(child):
            self._registry.changed.notify_all()
        child.tasks += 1
        if done.owned:
            child.owned = done.owned
        self._recycle(child, done.owned)
        is_given_up = done.seq in child.given_up
        child.forget(done.seq)
        self._let_go(child)
        if is_given_up:
            # A large value of it came in a file, which no one wants.
            job.blob = None
        else:
            job.on_done(job, _outcome_of(call, done.outcome), child.name, done.runtime)
        self._dispatcher.notify_load()

    def _recycle(self, child: SharedChildHandle, owned: int) -> None:
        if child.state is State.BUSY and child.retires_because is None and not child.is_apart:
            reason = recycle.retire_reason(child.limits, tasks=child.tasks, owned=owned)
            if reason is not None:
                child.retires_because = reason
                self._registry.changed.notify_all()

    def _let_go(self, child: SharedChildHandle) -> None:
        """After a call of a child has ended: see what the child does next."""
        if not child.calls:
            if child.state is State.BUSY:
                child.transition(ChildEvent.DONE)
            if child.is_apart:
                self._dispatcher.dispatch_soon()
            self._registry.changed.notify_all()
        elif child.given_up.issuperset(child.calls):
            self._registry.kill(child)

    def _give_up_call(self, child: SharedChildHandle, call: CallInFlight, outcome: Outcome) -> None:
        """Tell the submitter that a call has ended, although it runs on, and let its child end with its other calls."""
        job = call.job
        child.forget(call.number)
        child.given_up.add(call.number)
        if child.condemned is None:
            self._registry.retire(child, f"{job.task}[{job.id}] did not stop")
            loop = asyncio.get_running_loop()
            child.condemned = loop.call_later(self._options.drain_timeout, self._registry.kill, child)
        job.on_done(job, outcome, child.name, self.clock() - call.since)
        if child.given_up.issuperset(child.calls):
            self._registry.kill(child)
        self._dispatcher.notify_load()

    def _break_off(self, child: ChildHandle, why: str) -> None:
        """End a child that cannot be relied on any more; it gets no more calls."""
        self._registry.break_off(child, why)

    def _cannot_give(self, child: ChildHandle, number: int, error: OSError) -> None:
        """A call is too large for any child: it ends, and the child goes on."""
        assert isinstance(child, SharedChildHandle)
        for job in child.remove({number}, self.clock()):
            self._dispatcher.ended(job)
            child.forget(number)
            self._let_go(child)
            why = f"its arguments cannot be handed to a child: {error.strerror}"
            job.on_done(job, Refused(why, "OSError", "builtins", b"[]"), "", 0.0)
            self._dispatcher.dispatch_soon()
            self._dispatcher.notify_load()

    def _on_exit(self, handle: ChildHandle, back: list[CallInFlight], lost: list[CallInFlight], death: Lost) -> None:
        assert isinstance(handle, SharedChildHandle)
        again = [call.job for call in back if call.number not in handle.given_up]
        for call in (*back, *lost):
            self._dispatcher.ended(call.job)
        begun = {call.number: call for call in lost if call.number not in handle.given_up}
        decided = fates(
            SharedDeath(
                begun={number: call.job.may_rerun and not self._is_closed for number, call in begun.items()},
                killed_for=handle.killed_for if handle.is_to_be_killed and handle.fault is None else None,
                on_stage=handle.on_stage,
                is_apart=handle.is_apart,
                with_zygote=self._registry.is_losing_zygote,
                is_blamed=death.blamed,
            )
        )
        ended: list[tuple[CallInFlight, Outcome]] = []
        rerun: list[Job] = []
        for number, fate in decided.items():
            call = begun[number]
            job = call.job
            if fate in (Fate.GUILTY, Fate.LOST):
                ended.append((call, call.verdict or death))
                continue
            if job.cancelled_at is not None or call.if_stopped is not None:
                # It was told to stop, and has done so now.
                ended.append((call, call.if_stopped or Cancelled(handle.name)))
                continue
            job.suspected += fate is Fate.SUSPECT
            job.beside += fate is Fate.BESIDE
            job.is_apart = runs_apart(suspected=job.suspected, beside=job.beside)
            rerun.append(job)
        if rerun:
            self._bus.emit(events.CallsRestarted(handle.name, handle.pid, len(rerun), death.cause))
        if self._is_closed:
            for job in again:
                job.on_done(job, death, "", 0.0)
        else:
            self._dispatcher.put_back([*rerun, *again])
        for call, outcome in ended:
            call.job.on_done(call.job, outcome, handle.name, 0.0)
        self._dispatcher.notify_load()


def _outcome_of(call: CallInFlight, outcome: Outcome) -> Outcome:
    """Return how a call ended. One that was told to stop at its hard limit, and did, has timed out."""
    if call.if_stopped is not None and isinstance(outcome, Raised) and outcome.kind == TaskCancelled.__name__:
        return call.if_stopped
    return outcome
