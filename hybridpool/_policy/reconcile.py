"""How many children to fork, which to retire, which have taken too long to be born."""

from collections.abc import Sequence

import attrs


@attrs.frozen(kw_only=True)
class LaneView:
    """The pool's children, as seen at one moment. Times are seconds of one monotonic clock."""

    #: how many children should serve
    target: int
    #: READY ones beyond that, so that one that retires is replaced at once
    spares: int
    now: float
    #: names of the idle ones, the next to be given a call first
    idle: Sequence[str]
    #: how many run a call and will go on after it
    busy: int
    #: names of READY ones that are to go as soon as enough others are; they count neither as idle nor as busy
    replaceable: Sequence[str] = ()
    #: name and time of fork of those not READY yet, oldest first
    starting: Sequence[tuple[str, float]]
    #: name and time of those that were told to go and have nothing more to do: of their last call, or, of those never
    #: READY, of their fork
    parting: Sequence[tuple[str, float]] = ()
    #: spawn_failures that failed in a row
    failed_starts: int
    #: no fork before this time, because spawn_failures failed
    fork_after: float
    #: seconds a child may take to become READY, or to go
    start_timeout: float


@attrs.frozen(kw_only=True)
class ReconcilePlan:
    """What to do now, and when to look again at the latest."""

    fork: int = 0
    retire: tuple[str, ...] = ()
    kill_unborn: tuple[str, ...] = ()
    kill_lingering: tuple[str, ...] = ()
    #: seconds; None: only when something changes
    look_again_in: float | None = None


def plan(view: LaneView) -> ReconcilePlan:
    """Bring the headcount to its target: never by touching a busy child, never faster than failed spawn_failures allow.

    After a failed birth one child at a time is tried, so that a broken `worker_process_init` does not spin.
    """
    overdue, timeouts = _overdue(view, view.starting)
    lingering, more = _overdue(view, view.parting)
    coming = len(view.starting) - len(overdue)
    have = len(view.idle) + view.busy + coming
    wanted = view.target + view.spares if view.target else 0
    missing = wanted - have
    fork = 0
    look_again = timeouts + more
    if missing > 0:
        if view.failed_starts and view.now < view.fork_after:
            look_again.append(view.fork_after - view.now)
        elif view.failed_starts:
            fork = 0 if coming else 1
        else:
            fork = missing
    if fork:
        look_again.append(view.start_timeout)
    # Those not born yet cannot take anybody's place.
    serving = len(view.idle) + view.busy
    surplus = max(0, min(-missing, len(view.idle), serving - wanted))
    # Those that have been idle longest leave: the others have warm caches.
    retire = tuple(view.idle[len(view.idle) - surplus :]) if surplus else ()
    if serving >= wanted:
        retire += tuple(view.replaceable)
    return ReconcilePlan(
        fork=fork,
        retire=retire,
        kill_unborn=overdue,
        kill_lingering=lingering,
        look_again_in=max(0.0, min(look_again)) if look_again else None,
    )


def _overdue(view: LaneView, since: Sequence[tuple[str, float]]) -> tuple[tuple[str, ...], list[float]]:
    """Return the names of those whose time is up, and in how many seconds that of the others is."""
    left = {name: moment + view.start_timeout - view.now for name, moment in since}
    return tuple(name for name, time in left.items() if time <= 0), [time for time in left.values() if time > 0]
