"""SupervisedLanes: the lanes of a pool and their supervisors, over one zygote.

`Pool` puts functions in front of them, the worker a broker. A call goes to the lane that it names. The lane of prefork
children is always there; another one is made with the lanes, or by the first call for it.
"""

import os
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import anyio
import attrs
from anyio.abc import TaskGroup

from hybridpool import events
from hybridpool._ipc.frames import ChildOrders, Imported
from hybridpool._lanes.base import GivenCall, Job, Publishes
from hybridpool._lanes.children.fd_limit import check_memory_is_readable, ensure_fd_limit
from hybridpool._lanes.children.lane import ChildLane
from hybridpool._lanes.children.registry import Forks
from hybridpool._lanes.prefork.autoscaler import Autoscaler
from hybridpool._lanes.prefork.lane import PreforkLane
from hybridpool._lanes.prefork.memory_watch import watch_memory
from hybridpool._lanes.reconciler import Reconciler
from hybridpool._lanes.shared.lane import SharedLane
from hybridpool._lanes.shared.options import STOP_GRACE_S, SharedOptions
from hybridpool._lanes.snapshot import LaneSnapshot
from hybridpool._lanes.zygote_keeper import ZygoteKeeper
from hybridpool._policy.autoscale import ScaleLimits
from hybridpool._policy.death_blame import DeathBlame
from hybridpool._policy.recycle import RecycleLimits
from hybridpool._task import LaneName
from hybridpool._zygote.client import News
from hybridpool._zygote.interpreter import module_folders
from hybridpool.errors import PoolClosed
from hybridpool.events import POOL_ENDED

#: seconds for killing all children; the zygote has one second before the parent does it itself
KILL_TIMEOUT_S: Final = 2.5


#: the forks between the program's start and this process; to read it is cheaper than to ask the kernel for the pid
_forks_before: Final[list[None]] = []
os.register_at_fork(after_in_child=lambda: _forks_before.append(None))


@attrs.frozen(kw_only=True)
class LaneConfig:
    """What a lane and its supervisors are told at their start."""

    #: children at the start
    size: int
    #: None: the size stays
    scale: ScaleLimits | None
    recycle: RecycleLimits
    orders: ChildOrders
    #: seconds a child may take from the order to fork it until it is READY, and to exit
    start_timeout: float
    #: READY children beyond the size, so that one that retires is replaced at once
    spares: int
    #: starts that may fail in a row while no child was ever READY; None: as many as later
    first_starts: int | None = None
    #: bytes a child may own in the middle of a call; None: no limit
    memory_limit: int | None = None
    #: bytes that children may own together, if their number is to follow the load; None: what cgroup and host leave
    memory_budget: int | None = None
    #: of a lane whose children run several calls at once
    shared: SharedOptions | None = None
    #: the lane is made by the first call for it
    is_lazy: bool = False


class SupervisedLanes(anyio.AsyncContextManagerMixin):
    """Forked children under supervision. Enter it to have them; leaving kills those that are left."""

    def __init__(
        self,
        zygote: ZygoteKeeper,
        configs: Mapping[LaneName, LaneConfig],
        bus: events.Bus,
        publishes: Publishes,
        on_scaled: Callable[[int], None] = lambda _: None,
        finishing: LaneConfig | None = None,
    ) -> None:
        """Supervise lanes.

        :param zygote: started already.
        :param configs: by lane: "process", and others that calls may name; those with a size have children at once.
        :param on_scaled: called with the new size when the number of prefork children follows the load.
        :param finishing: of the child that runs no tasks, and finishes what no other could; made when it is needed.
        """
        self._zygote = zygote
        self._configs = dict(configs)
        self._bus = bus
        self._publishes = publishes
        config = configs["process"]
        #: the prefork lane
        self.lane = PreforkLane(bus, config.recycle, config.orders, publishes, config.spares)
        #: the others that have been made
        self.shared: dict[LaneName, SharedLane] = {}
        #: it takes calls until the end, since children that are lost then leave something to finish
        self._finishing = (
            None
            if finishing is None
            else PreforkLane(bus, finishing.recycle, finishing.orders, publishes, finishing.spares)
        )
        self._supervisors: TaskGroup | None = None
        self._forks: Forks | None = None
        self._death_blame = DeathBlame()
        self._scaling = anyio.CancelScope()
        self._autoscaler = (
            None
            if config.scale is None
            else Autoscaler(self.lane, config.scale, bus, config.memory_budget, on_scaled, self._shared_pids)
        )
        self._runs_functions = not zygote.has_app
        #: the process whose children these are
        self._owner = os.getpid()
        self._forks_before = len(_forks_before)
        #: where modules are found, as children know it
        self._folders: list[object] = list(sys.path)

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        config = self._configs["process"]
        reconciler = Reconciler(self.lane, self._bus, config.start_timeout, config.spares, config.first_starts)
        try:
            check_memory_is_readable(config.orders.memory_watch or config.memory_limit or 0)
            self.ensure_fd_limit(config.size if config.scale is None else config.scale.ceiling)
            self.lane.resize(config.size)
            async with anyio.create_task_group() as supervisors:
                self._supervisors = supervisors
                supervisors.start_soon(self._zygote.keep, self)
                supervisors.start_soon(reconciler.run)
                supervisors.start_soon(self._scale)
                if config.memory_limit is not None:
                    supervisors.start_soon(watch_memory, self.lane, config.memory_limit)
                if self._finishing is not None:
                    supervisors.start_soon(Reconciler(self._finishing, self._bus, config.start_timeout, 0, None).run)
                for name, other in self._configs.items():
                    if name != "process" and other.size and not other.is_lazy:
                        self._make(name)
                yield self
                supervisors.cancel_scope.cancel()
        finally:
            self._supervisors = None
            with anyio.CancelScope(shield=True):
                await self._zygote.close()
            # However it was left, no caller may wait for a call for ever.
            for lane in self._with_finishing():
                lane.abandon(POOL_ENDED)

    def _make(self, name: LaneName) -> SharedLane:
        """Make a lane whose children run several calls at once, and supervise it."""
        config = self._configs.get(name)
        if config is None or config.shared is None or self._supervisors is None:
            raise PoolClosed(f"there is no lane {name!r} here")
        lane = SharedLane(self._bus, config.recycle, config.orders, self._publishes, config.shared, self.lane.clock)
        if not self.lane.takes_calls:
            lane.stop_taking()
        check_memory_is_readable(config.orders.memory_watch)
        self.ensure_fd_limit(config.size)
        lane.resize(config.size)
        self.shared[name] = lane
        if self._forks is not None:
            lane.use_zygote(self._forks)
        self._supervisors.start_soon(
            Reconciler(lane, self._bus, config.start_timeout, config.spares, config.first_starts).run
        )
        return lane

    def _all(self) -> "list[PreforkLane | SharedLane]":
        return [self.lane, *self.shared.values()]

    def _with_finishing(self) -> "list[PreforkLane | SharedLane]":
        return self._all() if self._finishing is None else [*self._all(), self._finishing]

    def ensure_fd_limit(self, size: int) -> None:
        """See to it that there are descriptors for so many more children.

        :raises ConfigError: if this process may not have them.
        """
        ensure_fd_limit(size + self._configs["process"].spares - len(self.lane.snapshot().children))

    @property
    def scale_limits(self) -> ScaleLimits | None:
        """Between which sizes the number of prefork children follows the load; None: it does not."""
        return None if self._autoscaler is None else self._autoscaler.limits

    def scale_within(self, floor: int, ceiling: int) -> None:
        """Change these sizes.

        :raises ConfigError: if there cannot be descriptors for so many children.
        """
        if self._autoscaler is not None:
            self.ensure_fd_limit(ceiling)
            self._autoscaler.limit(floor, ceiling)

    def resize(self, size: int) -> None:
        """Have so many prefork children; see `Lane.resize`.

        :raises ConfigError: if there cannot be descriptors for so many.
        """
        self.ensure_fd_limit(size)
        self.lane.resize(size)

    # ---- calls -------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Run a call in a child of its lane as soon as one is free.

        :raises PoolClosed: if the pool is stopping, or is another process's.
        """
        if self._runs_functions:
            if len(_forks_before) != self._forks_before:
                self.check_process()
            if sys.path != self._folders:
                self._folders = list(sys.path)
                self._zygote.share_folders(module_folders())
        if job.lane == "process":
            self.lane.submit(job)
        else:
            (self.shared.get(job.lane) or self._make(job.lane)).submit(job)

    def submit_unfinished(self, job: Job) -> None:
        """Give a call to a child that finishes what no other could.

        :raises PoolClosed: if there is none, since the app is ours.
        """
        self._finishers().submit(job)

    def resize_finishing(self, size: int) -> None:
        """Have so many children that finish what no other could.

        :raises PoolClosed: if there is none, since the app is ours.
        """
        lane = self._finishers()
        if size > lane.size:
            self.ensure_fd_limit(self.lane.size + size)
        lane.resize(size)

    def _finishers(self) -> PreforkLane:
        if self._finishing is None:
            raise PoolClosed("this app has no child that finishes calls")
        return self._finishing

    def cancel(self, job: Job, grace: float) -> None:
        """Give a call up; see `Lane.cancel`."""
        if job.lane == "process":
            self.lane.cancel(job, grace)
        elif job.lane in self.shared:
            self.shared[job.lane].cancel(job, grace)

    def cancel_messages(self, ids: Collection[str], grace: float) -> list[str]:
        """Give up every call of these messages; returns the ids of those that are here."""
        return [one for lane in self._all() for one in lane.cancel_messages(ids, grace)]

    def withdraw_queued(self, which: Callable[[Job], bool] | None = None) -> list[Job]:
        """Take calls back that no child was given, and return them; their `on_done` is not called."""
        return [job for lane in self._all() for job in lane.withdraw_queued(which)]

    def recall_unbegun(self) -> None:
        """Call back what children of the process lane have not begun, where submitters want to know when it begins."""
        self.lane.recall_unbegun()

    def in_flight(self) -> list[Job]:
        """Return the calls that children were given."""
        return [job for lane in self._all() for job in lane.in_flight()]

    def given_calls(self) -> list[GivenCall]:
        """Return the calls that children were given, and say which of them run."""
        return [call for lane in self._all() for call in lane.given_calls()]

    def waiting_calls(self) -> list[Job]:
        """Return the calls that no child was given."""
        return [job for lane in self._all() for job in lane.waiting_calls()]

    def begun_calls(self) -> list[Job]:
        """Return the calls that children have begun and that have not ended."""
        return [job for lane in self._all() for job in lane.begun_calls()]

    def snapshots(self) -> list[LaneSnapshot]:
        """Return what each lane and its children do at this moment."""
        return [lane.snapshot() for lane in self._with_finishing()]

    def describe(self) -> list[str]:
        """Say of each child, in a line, what it does; for the operator."""
        return [line for seen in self.snapshots() for line in seen.describe()]

    def report_stacks(self) -> None:
        """Have each child that is ready report its stacks; they come as events."""
        for lane in self._all():
            lane.report_stacks()

    def lane_of(self, child: str) -> ChildLane[Any] | None:
        """Return the lane that has a child of that name; None if there is none."""
        return next((lane for lane in self._with_finishing() if lane.has_child(child)), None)

    # ---- the zygote --------------------------------------------------------------------------------------

    def use_zygote(self, zygote: Forks) -> None:
        """Fork from this zygote from now on."""
        self._forks = zygote
        for lane in self._with_finishing():
            lane.use_zygote(zygote)

    def lose_zygote(self, zygote: Forks, cause: str) -> list[int]:
        """A zygote died, and the kernel has killed its children with it; returns their pids."""
        if self._forks is zygote:
            self._forks = None
        # One call, in whatever lane, may have been the cause.
        suspects = [one for lane in self._with_finishing() for one in lane.zygote_died(zygote)]
        is_ours = any(lane.has_killed_zygote for lane in self._with_finishing())
        blamed = self._death_blame.assign_blame(suspects, killed_by_us=is_ours)
        return [pid for lane in self._with_finishing() for pid in lane.lose_zygote(cause, blamed)]

    def hear_zygote(self, news: News) -> None:
        """Take the zygote's news of children."""
        for lane in self._with_finishing():
            if lane.hear_zygote(news):
                return

    async def renew(self, imports: Sequence[str]) -> Imported:
        """Load the app anew, and replace all children by such that have it; calls run on, and new ones are taken.

        It returns when the last child of before has ended. A failure leaves the zygote and the children of before.

        :param imports: further modules to import.
        :raises AppLoadError: if the app cannot be imported any more.
        :raises PoolError: if no process can be started.
        """
        imported = await self._zygote.renew(imports)
        for older in self._zygote.renewed():
            async with anyio.create_task_group() as replacing:
                for lane in self._with_finishing():
                    replacing.start_soon(lane.replace_children_of, older, "the app is loaded anew")
            await self._zygote.drop(older)
        return imported

    def check_process(self) -> None:
        """Refuse a copy of the program: the children are not its own.

        :raises PoolClosed: if this process was forked from the one that has them.
        """
        if len(_forks_before) != self._forks_before:
            raise PoolClosed(
                f"this pool belongs to process {self._owner}, from which this one was forked: open a pool here"
            )

    def stop_taking(self) -> list[Job]:
        """Take no more calls; returns those that no child was given."""
        self._scaling.cancel()
        for lane in self._all():
            lane.stop_taking()
        return self.withdraw_queued()

    async def finish(self) -> None:
        """Wait until no call waits or runs."""
        while any(lane.load for lane in self._all()):
            for lane in self._all():
                await lane.wait_empty()

    async def drain(self, timeout: float | None) -> bool:
        """Let running calls end and every child exit. Call `stop_taking` first.

        :param timeout: seconds; None waits for ever.
        :returns: whether all exited in time; if not, children are still at work.
        """
        lanes = self._all()
        for lane in lanes:
            lane.resize(0)
            for child in lane.snapshot().children:
                lane.retire(child.name, "shutdown")
        deadline = None if timeout is None else self.lane.clock() + timeout
        for lane in lanes:
            while lane.has_children:
                left = None if deadline is None else deadline - lane.clock()
                if left is not None and left <= 0:
                    return False
                await lane.wait_changed(left)
        return True

    async def kill(self) -> None:
        """Kill every child with all it started; each call in flight ends as `Lost`.

        Calls that run beside others are told to stop first, and have a second to clean up.
        It takes a few seconds at most: what is left then (a zygote that does not answer has orders to fork) ends with
        the zygote, when this object is left.
        """
        for lane in self._all():
            lane.resize(0)
            for child in lane.snapshot().children:
                lane.retire(child.name, "shutdown")
        for child in self.lane.snapshot().children:
            self.lane.kill(child.name)
        with anyio.move_on_after(STOP_GRACE_S):
            for shared in self.shared.values():
                shared.stop_calls()
                while shared.has_children:
                    await shared.wait_changed()
        for lane in self._all():
            for child in lane.snapshot().children:
                lane.kill(child.name)
        with anyio.move_on_after(KILL_TIMEOUT_S):
            for lane in self._all():
                while lane.has_children:
                    await lane.wait_changed()

    def _shared_pids(self) -> list[int]:
        return [child.pid for lane in self.shared.values() for child in lane.snapshot().children if child.pid]

    async def _scale(self) -> None:
        with self._scaling:
            if self._autoscaler is not None:
                await self._autoscaler.run()
