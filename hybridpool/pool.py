"""Pool: a lane and its supervisors, without a broker. The worker is this pool with a broker in front of it."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self

import anyio
import attrs

from hybridpool import events
from hybridpool.child.frames import ChildOrders
from hybridpool.lanes.job import Job
from hybridpool.lanes.process import ProcessLane, Publishes
from hybridpool.outcome import Lost
from hybridpool.policy.autoscale import ScaleLimits
from hybridpool.policy.recycle import RecycleLimits
from hybridpool.supervisors.autoscaler import autoscale
from hybridpool.supervisors.staff import StaffKeeper
from hybridpool.supervisors.zygote import ZygoteKeeper


@attrs.frozen(kw_only=True)
class PoolConfig:
    """What a pool is told at its start."""

    #: children at the start
    size: int
    #: None: the size stays
    scale: ScaleLimits | None
    recycle: RecycleLimits
    orders: ChildOrders
    #: seconds a child may take from the order to fork it to READY
    birth_timeout: float


class Pool(anyio.AsyncContextManagerMixin):
    """Forked children under supervision. Enter it to have them; leaving kills those that are left."""

    def __init__(self, zygote: ZygoteKeeper, config: PoolConfig, bus: events.Bus, publishes: Publishes) -> None:
        """:param zygote: started already."""
        self._zygote = zygote
        self._config = config
        self._bus = bus
        self.lane = ProcessLane(bus, config.recycle, config.orders, publishes)
        self._scaling = anyio.CancelScope()

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        self.lane.resize(self._config.size)
        try:
            async with anyio.create_task_group() as supervisors:
                supervisors.start_soon(self._zygote.keep, self.lane.nursery)
                supervisors.start_soon(StaffKeeper(self.lane, self._bus, self._config.birth_timeout).run)
                supervisors.start_soon(self._scale)
                yield self
                supervisors.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._zygote.close()
            # Whatever ended the pool, its children are gone: nobody waits for them for ever, nothing stays open.
            for job in self.lane.take_back():
                job.on_done(job, Lost("the pool ended", ""), "", 0.0)
            self.lane.nursery.lose_zygote("the pool ended")

    def submit(self, job: Job) -> None:
        """Run a call in a child as soon as one is free.

        :raises PoolClosed: if the pool is stopping.
        """
        self.lane.submit(job)

    def stop_taking(self) -> list[Job]:
        """Take no more calls; returns those that no child has begun."""
        self._scaling.cancel()
        return self.lane.take_back()

    async def drain(self, timeout: float | None) -> bool:
        """Let running calls end and every child go. Call `stop_taking` first.

        :param timeout: seconds; None waits for ever.
        :returns: whether all went in time; if not, children are still at work.
        """
        nursery = self.lane.nursery
        self.lane.resize(0)
        for link in list(nursery.links.values()):
            self.lane.retire(link, "shutdown")
        deadline = None if timeout is None else time.monotonic() + timeout
        while nursery.links:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            await nursery.changed.wait(left)
        return True

    async def kill(self) -> None:
        """Kill every child with all it started; each call in hand ends as `Lost`."""
        nursery = self.lane.nursery
        self.lane.resize(0)
        for link in list(nursery.links.values()):
            self.lane.retire(link, "shutdown")
            nursery.kill(link)
        while nursery.links:
            await nursery.changed.wait()

    async def _scale(self) -> None:
        with self._scaling:
            if self._config.scale is not None:
                await autoscale(self.lane, self._config.scale, self._bus)
