"""How many children to fork, which to retire, which take too long to be ready or to exit."""

from collections.abc import Sequence

import attrs


@attrs.frozen(kw_only=True)
class LaneView:
    """The pool's children, as seen at one moment. Times are seconds of one monotonic clock."""

    #: how many children should serve
    target: int
    #: READY children beyond that, so that one that retires is replaced at once
    spares: int
    now: float
    #: names of the idle ones, the next to be given a call first
    idle: Sequence[str]
    #: how many run a call and take others after it
    busy: int
    #: names of READY ones that are to retire as soon as enough others are READY; they count neither as idle nor as busy
    replaceable: Sequence[str] = ()
    #: name and time of fork of those not READY yet, oldest first
    starting: Sequence[tuple[str, float]]
    #: likewise, of those that do not count for the target
    starting_apart: Sequence[tuple[str, float]] = ()
    #: name and time of those that were told to exit and have nothing more to do: of the end of their last call, or, of
    #: those never READY, of their fork
    exiting: Sequence[tuple[str, float]] = ()
    #: starts that failed in a row
    failed_starts: int
    #: no fork before this time, because starts failed
    fork_after: float
    #: seconds a child may take to become READY, or to exit
    start_timeout: float


@attrs.frozen(kw_only=True)
class ReconcilePlan:
    """What to do now, and when to check again at the latest."""

    fork: int = 0
    retire: tuple[str, ...] = ()
    kill_not_ready: tuple[str, ...] = ()
    kill_not_gone: tuple[str, ...] = ()
    #: seconds; None: only when something changes
    check_again_in: float | None = None


def plan(view: LaneView) -> ReconcilePlan:
    """Bring the number of children to its target: never by ending a busy child, never faster than failed starts allow.

    After a failed start one child at a time is tried, so that a broken `worker_process_init` does not spin.
    """
    overdue, timeouts = _overdue(view, view.starting)
    apart_overdue, apart_timeouts = _overdue(view, view.starting_apart)
    not_gone, more = _overdue(view, view.exiting)
    coming = len(view.starting) - len(overdue)
    have = len(view.idle) + view.busy + coming
    wanted = view.target + view.spares if view.target else 0
    missing = wanted - have
    fork = 0
    check_again = timeouts + apart_timeouts + more
    if missing > 0:
        if view.failed_starts and view.now < view.fork_after:
            check_again.append(view.fork_after - view.now)
        elif view.failed_starts:
            fork = 0 if coming else 1
        else:
            fork = missing
    if fork:
        check_again.append(view.start_timeout)
    # Children that are not READY yet cannot take another's place.
    serving = len(view.idle) + view.busy
    surplus = max(0, min(-missing, len(view.idle), serving - wanted))
    # Those that have been idle longest retire: the others have warm caches.
    retire = tuple(view.idle[len(view.idle) - surplus :]) if surplus else ()
    if serving >= wanted:
        retire += tuple(view.replaceable)
    return ReconcilePlan(
        fork=fork,
        retire=retire,
        kill_not_ready=(*overdue, *apart_overdue),
        kill_not_gone=not_gone,
        check_again_in=max(0.0, min(check_again)) if check_again else None,
    )


def _overdue(view: LaneView, since: Sequence[tuple[str, float]]) -> tuple[tuple[str, ...], list[float]]:
    """Return the names of those whose time is up, and in how many seconds that of the others is."""
    left = {name: moment + view.start_timeout - view.now for name, moment in since}
    return tuple(name for name, time in left.items() if time <= 0), [time for time in left.values() if time > 0]
