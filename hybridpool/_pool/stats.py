"""Statistics of the children of a pool."""

import attrs

from hybridpool._lanes.snapshot import LaneSnapshot


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
