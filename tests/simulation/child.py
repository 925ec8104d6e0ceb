"""A child that is not a process: it holds the real far end of a channel and the real shared page, in virtual time.

What it does stands in `life`; here is what happens to it.
"""

import math
import os
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Final

from hybridpool.errors import TaskSignal
from tests.simulation.channel import FarEnd, StepPage
from tests.simulation.life import MESSAGE, Died, Life, delay
from tests.simulation.plan import ChildPlan
from tests.simulation.world import World

_KILLED: Final = 9
#: signals in a row that may come at a moment when Python does not look
_UNHEARD: Final = 2


class FakeChild:
    """One child, from the fork to its death."""

    def __init__(
        self, world: World, name: str, pid: int, fds: tuple[int, int], on_exit: Callable[["FakeChild", int], None]
    ) -> None:
        self.name = name
        self.pid = pid
        self.is_alive = True
        self._world = world
        world.alive.add(name)
        self._on_exit = on_exit
        self._plan: ChildPlan = world.dice.child(0.0 if world.is_quiet else world.plan.fault)
        self._channel = FarEnd(fds[0])
        self._shared_page = StepPage(fds[1])
        os.close(fds[1])
        self._unheard = 0
        self._life = Life(world, name, pid, self._plan, self._channel, self._shared_page)
        self._steps = self._life.live()
        self._timer: TimerHandle | None = world.loop.call_later(0, self._go)
        self._mark_for_kill: TimerHandle | None = None
        self._thread = self._life.other_thread()
        self._thread_timer: TimerHandle | None = None
        if self._plan.dies_after is not None:
            self._mark_for_kill = world.loop.call_later(self._plan.dies_after, self._die_suddenly)

        if self._plan.chatters:
            self._life.on_begin = self._wake_thread

    # ---- from outside ------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Be killed because the lane ordered it."""
        fate = self._life.fate
        if fate is not None and fate.begun_by == self.name and not fate.is_noted:
            self._world.killed(fate, self.name)
        self.die(_KILLED)

    def alert(self) -> None:
        """Be sent ATTENTION, which may come at a moment when Python does not look for signals."""
        if self._unheard < _UNHEARD and self._world.strikes():
            self._unheard += 1
            return
        self._unheard = 0
        try:
            self._life.attend()
        except TaskSignal as signal:
            if self._world.strikes() and self._life.discard():
                # It was raised in a `__del__` method of the task.
                self._world.counts["interrupts discarded"] += 1
                return
            if self._timer is not None:
                self._timer.cancel()
            self._go(signal)
        except Died as died:
            self.die(died.status)

    def die(self, status: int) -> None:
        """Be gone; the kernel closes what was open."""
        self.is_alive = False
        self._world.alive.discard(self.name)
        for timer in (self._timer, self._mark_for_kill, self._thread_timer):
            if timer is not None:
                timer.cancel()
        self._world.loop.remove_reader(self._channel.fileno())
        self._steps.close()
        self._thread.close()
        self._channel.close()
        self._shared_page.close()
        self._world.note("died", self.name, f"status {status}")
        self._on_exit(self, status)

    def _die_suddenly(self) -> None:
        if not self._world.is_quiet:
            self._world.counts["crashes"] += 1
            self.die(self._world.exit_status())

    # ---- time --------------------------------------------------------------------------------------------

    def _go(self, signal: TaskSignal | None = None) -> None:
        """Take steps until one takes time."""
        self._timer = None
        loop = self._world.loop
        try:
            wish = next(self._steps) if signal is None else self._steps.throw(signal)
        except StopIteration as end:
            self.die(int(end.value))
        except Died as died:
            self.die(died.status)
        else:
            if wish == MESSAGE:
                loop.add_reader(self._channel.fileno(), self._readable)
            elif wish != math.inf:
                self._timer = loop.call_later(wish, self._go)

    def _wake_thread(self) -> None:
        if self._thread_timer is None:
            self._thread = self._life.other_thread()
            self._thread_timer = self._world.loop.call_later(0, self._go_on_beside)

    def _go_on_beside(self) -> None:
        """Let the other thread take a step."""
        self._thread_timer = None
        try:
            wish = next(self._thread)
        except (StopIteration, ConnectionError):
            return
        except Died as died:
            self.die(died.status)
        else:
            self._thread_timer = self._world.loop.call_later(wish, self._go_on_beside)

    def _readable(self) -> None:
        loop = self._world.loop
        loop.remove_reader(self._channel.fileno())
        # Long enough, at times, for the parent to take the message back.
        self._timer = loop.call_later(delay(self._world, self._plan), self._go)
