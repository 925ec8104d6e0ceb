"""One schedule: the real lane and supervisors, fake children, and what the plan of a seed does to them."""
# pyright: reportPrivateUsage=false

import asyncio
import random
from asyncio import TimerHandle
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Final

import anyio

from hybridpool import events
from hybridpool._ipc.frames import ChildOrders, Enqueue, EnqueueAnswer
from hybridpool._lanes.base import Job
from hybridpool._lanes.children.handle import ChildHandle
from hybridpool._lanes.prefork.autoscaler import Autoscaler
from hybridpool._lanes.prefork.lane import PreforkLane
from hybridpool._lanes.supervised import LaneConfig, SupervisedLanes
from hybridpool._policy.headroom import Fit, fit
from hybridpool._task import LaneName
from hybridpool.errors import AppLoadError, ChildStartFailed
from tests.simulation.checks import Checks
from tests.simulation.plan import CallPlan, Ending
from tests.simulation.world import Fate, World
from tests.simulation.zygote import FakeKeeper

#: virtual seconds in which everything must come to rest, whatever happened
_PATIENCE: Final = 300.0
#: virtual seconds, beyond the longest limit of a call
_AFTERMATH: Final = 10.0
#: virtual seconds that killing takes at most
_PARTING: Final = 5.0
_ORDERS: Final = ChildOrders(0, "", False, 0)


class _Left(Exception):
    """The pool's user leaves it by an exception."""


class _Shuffled(set[ChildHandle]):
    """A set whose order is the seed's: that of a plain one depends on addresses."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    def __iter__(self) -> Iterator[ChildHandle]:
        children = sorted(super().__iter__(), key=lambda child: child.name)
        self._chance.shuffle(children)
        return iter(children)


class _VirtualLane(SupervisedLanes):
    """A lane with its supervisors that goes by virtual time."""

    def __init__(self, world: World, keeper: FakeKeeper, bus: events.Bus) -> None:
        plan = world.plan
        config = LaneConfig(
            size=plan.scale.floor if plan.scale else plan.size,
            scale=plan.scale,
            recycle=plan.recycle,
            orders=_ORDERS,
            start_timeout=plan.start_timeout,
            spares=plan.spares,
        )

        def publish(frame: Enqueue, answer: Callable[[EnqueueAnswer], None]) -> None:
            world.loop.call_later(world.dice.among(0.0, 0.001, 0.03), answer, EnqueueAnswer(frame.ticket, None))

        configs: dict[LaneName, LaneConfig] = {"process": config}
        for name, lane in plan.lanes.items():
            configs[name] = LaneConfig(
                size=lane.size,
                scale=None,
                recycle=lane.recycle,
                orders=ChildOrders(0, "", False, 0, lane=name, slots=lane.slots),
                start_timeout=plan.start_timeout,
                spares=0,
                shared=lane.options,
                is_lazy=lane.is_lazy,
            )
        super().__init__(keeper, configs, bus, publish)
        self.lane = PreforkLane(bus, plan.recycle, _ORDERS, publish, plan.spares, world.loop.time)
        self.lane._dispatcher.busy = _Shuffled(world.chance)

    async def _scale(self) -> None:
        with self._scaling:
            scale = self._configs["process"].scale
            if scale is not None:
                await _VirtualScaler(self.lane, scale, self._bus, None).run()


class _VirtualScaler(Autoscaler):
    """The autoscaler with memory in plenty: to read it takes a thread, and so real time."""

    async def _fit(self, wanted: int) -> Fit:
        await anyio.sleep(0.02)
        return fit(size=self._lane.size, wanted=wanted, heaviest=0, bounds=())


class Schedule:
    """Does to a lane what a plan says."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plan = world.plan
        self._timers: list[TimerHandle] = []
        self._renewing: asyncio.Task[None] | None = None
        bus = events.Bus()
        self._keeper = FakeKeeper(world, bus)
        self._supervised = _VirtualLane(world, self._keeper, bus)
        self.lane = self._supervised.lane
        self._checks = checks = Checks(world, self._supervised)
        bus.subscribe(checks.hear)
        world.loop.watch(checks.each_turn, checks.each_leap)

    async def play(self) -> None:
        """Run from the first call to the last child's end.

        :raises TimeoutError: if it does not come to rest.
        """
        await self._keeper.start()
        try:
            async with self._supervised:
                self._set_off()
                with anyio.fail_after(_PATIENCE):
                    await self._to_the_end()
        except* (_Left, ChildStartFailed):
            # That a pool gives up where starts fail again and again is a promise too.
            self._world.counts["given up"] += 1
        finally:
            for timer in self._timers:
                timer.cancel()
            if self._renewing is not None:
                self._renewing.cancel()
                await asyncio.wait((self._renewing,))
        # What is still set for calls that have ended finds nothing to do.
        await anyio.sleep(_AFTERMATH)

    def check_end(self) -> None:
        """:raises PromiseBroken: if a call is lost, or anything is left."""
        world, dispatcher = self._world, self.lane._dispatcher
        for fate in world.fates.values():
            world.require(fate.ended is not None, fate.job.id, "never ended")
        self._require_no_children()
        left = (dispatcher.running, len(dispatcher.queue), len(dispatcher.idle), len(dispatcher.busy))
        world.require(not any(left), "the dispatcher is not empty:", *left)
        for lane in self._supervised.shared.values():
            beside = lane._dispatcher
            world.require(
                not beside.load, "the dispatcher of a shared lane is not empty:", beside.running, beside.waiting
            )
        world.require(not world.loop.timers(), "timers are left:", world.loop.timers())
        world.require(not world.loop.watched(), "descriptors are left on the loop:", world.loop.watched())

    def _require_no_children(self) -> None:
        for lane in self._supervised._all():
            self._world.require(not lane.has_children, "children are left:", *lane._registry.children)

    # ---- the plan ----------------------------------------------------------------------------------------

    def _set_off(self) -> None:
        plan = self._plan
        for call in plan.calls:
            self._at(call.at, partial(self._submit, call))
        for moment, size in plan.resizes:
            self._at(moment, partial(self._resize, size))
        for moment, seconds in plan.jumps:
            self._at(moment, partial(self._jump, seconds))
        for call in plan.calls:
            # What a worker does that has lost its connection.
            if call.number % 7 == 0:
                self._at(call.at + call.seconds, self.lane.recall_unbegun)
        for moment in plan.zygote_deaths:
            self._at(moment, self._lose_zygote)
        # Of their own: with them the plans stay as they were.
        dice = random.Random(f"renewals of {self._world.seed}")
        if dice.random() < 0.2:
            for _ in range(dice.choice((1, 1, 2))):
                self._at(dice.uniform(0.0, max(call.at for call in plan.calls)), self._renew)

    def _at(self, moment: float, act: Callable[[], None]) -> None:
        self._timers.append(self._world.loop.call_at(moment, lambda: None if self._world.is_ending else act()))

    def _submit(self, plan: CallPlan) -> None:
        world = self._world
        job = Job(
            task=plan.task,
            id=f"{plan.task}#{plan.number}",
            content_type="",
            body=b"0" * plan.bulk[0],
            on_done=world.ended,
            soft_limit=plan.soft,
            hard_limit=plan.hard,
            on_begun=world.seen_begun if plan.reports_begin and plan.lane == "process" else None,
            may_start=self._is_void if plan.is_void else None,
            lane=plan.lane,
            may_rerun=plan.may_rerun,
            concurrency=self._plan.quotas.get(plan.task),
        )
        world.note("submit", job.id)
        world.counts["calls"] += 1
        world.fates[job.id] = Fate(plan, job)
        self._supervised.submit(job)
        if plan.cancel_at is not None:
            self._at(plan.cancel_at, partial(self._cancel, job, plan.grace))

    def _cancel(self, job: Job, grace: float) -> None:
        if self._world.fates[job.id].ended is None:
            self._world.note("cancel", job.id)
            self._supervised.cancel(job, grace)

    def _is_void(self, job: Job) -> bool:
        self._world.fates[job.id].end("void")
        return False

    def _resize(self, size: int) -> None:
        self._world.note("resized to", size)
        self._checks.resized(size)
        self.lane.resize(size)

    def _jump(self, seconds: float) -> None:
        self._world.note("the clock jumps", seconds)
        self._world.lateness += seconds
        self._world.loop.jump(seconds)

    def _renew(self) -> None:
        """What a worker does that is told to load its app anew: as it does, one after the other."""
        if self._renewing is None or self._renewing.done():
            self._world.note("the app is loaded anew")
            self._world.counts["renewals"] += 1
            self._renewing = self._world.loop.create_task(self._load_anew())

    async def _load_anew(self) -> None:
        with suppress(AppLoadError):
            await self._supervised.renew(())

    def _lose_zygote(self) -> None:
        if self._keeper.fake is not None:
            self._keeper.fake.die()

    # ---- the end -----------------------------------------------------------------------------------------

    async def _to_the_end(self) -> None:
        world, supervised = self._world, self._supervised
        if self._plan.ending is Ending.ORDERLY:
            await anyio.sleep(max(call.at for call in self._plan.calls))
            await supervised.finish()
            world.is_quiet = True
            await self._rest()
        else:
            await anyio.sleep(self._plan.ends_at)
        world.note("the end:", self._plan.ending.value)
        world.is_ending = True
        if self._plan.ending is Ending.ABANDONED:
            raise _Left
        for job in supervised.stop_taking():
            world.fates[job.id].end("taken back")
        if self._plan.ending is Ending.ORDERLY:
            went = await supervised.drain(_PATIENCE / 2)
            if not went:
                self._require_no_children()
        elif self._plan.ending is Ending.COLD or not await supervised.drain(world.dice.among(0.05, 100.0)):
            await self._kill()

    async def _kill(self) -> None:
        # A zygote that hangs is given up with the failed starts it was to make.
        with anyio.move_on_after(_PARTING + self._plan.start_timeout) as timing:
            await self._supervised.kill()
        self._world.require(not timing.cancelled_caught, "the children did not die")

    async def _rest(self) -> None:
        """Wait until the number of children is complete: whatever went wrong before, a quiet pool recovers."""
        for shared in self._supervised.shared.values():
            while sum(not child.is_being_replaced for child in shared.snapshot().idle) != shared.size:
                await shared.wait_changed(1.0)
        lane, need = self.lane, self.lane.size + self._plan.spares
        while sum(not child.is_being_replaced for child in lane.snapshot().idle) != need:
            need = lane.size + self._plan.spares
            await lane.wait_changed(1.0)
