"""`ChildLane`: what all lanes of child processes have in common: taking calls, and the life of their children."""

import abc
from collections.abc import Callable, Collection
from typing import Final, Generic, Protocol, TypeVar

from hybridpool import events
from hybridpool._lanes.base import GivenCall, Job
from hybridpool._lanes.children.handle import ChildHandle
from hybridpool._lanes.children.registry import ChildRegistry, Forks
from hybridpool._lanes.children.stack_reports import StackReports
from hybridpool._lanes.snapshot import LaneSnapshot
from hybridpool._lanes.wakeup import Wakeup
from hybridpool._outcome import Cancelled, Lost
from hybridpool._policy.lifecycle import State
from hybridpool._zygote.client import News
from hybridpool.errors import PoolClosed


class HoldsCalls(Protocol):
    """A lane's dispatcher, as far as it does not matter how many calls a child runs at once."""

    #: notified when no call waits or runs
    emptied: Wakeup

    @property
    def load(self) -> int: ...
    def add(self, job: Job) -> None: ...
    def take_out(self, job: Job) -> bool: ...
    def waiting_jobs(self) -> list[Job]: ...
    def in_flight(self) -> list[Job]: ...
    def withdraw(self, which: Callable[[Job], bool] | None) -> list[Job]: ...
    def notify_load(self) -> None: ...


#: states of a child that takes calls, or is about to
_TAKE_CALLS: Final = (State.STARTING, State.IDLE, State.BUSY)
D = TypeVar("D", bound=HoldsCalls)


class ChildLane(abc.ABC, Generic[D]):
    """Takes calls for its children. Which child gets which call, and what becomes of it, is each lane's own."""

    _dispatcher: D

    def __init__(self, bus: events.Bus, registry: ChildRegistry, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._registry = registry
        self._stack_reports = StackReports(bus, registry.children.values, registry.alert)
        self._is_closed = False
        self.clock = clock

    # ---- calls -------------------------------------------------------------------------------------------

    @property
    def load(self) -> int:
        """How many calls wait or run."""
        return self._dispatcher.load

    @property
    def takes_calls(self) -> bool:
        """It has not been told to take no more."""
        return not self._is_closed

    def submit(self, job: Job) -> None:
        """Take a call; it runs as soon as a child has room for it.

        :raises PoolClosed: if the lane takes no more calls.
        """
        if self._is_closed:
            raise PoolClosed("the pool is stopping and takes no more calls")
        self._dispatcher.add(job)

    def cancel(self, job: Job, grace: float) -> None:
        """Give a call up: take it back if it has not begun, else stop it.

        :param grace: seconds that a call which runs has to stop by itself.
        """
        if job.cancelled_at is not None:
            return
        job.cancelled_at, job.grace = self.clock(), grace
        if self._dispatcher.take_out(job):
            job.on_done(job, Cancelled(""), "", 0.0)
            self._dispatcher.notify_load()
        else:
            self._stop(job)

    @abc.abstractmethod
    def _stop(self, job: Job, /) -> None:
        """Stop a cancelled call that a child was given."""

    def cancel_messages(self, ids: Collection[str], grace: float) -> list[str]:
        """Give up every call of these messages, whether it has begun or not.

        :param grace: as in `cancel`.
        :returns: the ids of those that are here.
        """
        jobs = [job for job in (*self._dispatcher.waiting_jobs(), *self._dispatcher.in_flight()) if job.id in ids]
        for job in jobs:
            self.cancel(job, grace)
        return list(dict.fromkeys(job.id for job in jobs))

    def stop_taking(self) -> None:
        """Take no more calls."""
        self._is_closed = True

    def withdraw_queued(self, which: Callable[[Job], bool] | None = None) -> list[Job]:
        """Take calls back that no child was given, and return them; their `on_done` is not called.

        :param which: tells of a call whether to take it back; None: all.
        """
        return self._dispatcher.withdraw(which)

    def in_flight(self) -> list[Job]:
        """Return the calls that children were given."""
        return self._dispatcher.in_flight()

    def given_calls(self) -> list[GivenCall]:
        """Return the calls that children were given, and say which of them run."""
        now = self.clock()
        return [
            GivenCall(call.job, child.pid, now - call.since if place < child.slots else None)
            for child in self._registry.children.values()
            for place, call in enumerate(child.calls.values())
        ]

    def waiting_calls(self) -> list[Job]:
        """Return the calls that no child was given."""
        return self._dispatcher.waiting_jobs()

    def begun_calls(self) -> list[Job]:
        """Return the calls that children have begun and that have not ended, as the shared pages tell."""
        return [job for child in self._registry.children.values() for job in child.begun_calls()]

    def abandon(self, cause: str) -> None:
        """End every call as lost: there are no children any more."""
        self.stop_taking()
        self._registry.end(cause)
        # After the children's end, which puts back the calls that they had not begun.
        for job in self.withdraw_queued():
            job.on_done(job, Lost(cause, ""), "", 0.0)

    async def wait_empty(self) -> None:
        """Wait until no call waits or runs."""
        while self._dispatcher.load:
            await self._dispatcher.emptied.wait()

    # ---- children ----------------------------------------------------------------------------------------

    def report_stacks(self) -> None:
        """Have each child report its stacks; they come as events."""
        self._stack_reports.ask()

    @abc.abstractmethod
    def resize(self, size: int) -> None:
        """Have at most so many children work at once; the reconciler brings their number to that."""

    @abc.abstractmethod
    def snapshot(self) -> LaneSnapshot:
        """Return what the lane and its children do at this moment."""

    @abc.abstractmethod
    def _leaves_idle(self, child: ChildHandle) -> None:
        """Take a child that is about to retire from those that wait for a call."""

    def spawn(self) -> bool:
        """Order one more child; it takes calls once it is ready.

        :returns: whether it was ordered; if not, that counts as a start that failed.
        """
        return self._registry.spawn()

    def retire(self, child: str, reason: str, *, once_replaced: bool = False) -> None:
        """Have a child exit after the calls it was given.

        :param once_replaced: it takes calls until another child is ready in its place. The first reason stays.
        """
        handle = self._registry.children.get(child)
        if handle is None:
            return
        if once_replaced:
            handle.retires_because = handle.retires_because or reason
            self._registry.changed.notify_all()
            return
        if handle.state is State.IDLE:
            self._leaves_idle(handle)
        self._registry.retire(handle, reason)

    def keep(self, child: str) -> None:
        """Do not replace a child after all; nothing changes if it was told to exit already."""
        handle = self._registry.children.get(child)
        if handle is not None:
            handle.retires_because = None

    def kill(self, child: str) -> None:
        """Kill a child and all that its tasks started, now, or as soon as its pid is known."""
        handle = self._registry.children.get(child)
        if handle is not None:
            self._registry.kill(handle)

    def give_up(self, child: str, reason: str) -> None:
        """Kill a child that is not ready, or not gone, in time; or the zygote, if it has not even forked it."""
        handle = self._registry.children.get(child)
        if handle is not None:
            self._registry.give_up(handle, reason)

    # ---- the zygote --------------------------------------------------------------------------------------

    def use_zygote(self, zygote: Forks) -> None:
        """Fork from this zygote from now on."""
        self._registry.use(zygote)

    @property
    def has_killed_zygote(self) -> bool:
        """The zygote that has died was killed by this lane, because it did not answer."""
        return self._registry.has_killed_zygote

    def zygote_died(self, zygote: Forks | None = None) -> list[str]:
        """A zygote died, and its children with it; returns the ids of the calls that were at work.

        `lose_zygote` must follow.

        :param zygote: None: the one from which children are forked.
        """
        return self._registry.zygote_died(zygote)

    def lose_zygote(self, cause: str, blamed: Collection[str]) -> list[int]:
        """Close the children of the zygote that has died.

        :param blamed: ids of the calls for which that counts as the death of their own child.
        :returns: the children's pids, whose process groups may still hold what tasks had started.
        """
        return self._registry.lose_zygote(cause, blamed)

    def hear_zygote(self, news: News) -> bool:
        """Take the zygote's news of children; False: it is of no child of this lane."""
        return self._registry.hear_zygote(news)

    def has_children_of(self, zygote: Forks) -> bool:
        """Tell whether there are children of this zygote."""
        return any(self._registry.is_of(child, zygote) for child in self._registry.children.values())

    async def replace_children_of(self, zygote: Forks, reason: str) -> None:
        """Replace the children of a zygote, one after the other: each works until another is ready in its place.

        It returns when all of them have ended; they finish their calls. If the zygote from which others are forked dies
        meanwhile, its successor forks them.
        """
        while self.has_children_of(zygote):
            older = next(
                (
                    child
                    for child in self._registry.children.values()
                    if child.state in _TAKE_CALLS and not child.is_apart and self._registry.is_of(child, zygote)
                ),
                None,
            )
            if older is not None and older.retires_because is None:
                self.retire(older.name, reason, once_replaced=True)
            await self._registry.changed.wait()

    # ---- watching ----------------------------------------------------------------------------------------

    @property
    def has_children(self) -> bool:
        """There are children, or some were ordered."""
        return bool(self._registry.children)

    def has_child(self, child: str) -> bool:
        """Tell whether there is a child of that name, or one was ordered."""
        return child in self._registry.children

    async def wait_changed(self, timeout: float | None = None) -> None:
        """Wait until the number or the state of the children changes.

        :param timeout: seconds after which to return all the same; None: no limit.
        """
        await self._registry.changed.wait(timeout)
