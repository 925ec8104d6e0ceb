"""The watchdog of a lane checks the calls that run: it takes the outcomes of a child that is stuck, calls back the
calls that wait behind a long one, and stops and kills those over their limits.

One timer for all children, set for the nearest moment at which `_policy.time_limits` finds something due.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

from hybridpool._ipc.frames import FromChild, Interrupt, Recall
from hybridpool._lanes.base import Job
from hybridpool._lanes.children.handle import CallInFlight, ChildHandle
from hybridpool._lanes.children.registry import ChildRegistry
from hybridpool._outcome import Cancelled, Outcome, TimedOut
from hybridpool._policy.time_limits import REPORT_S, STALL, UNREAD, Due, RunningCall, due

#: seconds after which a child is alerted again. A signal that comes just before a system call, after Python has looked
#: for signals, is only seen when that call returns, which may be an hour later; the next signal interrupts it.
REALERT_DELAYS_S: Final = (0.01, 0.1, 0.5)
#: seconds between further alerts to a call that was told to stop, until it ends: what was raised in it may have been
#: thrown away, in a callback or a `__del__` method, and is raised again then (`_child.loop`)
REALERT_PERIOD_S: Final = 0.5


class Watchdog:
    """Watches the first call in flight of each child; the limits of those behind it begin with their turn."""

    def __init__(
        self,
        busy: Callable[[], Collection[ChildHandle]],
        registry: ChildRegistry,
        hear: Callable[[ChildHandle, Sequence[FromChild]], None],
        give_back: Callable[[ChildHandle, Sequence[Job]], None],
        take_unread: Callable[[ChildHandle], None],
        others_free: Callable[[], bool],
    ) -> None:
        """Watch.

        :param busy: returns the children with calls in flight.
        :param hear: takes outcomes that a child did not come to send.
        :param give_back: takes calls that were taken back from a child.
        :param take_unread: takes back from a child the calls it has not read, with the first of them.
        :param others_free: tells whether there is a child without a call.
        """
        self._busy = busy
        self._registry = registry
        self._hear = hear
        self._give_back = give_back
        self._take_unread = take_unread
        self._others_free = others_free
        #: whether calls are called back from behind a long one; not when no other child of this lane could run them
        self.recalls = True
        self._timer: asyncio.TimerHandle | None = None
        self._set_for = 0.0

    def arm(self, children: Collection[ChildHandle]) -> None:
        """After calls were handed out: set the timer for the first of them that needs it."""
        nearest: float | None = None
        for child in children:
            moment = _nearest(child)
            if moment is not None and (nearest is None or moment < nearest):
                nearest = moment
        if nearest is not None:
            self._wake_at(nearest)

    def check(self) -> None:
        """Check every call that runs, do what is due, and set the timer for the next."""
        now = self._registry.clock()
        for child in list(self._busy()):
            if child.head is not None and (pending_outcomes := child.check(now)):
                # It is stuck in a call, and has done others before.
                self._hear(child, pending_outcomes)
            call = child.head
            if call is None:
                continue
            decided = due(_running(child, call, now, others_free=self._others_free()))
            self._act(child, call, decided, now)
            if decided.check_again_in is not None:
                self._wake_at(now + decided.check_again_in)

    def kill_for(self, child: ChildHandle, number: int, verdict: Outcome) -> None:
        """Kill a child for the call it runs, which ends as told; not if that call has ended, or is being ended."""
        call = child.head
        if call is not None and call.number == number and call.verdict is None and child.mark_for_kill(number):
            call.verdict = verdict
            self._registry.kill(child)

    def recall_unbegun(self) -> None:
        """Call back the calls that have not begun, from children with some whose submitters wait for that.

        Also once the lane is stopping, although no other child could run them: they are another worker's by now.
        """
        now = self._registry.clock()
        for child in list(self._busy()):
            if pending_outcomes := child.check(now):
                self._hear(child, pending_outcomes)
            if child.head is not None and child.awaits_report:
                self._call_back(child, child.head, now)

    def _call_back(self, child: ChildHandle, call: CallInFlight, now: float) -> None:
        """Take back what a child has not read, and have it give back what it has not begun."""
        call.recalled = True
        self._give_back(child, child.take_unread(now))
        if child.is_at(call.number) and child.behind:
            child.tell(Recall())
            self._alert(child, call.number)

    def _act(self, child: ChildHandle, call: CallInFlight, decided: Due, now: float) -> None:
        job = call.job
        if decided.take_back:
            child.taken_back_at = now
            self._take_unread(child)
            if not child.is_at(call.number):
                return
        if decided.recall and self.recalls:
            self._call_back(child, call, now)
            if not child.is_at(call.number):
                return
        if decided.kill:
            cancelled = job.cancelled_at is not None
            verdict = Cancelled(child.name) if cancelled else TimedOut(job.hard_limit or 0.0, child.name)
            self.kill_for(child, call.number, verdict)
        elif decided.stop:
            call.stopped = True
            child.tell(Interrupt(call.number, "cancelled"))
            self._alert(child, call.number)
            self._go_on_alerting(child, call.number)
        elif decided.soften:
            call.softened = True
            child.tell(Interrupt(call.number, "soft time limit", job.soft_limit or 0.0))
            self._alert(child, call.number)
            self._go_on_alerting(child, call.number)

    def _alert(self, child: ChildHandle, number: int) -> None:
        """Have a child read its channel, and make sure that it does."""
        self._registry.alert(child)
        loop = asyncio.get_running_loop()
        for delay in REALERT_DELAYS_S:
            loop.call_later(delay, self._alert_again, child, number)

    def _alert_again(self, child: ChildHandle, number: int) -> None:
        if child.is_at(number):
            self._registry.alert(child)

    def _go_on_alerting(self, child: ChildHandle, number: int) -> None:
        """Alert again and again, from after the last of `REALERT_DELAYS_S` until the call ends."""

        def alert() -> None:
            if child.is_at(number):
                self._registry.alert(child)
                loop.call_later(REALERT_PERIOD_S, alert)

        loop = asyncio.get_running_loop()
        loop.call_later(REALERT_DELAYS_S[-1] + REALERT_PERIOD_S, alert)

    def _wake_at(self, moment: float) -> None:
        if self._timer is not None:
            if self._set_for <= moment:
                return
            self._timer.cancel()
        self._set_for = moment
        self._timer = asyncio.get_running_loop().call_later(max(0.0, moment - self._registry.clock()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.check()


def _running(child: ChildHandle, call: CallInFlight, now: float, *, others_free: bool) -> RunningCall:
    job = call.job
    return RunningCall(
        age=now - call.since,
        still_for=now - child.still_since,
        behind=child.behind,
        unread_for=None if child.has_begun(call) else now - max(child.still_since, child.taken_back_at),
        awaits_report=child.awaits_report,
        others_free=others_free,
        recalled=call.recalled,
        soft=job.soft_limit,
        softened=call.softened,
        stopped=call.stopped,
        hard=None if call.verdict is not None else job.hard_limit,
        # The grace of one that was given up while it waited behind another begins with its turn.
        cancelled_for=None
        if job.cancelled_at is None or call.verdict is not None
        else now - max(job.cancelled_at, call.since),
        grace=job.grace,
    )


def _nearest(child: ChildHandle) -> float | None:
    """The moment of the first thing that may be due; None if nothing ever is."""
    call = child.head
    if call is None:
        return None
    job = call.job
    moments: list[float] = []
    if not child.has_begun(call):
        moments.append(max(child.still_since, child.taken_back_at) + UNREAD)
    if child.last_reported and child.awaits_report:
        moments.append(max(child.still_since, child.checked_at) + REPORT_S)
    if len(child.calls) > child.slots and not call.recalled:
        moments.append(child.still_since + STALL)
    if job.soft_limit is not None and not call.softened and not call.stopped:
        moments.append(call.since + job.soft_limit)
    if call.verdict is None:
        if job.hard_limit is not None:
            moments.append(call.since + job.hard_limit)
        if job.cancelled_at is not None:
            began = max(job.cancelled_at, call.since)
            moments.append(began + job.grace if call.stopped else began)
    return min(moments, default=None)
