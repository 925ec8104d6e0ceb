"""Statistics of the children of a pool."""

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
    #: number of calls that it has finished
    tasks: int
    #: number of calls that were handed to it, the running one included
    in_hand: int
    #: name of the running call's function; None: no call runs
    at_work: str | None
    #: seconds for which that call has run
    working_for: float
    #: bytes of its own, unshared memory when it was last measured; 0: not measured, or well below the limit
    owned: int


def child_stats(children: Iterable[ChildHandle]) -> list[ChildStats]:
    """Return the statistics of each child, in the order of their starts."""
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
