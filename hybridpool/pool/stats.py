"""What each child of a pool is doing, as plain values."""

import time
from collections.abc import Iterable

import attrs

from hybridpool.lanes.link import Link


@attrs.frozen(kw_only=True)
class ChildStats:
    """One child at one moment."""

    name: str
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


def look(links: Iterable[Link]) -> list[ChildStats]:
    """Look at each child, in the order of their births."""
    now = time.monotonic()
    return [
        ChildStats(
            name=link.name,
            pid=link.pid,
            state=link.state.value,
            tasks=link.tasks,
            in_hand=len(link.in_hand),
            at_work=link.in_hand[0][1].task if link.in_hand else None,
            working_for=now - link.head_since if link.in_hand else 0.0,
            owned=link.owned,
        )
        for link in links
    ]
