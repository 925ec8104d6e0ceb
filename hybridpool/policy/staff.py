"""How many children to fork, which to retire, which have taken too long to be born."""

from collections.abc import Sequence

import attrs


@attrs.frozen(kw_only=True)
class StaffView:
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
    outworn: Sequence[str] = ()
    #: name and time of fork of those not READY yet, oldest first
    starting: Sequence[tuple[str, float]]
    #: births that failed in a row
    failed_births: int
    #: no fork before this time, because births failed
    fork_after: float
    #: seconds a child may take to become READY
    birth_timeout: float


@attrs.frozen(kw_only=True)
class StaffPlan:
    """What to do now, and when to look again at the latest."""

    fork: int = 0
    retire: tuple[str, ...] = ()
    kill_unborn: tuple[str, ...] = ()
    #: seconds; None: only when something changes
    look_again_in: float | None = None


def plan(view: StaffView) -> StaffPlan:
    """Bring the staff to its target: never by touching a busy child, never faster than failed births allow.

    After a failed birth one child at a time is tried, so that a broken `worker_process_init` does not spin.
    """
    overdue = tuple(name for name, since in view.starting if view.now - since >= view.birth_timeout)
    coming = len(view.starting) - len(overdue)
    have = len(view.idle) + view.busy + coming
    missing = (view.target + view.spares if view.target else 0) - have
    fork = 0
    look_again: list[float] = [
        since + view.birth_timeout - view.now for name, since in view.starting if name not in overdue
    ]
    if missing > 0:
        if view.failed_births and view.now < view.fork_after:
            look_again.append(view.fork_after - view.now)
        elif view.failed_births:
            fork = 0 if coming else 1
        else:
            fork = missing
    if fork:
        look_again.append(view.birth_timeout)
    # Those not born yet cannot take anybody's place.
    serving = len(view.idle) + view.busy
    surplus = max(0, min(-missing, len(view.idle), serving - view.target - (view.spares if view.target else 0)))
    # Those that have been idle longest leave: the others have warm caches.
    retire = tuple(view.idle[len(view.idle) - surplus :]) if surplus else ()
    if serving >= view.target:
        retire += tuple(view.outworn)
    return StaffPlan(
        fork=fork,
        retire=retire,
        kill_unborn=overdue,
        look_again_in=max(0.0, min(look_again)) if look_again else None,
    )
