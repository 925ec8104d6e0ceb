"""How many children to fork, and which to retire."""

from typing import Any

import attrs
from hypothesis import assume, given

from hybridpool._policy.reconcile import LaneView, ReconcilePlan, plan
from tests.strategies import lane_views


def headcount(**changes: Any) -> LaneView:
    """Return a view of a lane without children, with changes."""
    empty = LaneView(
        target=0, spares=0, now=100.0, idle=(), busy=0, starting=(), failed_starts=0, fork_after=0.0, start_timeout=10.0
    )
    return attrs.evolve(empty, **changes)


def test_forks_what_is_missing() -> None:
    """All missing children are forked at once."""
    assert plan(headcount(target=4, busy=1)) == ReconcilePlan(fork=3, check_again_in=10.0)


def test_forks_the_spares_too() -> None:
    """Spares are forked as well, and a child on its last call is replaced before it retires."""
    assert plan(headcount(target=2, spares=1, busy=2)) == ReconcilePlan(fork=1, check_again_in=10.0)
    assert plan(headcount(target=2, spares=1, busy=2, idle=("spare",))) == ReconcilePlan()
    # one is on its last call, so it does not count any more: the spare takes its place, and a new one is made
    assert plan(headcount(target=2, spares=1, busy=1, idle=("spare",))).fork == 1


def test_a_target_of_zero_has_no_spares() -> None:
    """A pool that is being emptied retires its spares too."""
    assert plan(headcount(target=0, spares=1, idle=("spare",))).retire == ("spare",)
    assert plan(headcount(target=0, spares=1)) == ReconcilePlan()


def test_starting_children_count() -> None:
    """Children that start count for the target, so none is forked twice."""
    decided = plan(headcount(target=2, starting=[("a", 99.0), ("b", 95.0)]))
    assert decided == ReconcilePlan(check_again_in=5.0)


def test_the_youngest_idle_leave() -> None:
    """The children that have been idle longest retire: the others have warm caches."""
    assert plan(headcount(target=2, idle=("old", "middle", "young"))).retire == ("young",)


def test_a_start_that_takes_too_long_is_ended_and_replaced() -> None:
    """A child that is not READY in time is killed, and another is forked in its place."""
    decided = plan(headcount(target=1, starting=[("slow", 90.0)]))
    assert decided == ReconcilePlan(fork=1, kill_not_ready=("slow",), check_again_in=10.0)


def test_waits_after_failed_starts() -> None:
    """No child is forked before the back-off has passed."""
    assert plan(headcount(target=3, failed_starts=1, fork_after=102.0)) == ReconcilePlan(check_again_in=2.0)


def test_tries_one_after_failed_starts() -> None:
    """After a failed start, one child at a time is tried."""
    assert plan(headcount(target=3, failed_starts=1, fork_after=100.0)).fork == 1
    assert plan(headcount(target=3, failed_starts=1, fork_after=100.0, starting=[("a", 99.5)])).fork == 0


def test_a_complete_lane_is_not_checked_again() -> None:
    """A complete number of children needs no action and no timer."""
    assert plan(headcount(target=2, idle=("a",), busy=1)) == ReconcilePlan()


@given(view=lane_views())
def test_retires_only_idle_surplus(view: LaneView) -> None:
    """Only idle children retire as surplus, and no more than are too many."""
    decided = plan(view)
    leaving = tuple(name for name in decided.retire if name not in view.replaceable)
    serving = len(view.idle) + view.busy
    surplus = max(0, serving - wanted(view))
    assert set(leaving) <= set(view.idle)
    assert len(leaving) == min(surplus, len(view.idle))
    assert tuple(view.idle[len(view.idle) - len(leaving) :]) == leaving


@given(view=lane_views())
def test_never_forks_above_the_target(view: LaneView) -> None:
    """There are never more children than the operator allows."""
    decided = plan(view)
    coming = len(view.starting) - len(decided.kill_not_ready)
    assert decided.fork >= 0
    assert decided.fork == 0 or len(view.idle) + view.busy + coming + decided.fork <= wanted(view)
    assert not (decided.fork and set(decided.retire) & set(view.idle))


@given(view=lane_views())
def test_respects_the_back_off(view: LaneView) -> None:
    """After failed starts at most one child is forked, and none before the back-off has passed."""
    assume(view.failed_starts)
    decided = plan(view)
    assert decided.fork <= 1
    if view.now < view.fork_after:
        assert decided.fork == 0


@given(view=lane_views())
def test_kills_exactly_the_overdue(view: LaneView) -> None:
    """Children are killed that are not READY in time, and no others."""
    overdue = tuple(name for name, since in view.starting if view.now >= since + view.start_timeout)
    assert plan(view).kill_not_ready == overdue


@given(view=lane_views())
def test_sleeps_past_no_deadline(view: LaneView) -> None:
    """The next check is no later than the next timeout or the end of the back-off."""
    decided = plan(view)
    deadlines = [since + view.start_timeout for name, since in view.starting if name not in decided.kill_not_ready]
    coming = len(deadlines)
    missing = wanted(view) > len(view.idle) + view.busy + coming
    if missing and view.failed_starts and view.now < view.fork_after:
        deadlines.append(view.fork_after)
    if decided.fork:
        deadlines.append(view.now + view.start_timeout)
    if deadlines:
        assert decided.check_again_in is not None
        assert view.now + decided.check_again_in <= min(deadlines)
    else:
        assert decided.check_again_in is None


@given(view=lane_views())
def test_reaches_the_target(view: LaneView) -> None:
    """The number of children comes to its target, and then nothing more is done."""
    for _ in range(40):
        decided = plan(view)
        if decided == ReconcilePlan():
            break
        view = lived(view, decided)
    else:
        raise AssertionError(f"it never comes to rest: {view}")
    assert len(view.idle) + view.busy == max(wanted(view), view.busy)


def wanted(view: LaneView) -> int:
    """Return how many children are to be there."""
    return view.target + view.spares if view.target else 0


def lived(view: LaneView, decided: ReconcilePlan) -> LaneView:
    """Carry the plan out in a world where starts succeed, and let the time pass that it asks for."""
    idle = [name for name in view.idle if name not in decided.retire]
    started = [name for name, _ in view.starting if name not in decided.kill_not_ready]
    now = view.now + (decided.check_again_in or 0.0)
    return attrs.evolve(
        view,
        now=now,
        idle=[*idle, *started],
        replaceable=[name for name in view.replaceable if name not in decided.retire],
        starting=[(f"new-{now}-{number}", now) for number in range(decided.fork)],
        failed_starts=0 if started else view.failed_starts,
    )


def test_a_starting_child_takes_no_place() -> None:
    """A READY child does not retire for one that may never be READY."""
    assert plan(headcount(target=1, idle=("ready",), starting=[("late", 99.0)])).retire == ()
    assert plan(headcount(target=1, idle=("ready", "second"))).retire == ("second",)


def test_a_replaceable_child_waits_for_its_replacement() -> None:
    """A child past its age retires when the new one is READY, so the pool is never one short."""
    before = plan(headcount(target=1, replaceable=("old",)))
    assert (before.fork, before.retire) == (1, ())
    assert plan(headcount(target=1, replaceable=("old",), starting=[("new", 99.0)])).retire == ()
    assert plan(headcount(target=1, replaceable=("old",), idle=("new",))) == ReconcilePlan(retire=("old",))


@given(view=lane_views())
def test_capacity_outlasts_every_retirement(view: LaneView) -> None:
    """Children that stay are never fewer than the size, if there are enough."""
    decided = plan(view)
    staying = len([name for name in view.idle if name not in decided.retire]) + view.busy
    assert staying >= min(view.target, len(view.idle) + view.busy)
    if set(decided.retire) & set(view.replaceable):
        assert staying >= view.target
