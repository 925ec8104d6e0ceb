"""What must hold at every moment, by the lane's own books and by the truth."""
# pyright: reportPrivateUsage=false

from collections import Counter, deque
from typing import Final

from hybridpool import events
from hybridpool._lanes.shared.lane import SharedLane
from hybridpool._lanes.supervised import SupervisedLanes
from hybridpool._policy.lifecycle import State
from tests.simulation.world import World

#: seconds within which a child of a calm schedule is READY after it was ordered, with all that may delay the order
_START_S: Final = 0.05
#: seconds that the pool may take to grow
_GROWTH_S: Final = 0.1
#: seconds
_ROUNDING_S: Final = 1e-5


class Checks:
    """The promises about the pool as a whole."""

    def __init__(self, world: World, supervised: SupervisedLanes) -> None:
        self._world = world
        self._supervised = supervised
        self._lane = supervised.lane
        #: shared lanes of which starts have failed, and the number of children has not been complete since
        self._failing: set[str] = set()
        #: at the last turn
        self._busy_before = self._size_before = 0
        #: moments at which children were recycled, of late
        self._recycled: deque[float] = deque()
        self._was_full = False
        #: starts have failed, and the number of children has not been complete since
        self._has_failed = False
        #: since when the size has been less than the load asks for
        self._short_since: float | None = None

    def hear(self, event: object) -> None:
        """Count what the lane tells."""
        world = self._world
        match event:
            case events.ChildRetired(child=name, reason=reason):
                world.note("retires", name, reason)
                if reason.startswith("max_"):
                    world.counts["recycles"] += 1
                if reason.startswith("max_tasks") and name in self._lane._registry.children:
                    self._recycled.append(world.loop.time())
            case events.ChildGone(child=name, cause=cause):
                world.note("gone", name, cause)
            case events.ChildReady(child=name):
                world.note("ready", name)
            case events.PoolScaled(before=before, after=after):
                world.note("scales", f"{before} to {after}")
                self.resized(after)
                world.counts["scalings"] += 1
            case events.ChildStartFailed(cause=reason):
                world.note("start failed", reason)
                world.counts["failed starts"] += 1
            case _:
                pass

    def resized(self, size: int) -> None:
        """Hear of a size that may hold for less than a turn."""
        self._size_before = max(self._size_before, size)

    def each_turn(self) -> None:
        """Between two turns of the loop, the books agree with one another.

        :raises PromiseBroken: if they do not.
        """
        world, dispatcher, children = self._world, self._lane._dispatcher, self._lane._registry.children.values()
        if world.failure is not None:
            raise world.failure
        in_flight = [call.job for child in children for call in child.calls.values()]
        world.require(
            dispatcher.running == len(in_flight),
            "the dispatcher counts",
            dispatcher.running,
            "calls at work of",
            len(in_flight),
        )
        places = Counter(job.id for job in (*in_flight, *dispatcher.waiting_jobs()))
        for lane in self._supervised.shared.values():
            places.update(self._check_books(lane))
        for fate in world.fates.values():
            count = places[fate.job.id]
            world.require(count == (fate.ended is None), fate.job.id, "is in", count, "places; ended:", fate.ended)
        idle = [child for child in children if child.state is State.IDLE]
        world.require(
            len(idle) == len(dispatcher.idle) and set(idle) == set(dispatcher.idle),
            "idle children are not all on the list",
        )
        busy = {child for child in children if child.calls}
        world.require(busy == set(dispatcher.busy), "busy children are not all on the list")
        is_growing = len(busy) > self._busy_before
        size = max(dispatcher.size, self._size_before)
        world.require(len(busy) <= size or not is_growing, len(busy), "children are busy, size", size)
        self._busy_before, self._size_before = len(busy), dispatcher.size

    def _check_books(self, lane: SharedLane) -> Counter[str]:
        """Return where the calls of a shared lane are."""
        world, dispatcher = self._world, lane._dispatcher
        children = dispatcher.children()
        in_flight = sum(len(child.calls) for child in children)
        world.require(
            dispatcher.running == in_flight, "the dispatcher counts", dispatcher.running, "calls at work of", in_flight
        )
        for child in children:
            world.require(len(child.calls) <= child.slots, child.name, "has more calls than slots")
            is_alone = child.is_apart or not any(call.job.is_apart for call in child.calls.values())
            world.require(is_alone, "a call that is to run apart is in", child.name)
            is_busy = child.state in (State.BUSY, State.RETIRING) if child.calls else child.state is not State.BUSY
            world.require(is_busy, child.name, "is", child.state, "with", len(child.calls), "calls")
            known = child.calls.keys()
            world.require(child.given_up <= known, child.name, "has given up calls that it does not have")
            world.require(child.timers.keys() <= known, child.name, "has timers of calls that have ended")
        return Counter(job.id for job in (*dispatcher.waiting_jobs(), *lane.in_flight()))

    def each_leap(self) -> None:
        """Before time passes, everything that can be done has been done.

        :raises PromiseBroken: if something has not.
        """
        world, dispatcher = self._world, self._lane._dispatcher
        if world.is_ending:
            return
        is_idle = dispatcher.queue and dispatcher.idle and len(dispatcher.busy) < dispatcher.size
        world.require(not is_idle, "a call waits although a child is free")
        self._check_scale()
        self._check_children()
        self._check_recycling()
        for name, lane in self._supervised.shared.items():
            self._check_shared(name, lane)

    def _check_shared(self, name: str, lane: SharedLane) -> None:
        world, dispatcher, registry = self._world, lane._dispatcher, lane._registry
        children = dispatcher.children()
        has_room = any(child.takes_calls and not child.is_apart for child in children)
        world.require(not dispatcher.queue or not has_room, "a call waits although a child has room")
        apart = [child for child in children if child.is_apart]
        world.require(
            len(apart) <= 1 or any(one.state is State.RETIRING for one in apart), "several children run apart"
        )
        # One that is to be killed is on its way, however long its zygote hangs.
        left = [child for child in apart if child.state is State.IDLE and not child.is_to_be_killed]
        world.require(not left, "a child that ran apart is left")
        if registry.spawn_failures.failed:
            self._failing.add(name)
        if registry.zygote is None or name in self._failing:
            if not registry.spawn_failures.failed:
                self._failing.discard(name)
            return
        is_ordered = apart or dispatcher._order is not None
        world.require(not dispatcher.apart or is_ordered, "a call waits to run apart, and no child is forked for it")
        # One that starts and is to be replaced counts: what replaces it is forked when it is there.
        staying = [
            child
            for child in children
            if child.state is State.STARTING or (not child.is_being_replaced and child.state is not State.RETIRING)
        ]
        now = world.loop.time()
        have = sum(
            child.state is not State.STARTING or now - child.ordered_at < world.plan.start_timeout + _ROUNDING_S
            for child in staying
        )
        world.require(have >= lane.size, "there are", have, "children and none is forked; needed:", lane.size)
        serving = [child for child in staying if child.state is not State.STARTING]
        is_surplus = len(serving) > lane.size and any(child.state is State.IDLE for child in serving)
        world.require(not is_surplus, "there are", have, "children and none retires; needed:", lane.size)

    def _check_scale(self) -> None:
        world, dispatcher, scale = self._world, self._lane._dispatcher, self._world.plan.scale
        if scale is None or dispatcher.size >= min(dispatcher.demand, scale.ceiling):
            self._short_since = None
            return
        now = world.loop.time()
        if self._short_since is None:
            self._short_since = now
        is_late = now - self._short_since > _GROWTH_S + world.lateness
        world.require(not is_late, "the size stays", dispatcher.size, "at a load of", dispatcher.demand)

    def _check_children(self) -> None:
        world, registry, now = self._world, self._lane._registry, self._world.loop.time()
        need = self._lane.size + world.plan.spares
        self._has_failed = self._has_failed or bool(registry.spawn_failures.failed)
        if registry.zygote is None:
            return
        children = self._lane.snapshot().children
        staying = [child for child in children if child.is_serving and not child.is_being_replaced]
        ages = [now - child.ordered_at for child in children if child.state is State.STARTING]
        have = len(staying) + sum(age < world.plan.start_timeout + _ROUNDING_S for age in ages)
        if self._has_failed:
            # Missing children are not forked at once while starts fail.
            self._has_failed = bool(registry.spawn_failures.failed)
            return
        world.require(have >= need, "there are", have, "children and none is forked; needed:", need)
        is_surplus = len(staying) > need and any(child.state is State.IDLE for child in staying)
        world.require(not is_surplus, "there are", have, "children and none retires; needed:", need)
        replaceable = [child.name for child in children if child.retires_because and child.is_serving]
        is_late = replaceable and len(staying) >= need
        world.require(not is_late, "a replacement is ready, and these do not retire:", *replaceable)

    def _check_recycling(self) -> None:
        """In a calm schedule, recycling leaves a gap only where more children go at once than there are spares."""
        world, size = self._world, self._lane.size
        serving = self._lane.snapshot().serving
        self._was_full = self._was_full or serving >= size + world.plan.spares
        while self._recycled and self._recycled[0] < world.loop.time() - _START_S:
            self._recycled.popleft()
        if world.plan.is_calm and world.plan.spares and self._was_full:
            least = size - max(0, len(self._recycled) - world.plan.spares)
            world.require(serving >= least, "recycling left", serving, "children of", size)
