"""The children of a lane, from the order to fork one to its end.

What a child says about calls goes to the lane; what concerns its life is dealt with here. `changed` is notified
whenever the supervisors should check the number of children again.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

from hybridpool import events
from hybridpool._ipc import frames
from hybridpool._ipc.frames import ChildOrders, Exited, Forked, ForkFailed, StartFailed
from hybridpool._lanes.children.fd_limit import why_no_descriptor
from hybridpool._lanes.children.handle import Breaks, CallInFlight, CannotGive, ChildHandle, OnFrames
from hybridpool._lanes.children.spawn_failures import SpawnFailures
from hybridpool._lanes.wakeup import Wakeup
from hybridpool._outcome import Lost
from hybridpool._policy.lifecycle import State
from hybridpool._policy.recycle import RecycleLimits, limits_for_child
from hybridpool._zygote.client import News, describe_exit

#: seconds; a child that dies idle and younger, before its first call, counts as one that failed to start
MIN_UPTIME_S: Final = 10.0
#: how the names of children begin, by lane; the first as Celery has it
_PREFIXES: Final = {"process": "ForkPoolWorker", "async": "AsyncLane", "thread": "ThreadLane", "finish": "Finisher"}
#: a child is gone: the calls it never began, those that died with it, and how
OnExit = Callable[[ChildHandle, list[CallInFlight], list[CallInFlight], Lost], None]


class Forks(Protocol):
    """What a registry asks of a zygote; `_zygote.client.Zygote` says what each means."""

    def fork(self, name: str, orders: ChildOrders, fds: Sequence[int]) -> None: ...
    def kill(self, pid: int) -> None: ...
    def alert(self, pid: int) -> None: ...
    def die(self) -> None: ...


class ChildRegistry:
    """Starts children, tells them to exit, kills them, and removes those that are gone."""

    def __init__(
        self,
        bus: events.Bus,
        orders: ChildOrders,
        limits: RecycleLimits,
        hears: OnFrames,
        on_exit: OnExit,
        clock: Callable[[], float] = time.monotonic,
        breaks: Breaks | None = None,
        cannot_give: CannotGive = lambda *_: None,
        handle: type[ChildHandle] = ChildHandle,
    ) -> None:
        """Make a registry without children.

        :param hears: called with what children say about calls.
        :param on_exit: called when a child is gone.
        :param clock: returns monotonic seconds; all of the lane goes by it.
        :param breaks: called when what a child says cannot be relied on any more; default: `break_off`.
        :param cannot_give: called when a call is too large for any child.
        :param handle: how the lane sees a child.
        """
        self._prefix = _PREFIXES[orders.lane]
        self._handle = handle
        self._bus = bus
        self._orders = orders
        self._limits = limits
        self._hears = hears
        self._on_exit = on_exit
        self._breaks = breaks or self.break_off
        self._cannot_give = cannot_give
        self.clock = clock
        self._zygote: Forks | None = None
        self._by_pid: dict[int, ChildHandle] = {}
        #: the zygote of each child by the child's name: when an app is loaded anew, there are two for a while
        self._forked_by: dict[str, Forks] = {}
        #: zygotes that were killed because they did not answer
        self._killed: list[Forks] = []
        #: the zygote that has died, until its children are closed
        self._dead: Forks | None = None
        self._ordered = 0
        #: children by name, from the order to fork one until it is gone
        self.children: dict[str, ChildHandle] = {}
        self.spawn_failures = SpawnFailures()
        #: notified when supervisors should check the children again
        self.changed = Wakeup()

    @property
    def zygote(self) -> Forks | None:
        """What children are forked from; None while there is none."""
        return self._zygote

    def use(self, zygote: Forks) -> None:
        """Fork from this zygote from now on; children of another one stay that one's."""
        self._zygote = zygote
        self.changed.notify_all()

    def is_of(self, child: ChildHandle, zygote: Forks) -> bool:
        """Tell whether a child was forked, or ordered, from this zygote."""
        return self._forked_by.get(child.name) is zygote

    @property
    def is_losing_zygote(self) -> bool:
        """Children that are removed now died with their zygote."""
        return self._dead is not None or self._zygote is None

    def spawn(self, *, is_apart: bool = False) -> bool:
        """Order one more child. It has a name at once, and takes calls once it is READY.

        :param is_apart: it does not count for the size, and runs one call at a time, that is not to run beside others.
        :returns: whether it was ordered; if not, that counts as a start that failed.
        """
        if self._zygote is None:
            return False
        self._ordered += 1
        child = self._handle(
            name=f"{self._prefix}-{self._ordered}",
            ordered_at=self.clock(),
            limits=limits_for_child(self._limits, chance=random.random()),
            slots=1 if is_apart else self._orders.slots,
            is_apart=is_apart,
        )
        try:
            fds = child.open(self._hear, self._breaks, self._cannot_give)
        except OSError as error:
            # There were no descriptors for its channel.
            self.spawn_failures.count_failure(child, why_no_descriptor(error, len(self.children)), self.clock())
            return False
        self.children[child.name] = child
        self._forked_by[child.name] = self._zygote
        self._zygote.fork(child.name, self._orders, fds)
        return True

    def retire(self, child: ChildHandle, reason: str) -> None:
        """Have a child exit after its calls in flight; one that was told to already is left alone."""
        if child.state in (State.RETIRING, State.GONE):
            return
        child.end(reason, self.clock())
        self._bus.emit(events.ChildRetired(child.name, child.pid, reason))
        self.changed.notify_all()

    def kill(self, child: ChildHandle) -> None:
        """Kill a child and all it started, now, or as soon as its pid is known."""
        child.is_to_be_killed = True
        zygote = self._forked_by.get(child.name)
        if zygote is not None and zygote is not self._dead and child.pid:
            zygote.kill(child.pid)

    def alert(self, child: ChildHandle) -> None:
        """Have a child read its channel, even in the middle of a task."""
        zygote = self._forked_by.get(child.name)
        if zygote is not None and zygote is not self._dead and child.pid:
            zygote.alert(child.pid)

    def give_up(self, child: ChildHandle, reason: str) -> None:
        """Kill a child that is not ready, or not gone, in time; or the zygote itself if it has not even forked it."""
        child.start_failure = reason
        if child.pid:
            self.kill(child)
            return
        zygote = self._forked_by.get(child.name)
        if zygote is not None and zygote is not self._dead:
            self._killed.append(zygote)
            zygote.die()

    def hear_zygote(self, news: News) -> bool:
        """Take the zygote's news; False: it is of no child here."""
        match news:
            case Forked(name=name) | ForkFailed(name=name) if name not in self.children:
                # Another lane's. Or of a zygote that did not answer for a while: the child was removed before the
                # zygote told of its fork.
                return False
            case Exited(pid=pid) if pid not in self._by_pid:
                return False
            case Forked(name=name, pid=pid):
                self._know(self.children[name], pid)
            case ForkFailed(name=name, reason=reason):
                self._remove_dead(self.children[name], Lost(reason, name))
            case Exited(pid=pid, status=status, max_resident=peak):
                child, code = self._by_pid.pop(pid), os.waitstatus_to_exitcode(status)
                if child.fault is not None:
                    self._remove_dead(child, Lost(child.fault, child.name, exitcode=code, peak=peak * 1024))
                    return True
                is_foreign = code == -signal.SIGKILL and not child.is_to_be_killed
                hint = f"not by this pool: out of memory? (peak {peak / 1024:.0f} MiB resident)" if is_foreign else ""
                self._remove_dead(
                    child, Lost(describe_exit(code), child.name, exitcode=code, peak=peak * 1024, hint=hint)
                )
        return True

    def zygote_died(self, zygote: Forks | None = None) -> list[str]:
        """A zygote died, and the kernel has killed its children: hear what they had still sent.

        :param zygote: None: the one from which children are forked.
        :returns: ids of the calls that were at work; `lose_zygote` must follow.
        """
        self._dead = zygote or self._zygote
        if self._dead is self._zygote:
            self._zygote = None
        for child in self._of_dead():
            child.retired_because = child.retired_because or "its zygote died"
            self._drain(child)
        return [job.id for child in self._of_dead() for job in child.begun_calls()]

    def _of_dead(self) -> list[ChildHandle]:
        return [child for child in self.children.values() if self._forked_by.get(child.name) is self._dead]

    @property
    def has_killed_zygote(self) -> bool:
        """The zygote that has died was killed from here, because it did not answer."""
        return self._dead in self._killed

    def lose_zygote(self, cause: str, blamed: Collection[str]) -> list[int]:
        """Close its children, after `zygote_died`.

        :param blamed: ids of the calls for which that counts as the death of their own child.
        :returns: the children's pids, whose process groups may still hold what tasks had started.
        """
        self._killed = [one for one in self._killed if one is not self._dead]
        lost = self._of_dead()
        for child in lost:
            is_blamed = any(job.id in blamed for job in child.begun_calls())
            self._remove_dead(child, Lost(f"its zygote died: {cause}", child.name, blamed=is_blamed))
        # After the children were drained: what they still sent may have told a pid that was not known yet.
        pids = [pid for pid, child in self._by_pid.items() if child in lost]
        for pid in pids:
            del self._by_pid[pid]
        self._dead = None
        self.changed.notify_all()
        return pids

    def end(self, cause: str) -> None:
        """There are no children any more, because the pool ended."""
        self._zygote = None
        for child in list(self.children.values()):
            child.retired_because = child.retired_because or cause
            self._remove_dead(child, Lost(cause, child.name))
        self._by_pid.clear()
        self.changed.notify_all()

    def _know(self, child: ChildHandle, pid: int) -> None:
        """Learn a child's pid, from whichever of zygote and child is heard first."""
        if not child.pid:
            child.pid = pid
            self._by_pid[pid] = child
            self._bus.emit(events.ChildSpawned(child.name, pid))
            if child.is_to_be_killed:
                self.kill(child)

    def break_off(self, child: ChildHandle, why: str) -> None:
        """Kill a child that cannot be relied on: the calls that it began are lost, but for those it answered."""
        child.fault = why
        if child.head is not None and child.head.verdict is None:
            child.head.verdict = Lost(why, child.name)
        if not child.is_to_be_killed:
            self.kill(child)
            self.changed.notify_all()

    def _hear(self, child: ChildHandle, said: Sequence[frames.FromChild]) -> None:
        if not child.was_ready:
            match said[0]:
                case StartFailed(text=text):
                    child.start_failure = text
                    return
                case frames.Ready(pid=pid):
                    self._know(child, pid)
                    if child.start_failure:
                        # It is too late: the child was given up, and is about to be killed.
                        return
                    self.spawn_failures.ever_ready = True
                    self._bus.emit(events.ChildReady(child.name, child.pid))
                    self.changed.notify_all()
                case _:
                    pass
        self._hears(child, said)

    def _drain(self, child: ChildHandle) -> None:
        """Hear what a dead child had sent, or noted on its page, and was not heard yet."""
        outcomes = child.drain_outcomes()
        if outcomes:
            self._hears(child, outcomes)

    def _remove_dead(self, child: ChildHandle, death: Lost) -> None:
        cause = death.cause
        self._drain(child)
        back, lost = child.close()
        del self.children[child.name]
        self._forked_by.pop(child.name, None)
        expected = child.retired_because is not None
        if not child.was_ready and (child.start_failure or not expected):
            self.spawn_failures.count_failure(child, child.start_failure or cause, self.clock())
        elif not expected and not lost and not child.tasks and self.clock() - child.ordered_at < MIN_UPTIME_S:
            self.spawn_failures.count_failure(child, cause, self.clock())
        self._bus.emit(events.ChildGone(child.name, child.pid, cause, expected=expected))
        self._on_exit(child, back, lost, death)
        self.changed.notify_all()
