"""Sees to the calls at work: takes from a child that is stuck what it has done, calls back what waits behind it, stops
and kills what is over its time.

One timer for all children, set for the nearest moment at which `policy.deadline` finds something due.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

from hybridpool.child.frames import FromChild, Recall, Stop
from hybridpool.lanes.job import Job
from hybridpool.lanes.link import Link
from hybridpool.lanes.nursery import Nursery
from hybridpool.outcome import Cancelled, Outcome, TimedOut
from hybridpool.policy.deadline import STALL, UNREAD, AtWork, Due, due

#: seconds after which a child is alerted again. A signal that comes just before a system call, after Python has looked
#: for signals, is only seen when that call returns, which may be an hour later; the next signal interrupts it.
_AGAIN: Final = (0.01, 0.1, 0.5)
#: seconds between further alerts to a call that was told to stop, until it ends: what was raised in it may have been
#: thrown away, in a callback or a `__del__` method, and is raised again then (`child.loop`)
_UNTIL_IT_ENDS: Final = 0.5


class Warden:
    """Watches the heads of the children's channels."""

    def __init__(
        self,
        busy: Collection[Link],
        nursery: Nursery,
        hear: Callable[[Link, Sequence[FromChild]], None],
        give_back: Callable[[Link, Sequence[Job]], None],
        take_unread: Callable[[Link], None],
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
        self._nursery = nursery
        self._hear = hear
        self._give_back = give_back
        self._take_unread = take_unread
        self._others_free = others_free
        #: whether calls are called back from behind a long one; not when nobody else could run them
        self.recalls = True
        self._timer: asyncio.TimerHandle | None = None
        self._set_for = 0.0

    def look_in(self, links: Collection[Link]) -> None:
        """After calls were handed out: be awake when the first of them needs it."""
        nearest: float | None = None
        for link in links:
            moment = _nearest(link)
            if moment is not None and (nearest is None or moment < nearest):
                nearest = moment
        if nearest is not None:
            self._wake_at(nearest)

    def look(self) -> None:
        """Look at every call at work, do what is due, and set the timer for the next."""
        now = self._nursery.clock()
        for link in list(self._busy):
            if link.in_hand and (unsent := link.look(now)):
                # It is stuck in a call, and has done others before.
                self._hear(link, unsent)
            if not link.in_hand:
                continue
            decided = due(_at_work(link, now, others_free=self._others_free()))
            self._act(link, decided, now)
            if decided.look_again_in is not None:
                self._wake_at(now + decided.look_again_in)

    def end(self, link: Link, seq: int, verdict: Outcome) -> None:
        """Kill a child for the call at work, which ends as told; not if that call has ended, or is being ended."""
        if link.in_hand and link.in_hand[0][0] == seq and link.verdict is None and link.doom():
            link.verdict = verdict
            self._nursery.kill(link)

    def _act(self, link: Link, decided: Due, now: float) -> None:
        seq, job = link.in_hand[0]
        if decided.take_back:
            self._take_unread(link)
            if not link.in_hand or link.in_hand[0][0] != seq:
                return
        if decided.recall and self.recalls:
            link.recalled = True
            self._give_back(link, link.take_unread(now))
            if not link.in_hand or link.in_hand[0][0] != seq:
                return
            if len(link.in_hand) > 1:
                link.tell(Recall())
                self._alert(link, seq)
        if decided.kill:
            cancelled = job.cancelled_at is not None
            self.end(link, seq, Cancelled(link.name) if cancelled else TimedOut(job.hard_limit or 0.0, link.name))
        elif decided.stop:
            link.stopped = True
            link.tell(Stop(seq, "cancelled"))
            self._alert(link, seq)
            self._go_on_alerting(link, seq)
        elif decided.soften:
            link.softened = True
            link.tell(Stop(seq, "soft time limit", job.soft_limit or 0.0))
            self._alert(link, seq)
            self._go_on_alerting(link, seq)

    def _alert(self, link: Link, seq: int) -> None:
        """Have a child look at its channel, and make sure that it does."""
        self._nursery.alert(link)
        loop = asyncio.get_running_loop()
        for delay in _AGAIN:
            loop.call_later(delay, self._alert_again, link, seq)

    def _alert_again(self, link: Link, seq: int) -> None:
        if link.in_hand and link.in_hand[0][0] == seq:
            self._nursery.alert(link)

    def _go_on_alerting(self, link: Link, seq: int) -> None:
        """Alert again and again, from after the last of `_AGAIN` until the call ends."""

        def alert() -> None:
            if link.in_hand and link.in_hand[0][0] == seq:
                self._nursery.alert(link)
                loop.call_later(_UNTIL_IT_ENDS, alert)

        loop = asyncio.get_running_loop()
        loop.call_later(_AGAIN[-1] + _UNTIL_IT_ENDS, alert)

    def _wake_at(self, moment: float) -> None:
        if self._timer is not None:
            if self._set_for <= moment:
                return
            self._timer.cancel()
        self._set_for = moment
        self._timer = asyncio.get_running_loop().call_later(max(0.0, moment - self._nursery.clock()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.look()


def _at_work(link: Link, now: float, *, others_free: bool) -> AtWork:
    job = link.in_hand[0][1]
    return AtWork(
        age=now - link.head_since,
        still_for=now - link.still_since,
        behind=len(link.in_hand) - 1,
        unread=not link.has_begun,
        others_free=others_free,
        recalled=link.recalled,
        soft=job.soft_limit,
        softened=link.softened,
        stopped=link.stopped,
        hard=None if link.verdict is not None else job.hard_limit,
        # The grace of one that was given up while it waited behind another begins with its turn.
        cancelled_for=None
        if job.cancelled_at is None or link.verdict is not None
        else now - max(job.cancelled_at, link.head_since),
        grace=job.grace,
    )


def _nearest(link: Link) -> float | None:
    """The moment of the first thing that may be due; None if nothing ever is."""
    if not link.in_hand:
        return None
    job = link.in_hand[0][1]
    moments: list[float] = []
    if not link.has_begun:
        moments.append(link.still_since + UNREAD)
    if len(link.in_hand) > 1 and not link.recalled:
        moments.append(link.still_since + STALL)
    if job.soft_limit is not None and not link.softened and not link.stopped:
        moments.append(link.head_since + job.soft_limit)
    if link.verdict is None:
        if job.hard_limit is not None:
            moments.append(link.head_since + job.hard_limit)
        if job.cancelled_at is not None:
            began = max(job.cancelled_at, link.head_since)
            moments.append(began + job.grace if link.stopped else began)
    return min(moments, default=None)
