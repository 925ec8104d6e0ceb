"""`ChildLane`: what all lanes of child processes have in common, the life of their children."""

from collections.abc import Callable

from hybridpool import events
from hybridpool._lanes.children.handle import ChildHandle
from hybridpool._lanes.children.registry import ChildRegistry, Forks
from hybridpool._lanes.children.stack_reports import StackReports
from hybridpool._lanes.snapshot import LaneSnapshot
from hybridpool._policy.lifecycle import State
from hybridpool._zygote.client import News


class ChildLane:
    """The children of a lane, towards the supervisors. A lane adds the calls that they run."""

    def __init__(self, bus: events.Bus, registry: ChildRegistry, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._registry = registry
        self._stack_reports = StackReports(bus, registry.children.values, registry.alert)
        self.clock = clock

    def report_stacks(self) -> None:
        """Have each child report its stacks; they come as events."""
        self._stack_reports.ask()

    def snapshot(self) -> LaneSnapshot:
        """Return what the lane and its children do at this moment."""
        raise NotImplementedError

    def _leaves_idle(self, child: ChildHandle) -> None:
        """Take a child that is about to retire from those that wait for a call."""
        raise NotImplementedError

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

    def lose_zygote(self, cause: str) -> list[int]:
        """The zygote died, and the kernel has killed its children with it.

        :returns: their pids, whose process groups may still hold what tasks had started.
        """
        return self._registry.lose_zygote(cause)

    def hear_zygote(self, news: News) -> bool:
        """Take the zygote's news of children; False: it is of no child of this lane."""
        return self._registry.hear_zygote(news)

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
