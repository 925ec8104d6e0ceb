"""A zygote that is not a process, and its keeper, which is the real one but for where zygotes come from."""

import os
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, cast

import anyio

from hybridpool import events
from hybridpool._ipc.frames import ChildOrders, Exited, Forked, ForkFailed, Imported
from hybridpool._lanes.zygote_keeper import ZygoteKeeper
from hybridpool._zygote.client import News, Zygote
from hybridpool.errors import AppLoadError
from tests.simulation.child import FakeChild
from tests.simulation.shared_child import FakeSharedChild
from tests.simulation.world import World

SIGKILL: Final = 9
#: above Linux's highest possible pid, since the keeper signals the process groups of children that are lost
_FIRST_PID: Final = 2**22 + 1


class _Line:
    """One direction of the zygote's socket: things take time on it and keep their order."""

    def __init__(self, loop: AbstractEventLoop, delay: Callable[[], float]) -> None:
        self._loop = loop
        self._delay = delay
        self._last = 0.0
        self.acts: deque[Callable[[], None]] = deque()
        #: nothing comes through any more
        self.is_blocked = False

    def put(self, act: Callable[[], None]) -> None:
        self._last = max(self._last, self._loop.time() + self._delay())
        self.acts.append(act)
        self._loop.call_at(self._last, self._next)

    def _next(self) -> None:
        if self.acts and not self.is_blocked:
            self.acts.popleft()()


class FakeZygote:
    """Forks fake children; keeps `_lanes.children.registry.Forks`."""

    def __init__(self, world: World, on_news: Callable[[News], None], on_lost: Callable[[str], None]) -> None:
        self._world = world
        self._on_news = on_news
        self._on_lost = on_lost
        self._children: dict[int, FakeChild | FakeSharedChild] = {}
        self._orders = _Line(world.loop, self._delay)
        self._news = _Line(world.loop, self._delay)
        #: descriptors that orders under way carry
        self._carried: list[int] = []
        self._is_dead = False

    def fork(self, name: str, orders: ChildOrders, fds: Sequence[int]) -> None:  # the port's names
        """Make a child, sooner or later, or fail to."""
        self._world.note("order", name)
        if self._is_dead:
            _close(fds)
            return
        self._carried.extend(fds)
        channel, shared_page = fds
        self._orders.put(partial(self._fork, name, orders, (channel, shared_page)))

    def kill(self, pid: int) -> None:
        """Kill a child, if it is still there by then."""
        self._world.note("kill", pid)
        if not self._is_dead:
            child = self._children.get(pid)
            if isinstance(child, FakeSharedChild):
                child.kill_is_ordered()
            self._orders.put(partial(self._do, pid, lambda child: child.kill()))

    def alert(self, pid: int) -> None:
        """Send a child ATTENTION, if it is still there by then."""
        if not self._is_dead:
            self._orders.put(partial(self._do, pid, lambda child: child.alert()))

    def die(self) -> None:
        """Die, with all children; what was said before is heard first."""
        if not self._is_dead:
            self._world.note("the zygote dies")
            self._world.counts["zygotes lost"] += 1
            self._end()
            self._news.put(partial(self._on_lost, "signal 9 (SIGKILL)"))

    async def close(self) -> None:
        """End, with all children; nothing is heard of it."""
        self._news.is_blocked = True
        if not self._is_dead:
            self._end()

    @property
    def hangs(self) -> bool:
        """It carries out no orders any more."""
        return self._orders.is_blocked

    def _end(self) -> None:
        self._is_dead = True
        self._orders.acts.clear()
        _close(self._carried)
        for child in list(self._children.values()):
            child.die(SIGKILL)

    def _delay(self) -> float:
        dice = self._world.dice
        return dice.among(0.0, 0.0, 0.0002, 0.003) + (0.05 if self._world.strikes() else 0.0)

    def _fork(self, name: str, orders: ChildOrders, fds: tuple[int, int]) -> None:
        world = self._world
        if world.strikes() and world.dice.is_struck(0.1):
            # fork(2) does not return; the reconciler notices after the start timeout.
            world.note("the zygote hangs")
            world.lateness += world.plan.start_timeout
            self._orders.is_blocked = True
            return
        for fd in fds:
            self._carried.remove(fd)
        if world.strikes():
            world.note("fork fails", name)
            world.counts["failed forks"] += 1
            _close(fds)
            self._news.put(partial(self._on_news, ForkFailed(name, "OSError: [Errno 12] Cannot allocate memory")))
            return
        world.counts["children"] += 1
        pid = _FIRST_PID + world.counts["children"]
        world.note("forks", name, pid)
        self._news.put(partial(self._on_news, Forked(name, pid)))
        if orders.lane == "process":
            self._children[pid] = FakeChild(world, name, pid, fds, self._exited)
        else:
            self._children[pid] = FakeSharedChild(world, name, pid, orders, fds, self._exited)

    def _do(self, pid: int, what: Callable[[FakeChild | FakeSharedChild], None]) -> None:
        child = self._children.get(pid)
        if child is not None:
            what(child)

    def _exited(self, child: FakeChild | FakeSharedChild, status: int) -> None:
        del self._children[child.pid]
        if not self._is_dead:
            self._news.put(partial(self._on_news, Exited(child.pid, status, 0)))


class FakeKeeper(ZygoteKeeper):
    """The keeper of fake zygotes."""

    def __init__(self, world: World, bus: events.Bus) -> None:
        super().__init__("", (), bus)
        self._world = world
        self.fake: FakeZygote | None = None

    async def close(self) -> None:
        """End the zygote: the pool is being left, in whatever way."""
        self._world.is_ending = True
        await super().close()

    async def _started(self, imports: tuple[str, ...]) -> tuple[Zygote, Imported]:  # as the real one
        """Start a zygote; any but the first may fail to.

        :raises AppLoadError: if it does.
        """
        world = self._world
        if self.fake is not None:
            await anyio.sleep(world.dice.among(0.0, 0.05))
            if world.strikes():
                raise AppLoadError("the zygote could not be started")
        # It keeps the part of a zygote's interface that is used once it is there.
        fake = FakeZygote(world, self._news, lambda cause: self._losses.put_nowait((started, cause)))
        self.fake, started = fake, cast("Zygote", fake)
        return started, Imported(b"")


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
