"""What each child of a pool is doing, as plain values."""

import time
from collections.abc import Iterable

import attrs

from hybridpool._lanes.prefork.child_handle import ChildHandle


@attrs.frozen(kw_only=True)
class ChildStats:
    """One child at one moment."""

    __module__ = "hybridpool"

    #: name of the child, as in the log
    name: str
    #: its process id
    pid: int
    #: "starting", "idle", "busy" or "retiring"
    state: str
    #: calls it has finished
    tasks: int
    #: calls in its channel, the one at work included
    in_hand: int
    #: name of the call at work; None: none
    at_work: str | None
    #: seconds it has been at work
    working_for: float
    #: bytes it owned alone when it was last looked at; 0: not looked at, or surely under the limit
    owned: int


def look(children: Iterable[ChildHandle]) -> list[ChildStats]:
    """Look at each child, in the order of their spawn_failures."""
    now = time.monotonic()
    return [
        ChildStats(
            name=child.name,
            pid=child.pid,
            state=child.state.value,
            tasks=child.tasks,
            in_hand=len(child.in_hand),
            at_work=child.in_hand[0][1].task if child.in_hand else None,
            working_for=now - child.head_since if child.in_hand else 0.0,
            owned=child.owned,
        )
        for child in children
    ]
