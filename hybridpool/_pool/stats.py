"""What each child of a pool is doing, as plain values."""

import attrs

from hybridpool._lanes.snapshot import LaneSnapshot


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


def child_stats(lane: LaneSnapshot) -> list[ChildStats]:
    """Return what each child does, in the order of their starts."""
    return [
        ChildStats(
            name=child.name,
            pid=child.pid,
            state=child.state.value,
            tasks=child.tasks,
            in_hand=child.in_flight,
            at_work=None if child.current is None else child.current.task,
            working_for=0.0 if child.current is None else lane.at - child.current.since,
            owned=child.owned,
        )
        for child in lane.children
    ]
