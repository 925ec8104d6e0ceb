"""Asks the children of a lane for their stacks, for the operator, and says which of them did not answer."""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from hybridpool import events
from hybridpool._ipc.frames import ReportStacks
from hybridpool._lanes.children.handle import ChildHandle
from hybridpool._policy.lifecycle import State

#: seconds between two alerts: one that comes just before a system call is only noticed when that call returns
_ALERT_INTERVAL_S: Final = 0.3
#: how many alerts a child gets
_ALERTS: Final = 6
_NO_ANSWER: Final = "it does not answer: it may be inside a function in C, or stopped"


class StackReports:
    """The reports that are asked for, and have not come."""

    def __init__(
        self, bus: events.Bus, children: Callable[[], Collection[ChildHandle]], alert: Callable[[ChildHandle], None]
    ) -> None:
        """Ask.

        :param children: returns the children there are.
        :param alert: has a child read its channel, even in the middle of a task.
        """
        self._bus = bus
        self._children = children
        self._alert = alert
        self._asked: set[str] = set()

    def ask(self) -> None:
        """Have every child that is ready report its stacks, even in the middle of a task."""
        is_idle = not self._asked
        for child in self._children():
            if _can_answer(child) and child.name not in self._asked:
                self._asked.add(child.name)
                child.tell(ReportStacks())
                self._alert(child)
        if is_idle and self._asked:
            asyncio.get_running_loop().call_later(_ALERT_INTERVAL_S, self._remind, _ALERTS - 1)

    def hear(self, child: ChildHandle, text: str) -> None:
        """Take a child's report."""
        self._asked.discard(child.name)
        self._bus.emit(events.ChildStacks(child.name, child.pid, text))

    def _remind(self, left: int) -> None:
        late = [child for child in self._children() if child.name in self._asked and _can_answer(child)]
        self._asked = {child.name for child in late}
        if late and left:
            for child in late:
                self._alert(child)
            asyncio.get_running_loop().call_later(_ALERT_INTERVAL_S, self._remind, left - 1)
            return
        for child in late:
            self.hear(child, _NO_ANSWER)


def _can_answer(child: ChildHandle) -> bool:
    is_ending = child.finished_at is not None or child.is_to_be_killed or child.state is State.GONE
    return child.was_ready and child.pid > 0 and not is_ending
