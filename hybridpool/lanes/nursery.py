"""The children of a lane: ordered from the zygote, told to go, buried.

What a child says about calls goes to the lane; what concerns its life is dealt with here. `changed` rings whenever
whoever decides on the number of children should look again.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from hybridpool import events
from hybridpool.child import frames
from hybridpool.child.frames import ChildOrders, Exited, Forked, ForkFailed, Stillborn
from hybridpool.lanes.bell import Bell
from hybridpool.lanes.births import Births
from hybridpool.lanes.job import Job
from hybridpool.lanes.link import Breaks, CannotGive, Hears, Link
from hybridpool.lanes.room import why_no_room
from hybridpool.lanes.zygote import News, describe_exit
from hybridpool.outcome import Lost
from hybridpool.policy.blame import LetOff
from hybridpool.policy.lifecycle import State
from hybridpool.policy.recycle import RecycleLimits, allot

#: seconds; a child that dies idle and younger, before its first call, counts as not born
_INFANT: Final = 10.0
#: a child is gone: what it never read, what died with it, and how
Buried = Callable[[Link, list[Job], list[Job], Lost], None]


class Forks(Protocol):
    """What a nursery asks of a zygote; `zygote.Zygote` says what each means."""

    def fork(self, name: str, orders: ChildOrders, fds: Sequence[int]) -> None: ...
    def kill(self, pid: int) -> None: ...
    def alert(self, pid: int) -> None: ...
    def die(self) -> None: ...


class Nursery:
    """Births, retirements and burials."""

    def __init__(
        self,
        bus: events.Bus,
        orders: ChildOrders,
        limits: RecycleLimits,
        hears: Hears,
        buried: Buried,
        clock: Callable[[], float] = time.monotonic,
        breaks: Breaks | None = None,
        cannot_give: CannotGive = lambda *_: None,
    ) -> None:
        """Make it.

        :param clock: monotonic seconds, on which all of the lane goes by.
        :param breaks: called when a child's word cannot be relied on any more; default: `break_off`.
        :param cannot_give: called when a call is too large for any child.
        """
        self._bus = bus
        self._orders = orders
        self._limits = limits
        self._hears = hears
        self._buried = buried
        self._breaks = breaks or self.break_off
        self._cannot_give = cannot_give
        self.clock = clock
        self._zygote: Forks | None = None
        self._by_pid: dict[int, Link] = {}
        #: the zygote was killed because it did not answer
        self._killed_zygote = False
        self._let_off = LetOff()
        self._ordered = 0
        #: children by name, from the order to fork to the burial
        self.links: dict[str, Link] = {}
        self.births = Births()
        #: rung when whoever keeps the staff should look again
        self.changed = Bell()

    @property
    def zygote(self) -> Forks | None:
        """What children are forked from; None while there is none."""
        return self._zygote

    def use(self, zygote: Forks) -> None:
        """Fork from this zygote from now on."""
        self._zygote = zygote
        self.changed.ring()

    def spawn(self) -> bool:
        """Order one more child. It has a name at once, and takes calls once it is READY.

        :returns: whether it was ordered; if not, that counts as a birth that failed.
        """
        if self._zygote is None:
            return False
        self._ordered += 1
        link = Link(
            name=f"ForkPoolWorker-{self._ordered}",
            ordered_at=self.clock(),
            limits=allot(self._limits, chance=random.random()),
        )
        try:
            fds = link.open(self._hear, self._breaks, self._cannot_give)
        except OSError as error:
            # There was nothing to make its channel of.
            self.births.count_failure(link, why_no_room(error, len(self.links)), self.clock())
            return False
        self.links[link.name] = link
        self._zygote.fork(link.name, self._orders, fds)
        return True

    def retire(self, link: Link, reason: str) -> None:
        """Have a child go after the call it has in hand; one that is on its way already is left alone."""
        if link.state in (State.RETIRING, State.GONE):
            return
        link.end(reason, self.clock())
        self._bus.emit(events.ChildRetired(link.name, link.pid, reason))
        self.changed.ring()

    def kill(self, link: Link) -> None:
        """Kill a child and all it started, now, or as soon as its pid is known."""
        link.is_doomed = True
        if self._zygote is not None and link.pid:
            self._zygote.kill(link.pid)

    def alert(self, link: Link) -> None:
        """Have a child look at its channel, even in the middle of a task."""
        if self._zygote is not None and link.pid:
            self._zygote.alert(link.pid)

    def give_up(self, link: Link, reason: str) -> None:
        """A child is not born in time: kill it, or the zygote itself if it has not even forked."""
        link.stillborn = reason
        if link.pid:
            self.kill(link)
        elif self._zygote is not None:
            self._killed_zygote = True
            self._zygote.die()

    def hear_zygote(self, news: News) -> None:
        """Take the zygote's news."""
        match news:
            case Forked(name=name) if name not in self.links:
                # A zygote that was deaf: its child was killed, and buried, before it told of the birth.
                return
            case Forked(name=name, pid=pid):
                self._know(self.links[name], pid)
            case ForkFailed(name=name, reason=reason):
                self._bury(self.links[name], Lost(reason, name))
            case Exited(pid=pid, status=status, max_resident=peak):
                link, code = self._by_pid.pop(pid), os.waitstatus_to_exitcode(status)
                if link.fault is not None:
                    self._bury(link, Lost(link.fault, link.name, exitcode=code, peak=peak * 1024))
                    return
                is_foreign = code == -signal.SIGKILL and not link.is_doomed
                hint = f"not by this pool: out of memory? (peak {peak / 1024:.0f} MiB resident)" if is_foreign else ""
                self._bury(link, Lost(describe_exit(code), link.name, exitcode=code, peak=peak * 1024, hint=hint))

    def lose_zygote(self, cause: str) -> list[int]:
        """The zygote died, and the kernel has killed its children: bury them all.

        :returns: their pids, whose process groups may still hold what tasks had started.
        """
        self._zygote = None
        for link in list(self.links.values()):
            link.retired_because = link.retired_because or "its zygote died"
            self._hear_out(link)
        dead = list(self.links.values())
        suspects = [job.id for link in dead for job in link.at_work()]
        blamed = self._let_off.blamed(suspects, killed_by_us=self._killed_zygote)
        self._killed_zygote = False
        for link in dead:
            is_blamed = any(job.id in blamed for job in link.at_work())
            self._bury(link, Lost(f"its zygote died: {cause}", link.name, blamed=is_blamed))
        # Only now: last words may have told a pid that was not known yet.
        pids = list(self._by_pid)
        self._by_pid.clear()
        self.changed.ring()
        return pids

    def end(self, cause: str) -> None:
        """There are no children any more, because the pool ended."""
        self._zygote = None
        for link in list(self.links.values()):
            link.retired_because = link.retired_because or cause
            self._bury(link, Lost(cause, link.name))
        self._by_pid.clear()
        self.changed.ring()

    def _know(self, link: Link, pid: int) -> None:
        """Learn a child's pid, from whichever of zygote and child is heard first."""
        if not link.pid:
            link.pid = pid
            self._by_pid[pid] = link
            self._bus.emit(events.ChildSpawned(link.name, pid))
            if link.is_doomed:
                self.kill(link)

    def break_off(self, link: Link, why: str) -> None:
        """Kill a child whose word cannot be relied on: the calls that it began are lost, but for those it answered."""
        link.fault = why
        if link.in_hand and link.verdict is None:
            link.verdict = Lost(why, link.name)
        if not link.is_doomed:
            self.kill(link)
            self.changed.ring()

    def _hear(self, link: Link, said: Sequence[frames.FromChild]) -> None:
        if not link.was_ready:
            match said[0]:
                case Stillborn(text=text):
                    link.stillborn = text
                    return
                case frames.Ready(pid=pid):
                    self._know(link, pid)
                    if link.stillborn:
                        # Too late: it has been given up, and is about to be killed.
                        return
                    self.births.ever_ready = True
                    self._bus.emit(events.ChildReady(link.name, link.pid))
                    self.changed.ring()
                case _:
                    pass
        self._hears(link, said)

    def _hear_out(self, link: Link) -> None:
        """Hear what a dead child still had to say."""
        words = link.last_words()
        if words:
            self._hears(link, words)

    def _bury(self, link: Link, death: Lost) -> None:
        cause = death.cause
        self._hear_out(link)
        back, lost = link.bury()
        del self.links[link.name]
        expected = link.retired_because is not None
        if not link.was_ready and (link.stillborn or not expected):
            self.births.count_failure(link, link.stillborn or cause, self.clock())
        elif not expected and not lost and not link.tasks and self.clock() - link.ordered_at < _INFANT:
            self.births.count_failure(link, cause, self.clock())
        self._bus.emit(events.ChildGone(link.name, link.pid, cause, expected=expected))
        self._buried(link, back, lost, death)
        self.changed.ring()
