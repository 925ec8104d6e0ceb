"""The watchdog of a lane whose children run several calls at once: time limits, and loops that stand still.

Each call with a limit has a timer of its own. A child that runs coroutines is looked at twenty times a second while it
has calls, and at the moment at which its loop would have stood still for too long: if it has not turned for a while,
one call holds it, and all others wait. That call is named, told to stop, and at last its child is killed for it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from hybridpool import events
from hybridpool._lanes.base import Job
from hybridpool._lanes.children.handle import CallInFlight
from hybridpool._lanes.children.registry import ChildRegistry
from hybridpool._lanes.shared.child_handle import SharedChildHandle
from hybridpool._lanes.shared.options import STOP_GRACE_S, SharedOptions
from hybridpool._outcome import Cancelled, Outcome, TimedOut
from hybridpool._policy.lifecycle import State
from hybridpool._policy.shared_limits import SharedCall, due

#: seconds between two looks at a loop: a call that holds it is noticed so much later, and its time counts from there
LOOK_S: Final = 0.05
#: seconds added to a look at a certain moment: timers may fire a little early
_TIMER_MARGIN_S: Final = 0.001
#: seconds after which a call that holds the loop is named although its child does not say where it is
NO_ANSWER_S: Final = 1.0
#: seconds without a turn of the loop after which a call that is to stop needs a signal to hear of it
_HELD_S: Final = 0.2


class SharedWatchdog:
    """Watches the calls and the loops of a lane's children."""

    def __init__(
        self,
        bus: events.Bus,
        registry: ChildRegistry,
        options: SharedOptions,
        children: Callable[[], list[SharedChildHandle]],
        give_up: Callable[[SharedChildHandle, CallInFlight, Outcome], None],
    ) -> None:
        """Watch.

        :param give_up: called with a call that did not stop, and what its submitter is told.
        """
        self._bus = bus
        self._registry = registry
        self._options = options
        self._children = children
        self._give_up = give_up
        self._looks: asyncio.TimerHandle | None = None

    # ---- limits ------------------------------------------------------------------------------------------

    def watch(self, child: SharedChildHandle, jobs: Sequence[Job]) -> None:
        """Watch calls that a child was given just now: its last ones."""
        if any(job.hard_limit is not None or job.soft_limit is not None for job in jobs):
            for number in range(child.last_number - len(jobs) + 1, child.last_number + 1):
                self.check(child, number)
        if self._options.has_loop and self._looks is None:
            self._look_in(LOOK_S)

    def check(self, child: SharedChildHandle, number: int) -> None:
        """Do what is due for a call, and set its timer for what comes next."""
        child.stop_timer(number)
        call = child.calls.get(number)
        if call is None or number in child.given_up:
            return
        job, now = call.job, self._registry.clock()
        stopped_at = child.stopped_at.get(number)
        is_cancelled = job.cancelled_at is not None
        decided = due(
            SharedCall(
                age=now - call.since,
                soft=job.soft_limit,
                softened=call.softened,
                hard=job.hard_limit,
                cancelled_for=None if job.cancelled_at is None else now - job.cancelled_at,
                stopped_for=None if stopped_at is None else now - stopped_at,
                grace=job.grace if is_cancelled else STOP_GRACE_S,
            )
        )
        if decided.soften:
            call.softened = True
            self._interrupt(child, number, "soft time limit", job.soft_limit or 0.0)
        if decided.stop:
            child.stopped_at[number] = now
            if not is_cancelled:
                call.if_stopped = TimedOut(job.hard_limit or 0.0, child.name, is_killed=False)
            self._interrupt(child, number, "cancelled" if is_cancelled else "hard time limit")
        if decided.give_up:
            timed_out = call.if_stopped or TimedOut(job.hard_limit or 0.0, child.name, is_killed=False)
            self._end(child, call, Cancelled(child.name) if is_cancelled else timed_out)
        elif decided.check_again_in is not None:
            loop = asyncio.get_running_loop()
            child.timers[number] = loop.call_later(decided.check_again_in, self.check, child, number)

    def _interrupt(self, child: SharedChildHandle, number: int, why: str, limit: float = 0.0) -> None:
        child.interrupt(number, why, limit)
        if self._options.has_loop and child.still_for(self._registry.clock()) >= _HELD_S:
            self._registry.alert(child)

    def _end(self, child: SharedChildHandle, call: CallInFlight, outcome: Outcome) -> None:
        """End a call that did not stop: kill its child if it holds the loop, otherwise give it up."""
        now = self._registry.clock()
        if self._options.has_loop and child.on_stage == call.number and child.still_for(now) >= _HELD_S:
            self._kill_for(
                child, call, attrs.evolve(outcome, is_killed=True) if isinstance(outcome, TimedOut) else outcome
            )
        else:
            self._give_up(child, call, outcome)

    def _kill_for(self, child: SharedChildHandle, call: CallInFlight, outcome: Outcome) -> None:
        call.verdict = outcome
        child.killed_for = call.number
        self._registry.kill(child)

    # ---- loops that stand still --------------------------------------------------------------------------

    def _look_in(self, delay: float) -> None:
        self._looks = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        self._looks = None
        now, delay = self._registry.clock(), LOOK_S
        is_any_busy = False
        for child in self._children():
            still = child.still_for(now)
            if not child.calls or child.state not in (State.BUSY, State.RETIRING) or child.is_to_be_killed:
                continue
            is_any_busy = True
            if still < (self._options.block_warning or _HELD_S):
                child.held_said, child.held_stopped_at = 0, 0.0
            else:
                self._is_held(child, still, now)
            for bound in (self._options.block_warning, self._options.block_timeout):
                if bound is not None and still < bound:
                    delay = min(delay, bound - still + _TIMER_MARGIN_S)
        if is_any_busy:
            self._look_in(delay)

    def _is_held(self, child: SharedChildHandle, still: float, now: float) -> None:
        if not child.held_said:
            child.held_said = -1
            child.ask_who_holds()
        elif child.held_said < 0 and still >= (self._options.block_warning or 0.0) + NO_ANSWER_S:
            self.held(child, child.on_stage, "  it does not answer: it may be inside a function in C")
        limit = self._options.block_timeout
        if limit is not None and still >= limit:
            self._stop_holder(child, limit, still, now)
        if not child.is_to_be_killed:
            # After what it is to read. A signal that comes just before a system call is only seen when that call
            # returns; so again and again.
            self._registry.alert(child)

    def _stop_holder(self, child: SharedChildHandle, limit: float, still: float, now: float) -> None:
        """Tell the call that holds a child's loop to stop; kill the child if it has not."""
        number = child.held_said if child.held_said > 0 else child.on_stage
        call = child.calls.get(number)
        if not child.held_stopped_at:
            child.held_stopped_at = now
            if call is not None:
                call.if_stopped = TimedOut(limit, child.name, is_killed=False)
                child.interrupt(number, f"it held the event loop for {still:.1f} s")
        elif now - child.held_stopped_at >= STOP_GRACE_S:
            if call is not None:
                self._kill_for(child, call, TimedOut(limit, child.name))
            else:
                self._registry.kill(child)

    def held(self, child: SharedChildHandle, number: int, stack: str) -> None:
        """Hear which call holds a child's loop."""
        call = child.calls.get(number)
        if call is None or child.held_said == number:
            return
        child.held_said = number
        self._bus.emit(
            events.LoopBlocked(
                child.name,
                events.TaskRef(call.job.task, call.job.id),
                child.still_for(self._registry.clock()),
                len(child.calls) - 1,
                stack,
            )
        )
