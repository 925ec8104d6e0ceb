"""Sees to the calls at work: takes from a child that is stuck what it has done, calls back what waits behind it, stops
and kills what is over its time.

One timer for all children, set for the nearest moment at which `policy.deadline` finds something due.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

from hybridpool._ipc.frames import FromChild, Interrupt, Recall
from hybridpool._lanes.base import Job
from hybridpool._lanes.prefork.child_handle import ChildHandle
from hybridpool._lanes.prefork.children import ChildRegistry
from hybridpool._outcome import Cancelled, Outcome, TimedOut
from hybridpool._policy.deadline import STALL, UNREAD, AtWork, Due, due

#: seconds after which a child is alerted again. A signal that comes just before a system call, after Python has looked
#: for signals, is only seen when that call returns, which may be an hour later; the next signal interrupts it.
_AGAIN: Final = (0.01, 0.1, 0.5)
#: seconds between further alerts to a call that was told to stop, until it ends: what was raised in it may have been
#: thrown away, in a callback or a `__del__` method, and is raised again then (`child.loop`)
_UNTIL_IT_ENDS: Final = 0.5


class Watchdog:
    """Watches the heads of the children's channels."""

    def __init__(
        self,
        busy: Collection[ChildHandle],
        registry: ChildRegistry,
        hear: Callable[[ChildHandle, Sequence[FromChild]], None],
        give_back: Callable[[ChildHandle, Sequence[Job]], None],
        take_unread: Callable[[ChildHandle], None],
        others_free: Callable[[], bool],
    ) -> None:
        """Watch.

        :param busy: the children with calls in hand, as they are at any time.
        :param hear: takes outcomes that a child did not come to send.
        :param give_back: takes calls that were taken back from a child.
        :param take_unread: takes back from a child what it has not read, with the first of its calls.
        :param others_free: tells whether there is a child without a call.
        """
        self._busy = busy
        self._registry = registry
        self._hear = hear
        self._give_back = give_back
        self._take_unread = take_unread
        self._others_free = others_free
        #: whether calls are called back from behind a long one; not when nobody else could run them
        self.recalls = True
        self._timer: asyncio.TimerHandle | None = None
        self._set_for = 0.0

    def arm(self, children: Collection[ChildHandle]) -> None:
        """After calls were handed out: be awake when the first of them needs it."""
        nearest: float | None = None
        for child in children:
            moment = _nearest(child)
            if moment is not None and (nearest is None or moment < nearest):
                nearest = moment
        if nearest is not None:
            self._wake_at(nearest)

    def look(self) -> None:
        """Look at every call at work, do what is due, and set the timer for the next."""
        now = self._registry.clock()
        for child in list(self._busy):
            if child.in_hand and (pending_outcomes := child.look(now)):
                # It is stuck in a call, and has done others before.
                self._hear(child, pending_outcomes)
            if not child.in_hand:
                continue
            decided = due(_at_work(child, now, others_free=self._others_free()))
            self._act(child, decided, now)
            if decided.look_again_in is not None:
                self._wake_at(now + decided.look_again_in)

    def end(self, child: ChildHandle, seq: int, verdict: Outcome) -> None:
        """Kill a child for the call at work, which ends as told; not if that call has ended, or is being ended."""
        if child.in_hand and child.in_hand[0][0] == seq and child.verdict is None and child.mark_for_kill():
            child.verdict = verdict
            self._registry.kill(child)

    def _act(self, child: ChildHandle, decided: Due, now: float) -> None:
        seq, job = child.in_hand[0]
        if decided.take_back:
            self._take_unread(child)
            if not child.in_hand or child.in_hand[0][0] != seq:
                return
        if decided.recall and self.recalls:
            child.recalled = True
            self._give_back(child, child.take_unread(now))
            if not child.in_hand or child.in_hand[0][0] != seq:
                return
            if len(child.in_hand) > 1:
                child.tell(Recall())
                self._alert(child, seq)
        if decided.kill:
            cancelled = job.cancelled_at is not None
            self.end(child, seq, Cancelled(child.name) if cancelled else TimedOut(job.hard_limit or 0.0, child.name))
        elif decided.stop:
            child.stopped = True
            child.tell(Interrupt(seq, "cancelled"))
            self._alert(child, seq)
            self._go_on_alerting(child, seq)
        elif decided.soften:
            child.softened = True
            child.tell(Interrupt(seq, "soft time limit", job.soft_limit or 0.0))
            self._alert(child, seq)
            self._go_on_alerting(child, seq)

    def _alert(self, child: ChildHandle, seq: int) -> None:
        """Have a child look at its channel, and make sure that it does."""
        self._registry.alert(child)
        loop = asyncio.get_running_loop()
        for delay in _AGAIN:
            loop.call_later(delay, self._alert_again, child, seq)

    def _alert_again(self, child: ChildHandle, seq: int) -> None:
        if child.in_hand and child.in_hand[0][0] == seq:
            self._registry.alert(child)

    def _go_on_alerting(self, child: ChildHandle, seq: int) -> None:
        """Alert again and again, from after the last of `_AGAIN` until the call ends."""

        def alert() -> None:
            if child.in_hand and child.in_hand[0][0] == seq:
                self._registry.alert(child)
                loop.call_later(_UNTIL_IT_ENDS, alert)

        loop = asyncio.get_running_loop()
        loop.call_later(_AGAIN[-1] + _UNTIL_IT_ENDS, alert)

    def _wake_at(self, moment: float) -> None:
        if self._timer is not None:
            if self._set_for <= moment:
                return
            self._timer.cancel()
        self._set_for = moment
        self._timer = asyncio.get_running_loop().call_later(max(0.0, moment - self._registry.clock()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.look()


def _at_work(child: ChildHandle, now: float, *, others_free: bool) -> AtWork:
    job = child.in_hand[0][1]
    return AtWork(
        age=now - child.head_since,
        still_for=now - child.still_since,
        behind=len(child.in_hand) - 1,
        unread=not child.has_begun,
        others_free=others_free,
        recalled=child.recalled,
        soft=job.soft_limit,
        softened=child.softened,
        stopped=child.stopped,
        hard=None if child.verdict is not None else job.hard_limit,
        # The grace of one that was given up while it waited behind another begins with its turn.
        cancelled_for=None
        if job.cancelled_at is None or child.verdict is not None
        else now - max(job.cancelled_at, child.head_since),
        grace=job.grace,
    )


def _nearest(child: ChildHandle) -> float | None:
    """The moment of the first thing that may be due; None if nothing ever is."""
    if not child.in_hand:
        return None
    job = child.in_hand[0][1]
    moments: list[float] = []
    if not child.has_begun:
        moments.append(child.still_since + UNREAD)
    if len(child.in_hand) > 1 and not child.recalled:
        moments.append(child.still_since + STALL)
    if job.soft_limit is not None and not child.softened and not child.stopped:
        moments.append(child.head_since + job.soft_limit)
    if child.verdict is None:
        if job.hard_limit is not None:
            moments.append(child.head_since + job.hard_limit)
        if job.cancelled_at is not None:
            began = max(job.cancelled_at, child.head_since)
            moments.append(began + job.grace if child.stopped else began)
    return min(moments, default=None)
