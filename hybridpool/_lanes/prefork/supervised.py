"""SupervisedLane: a prefork lane and its supervisors. `Pool` puts functions in front of it, the worker a broker."""

import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final, Self

import anyio
import attrs

from hybridpool import events
from hybridpool._ipc.frames import ChildOrders
from hybridpool._lanes.base import Job
from hybridpool._lanes.prefork.autoscaler import Autoscaler
from hybridpool._lanes.prefork.fd_limit import check_memory_is_readable, ensure_fd_limit
from hybridpool._lanes.prefork.lane import PreforkLane, Publishes
from hybridpool._lanes.prefork.memory_watch import watch_memory
from hybridpool._lanes.prefork.reconciler import Reconciler
from hybridpool._lanes.prefork.zygote_keeper import ZygoteKeeper
from hybridpool._policy.autoscale import ScaleLimits
from hybridpool._policy.recycle import RecycleLimits
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


class SupervisedLane(anyio.AsyncContextManagerMixin):
    """Forked children under supervision. Enter it to have them; leaving kills those that are left."""

    def __init__(
        self,
        zygote: ZygoteKeeper,
        config: LaneConfig,
        bus: events.Bus,
        publishes: Publishes,
        on_scaled: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Supervise a lane.

        :param zygote: started already.
        :param on_scaled: called with the new size when the number of children follows the load.
        """
        self._zygote = zygote
        self._config = config
        self._bus = bus
        self._on_scaled = on_scaled
        self.lane = PreforkLane(bus, config.recycle, config.orders, publishes, config.spares)
        self._scaling = anyio.CancelScope()
        self._runs_functions = not zygote.has_app
        #: the process whose children these are
        self._owner = os.getpid()
        self._forks_before = len(_forks_before)
        #: where modules are found, as children know it
        self._folders: list[object] = list(sys.path)

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        config = self._config
        reconciler = Reconciler(self.lane, self._bus, config.start_timeout, config.spares, config.first_starts)
        try:
            check_memory_is_readable(config.orders.memory_watch or config.memory_limit or 0)
            self.ensure_fd_limit(config.size if config.scale is None else config.scale.ceiling)
            self.lane.resize(config.size)
            async with anyio.create_task_group() as supervisors:
                supervisors.start_soon(self._zygote.keep, self.lane)
                supervisors.start_soon(reconciler.run)
                supervisors.start_soon(self._scale)
                if config.memory_limit is not None:
                    supervisors.start_soon(watch_memory, self.lane, config.memory_limit)
                yield self
                supervisors.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._zygote.close()
            # However it was left, no caller may wait for a call for ever.
            self.lane.abandon(POOL_ENDED)

    def ensure_fd_limit(self, size: int) -> None:
        """See to it that there are descriptors for so many children.

        :raises ConfigError: if this process may not have them.
        """
        ensure_fd_limit(size + self._config.spares - len(self.lane.snapshot().children))

    def submit(self, job: Job) -> None:
        """Run a call in a child as soon as one is free.

        :raises PoolClosed: if the pool is stopping, or is another process's.
        """
        if self._runs_functions:
            if len(_forks_before) != self._forks_before:
                self.check_process()
            if sys.path != self._folders:
                self._folders = list(sys.path)
                self._zygote.share_folders(module_folders())
        self.lane.submit(job)

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
        self.lane.stop_taking()
        return self.lane.withdraw_queued()

    async def finish(self) -> None:
        """Wait until no call waits or runs."""
        await self.lane.wait_empty()

    async def drain(self, timeout: float | None) -> bool:
        """Let running calls end and every child exit. Call `stop_taking` first.

        :param timeout: seconds; None waits for ever.
        :returns: whether all exited in time; if not, children are still at work.
        """
        lane = self.lane
        lane.resize(0)
        for child in lane.snapshot().children:
            lane.retire(child.name, "shutdown")
        deadline = None if timeout is None else lane.clock() + timeout
        while lane.has_children:
            left = None if deadline is None else deadline - lane.clock()
            if left is not None and left <= 0:
                return False
            await lane.wait_changed(left)
        return True

    async def kill(self) -> None:
        """Kill every child with all it started; each call in flight ends as `Lost`.

        It takes a few seconds at most: what is left then (a zygote that does not answer has orders to fork) ends with
        the zygote, when this object is left.
        """
        lane = self.lane
        lane.resize(0)
        for child in lane.snapshot().children:
            lane.retire(child.name, "shutdown")
            lane.kill(child.name)
        with anyio.move_on_after(KILL_TIMEOUT_S):
            while lane.has_children:
                await lane.wait_changed()

    async def _scale(self) -> None:
        with self._scaling:
            if self._config.scale is not None:
                await Autoscaler(
                    self.lane, self._config.scale, self._bus, self._config.memory_budget, self._on_scaled
                ).run()
