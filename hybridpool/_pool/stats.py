"""What each child of a pool is doing, as plain values."""

import time
from collections.abc import Iterable

import attrs

from hybridpool._lanes.prefork.child_handle import ChildHandle


@attrs.frozen(kw_only=True)
class ChildStats:
    """One child at one moment."""

    name: str
    pid: int
    #: "starting", "idle", "busy" or "retiring"
    state: str
    #: calls it has finished
    tasks: int
    #: calls that were sent to it, the running one included
    in_hand: int
    #: name of the running call; None: there is none
    at_work: str | None
    #: seconds since that call began
    working_for: float
    #: bytes it owned alone when it was last measured; 0: not measured, or under the limit
    owned: int


def child_stats(children: Iterable[ChildHandle]) -> list[ChildStats]:
    """Return the state of each child, in the order in which they were forked."""
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
