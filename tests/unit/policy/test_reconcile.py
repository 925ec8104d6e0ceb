"""How many children to fork, and which to retire."""

from typing import Any

import attrs
from hypothesis import assume, given

from hybridpool._policy.reconcile import LaneView, ReconcilePlan, plan
from tests.strategies import lane_views


def headcount(**changes: Any) -> LaneView:
    """Return an empty headcount, with changes."""
    empty = LaneView(
        target=0, spares=0, now=100.0, idle=(), busy=0, starting=(), failed_starts=0, fork_after=0.0, start_timeout=10.0
    )
    return attrs.evolve(empty, **changes)


def test_forks_what_is_missing() -> None:
    """All missing children are forked at once."""
    assert plan(headcount(target=4, busy=1)) == ReconcilePlan(fork=3, check_again_in=10.0)


def test_forks_the_spares_too() -> None:
    """Spares are forked too, and one takes the place of a child on its last call."""
    assert plan(headcount(target=2, spares=1, busy=2)) == ReconcilePlan(fork=1, check_again_in=10.0)
    assert plan(headcount(target=2, spares=1, busy=2, idle=("spare",))) == ReconcilePlan()
    # one is on its last call, so it does not count any more: the spare takes its place, and a new one is made
    assert plan(headcount(target=2, spares=1, busy=1, idle=("spare",))).fork == 1


def test_a_target_of_zero_has_no_spares() -> None:
    """A pool of size 0 has no spare."""
    assert plan(headcount(target=0, spares=1, idle=("spare",))).retire == ("spare",)
    assert plan(headcount(target=0, spares=1)) == ReconcilePlan()


def test_starting_children_count() -> None:
    """Starting children count."""
    decided = plan(headcount(target=2, starting=[("a", 99.0), ("b", 95.0)]))
    assert decided == ReconcilePlan(check_again_in=5.0)


def test_the_youngest_idle_leave() -> None:
    """The youngest idle children retire first."""
    assert plan(headcount(target=2, idle=("old", "middle", "young"))).retire == ("young",)


def test_a_start_that_takes_too_long_is_ended_and_replaced() -> None:
    """A child that starts too slowly is killed and replaced."""
    decided = plan(headcount(target=1, starting=[("slow", 90.0)]))
    assert decided == ReconcilePlan(fork=1, kill_not_ready=("slow",), check_again_in=10.0)


def test_a_child_that_does_not_exit_is_killed() -> None:
    """A child that was told to exit is killed when its time is up, and the next look comes when another's is."""
    decided = plan(headcount(exiting=[("stuck", 90.0), ("leaving", 95.0)]))
    assert decided == ReconcilePlan(kill_not_gone=("stuck",), check_again_in=5.0)


def test_waits_after_failed_starts() -> None:
    """After failed starts the next fork waits."""
    assert plan(headcount(target=3, failed_starts=1, fork_after=102.0)) == ReconcilePlan(check_again_in=2.0)


def test_tries_one_after_failed_starts() -> None:
    """After failed starts one child is tried alone."""
    assert plan(headcount(target=3, failed_starts=1, fork_after=100.0)).fork == 1
    assert plan(headcount(target=3, failed_starts=1, fork_after=100.0, starting=[("a", 99.5)])).fork == 0


def test_a_complete_lane_is_not_checked_again() -> None:
    """A complete pool needs no further look."""
    assert plan(headcount(target=2, idle=("a",), busy=1)) == ReconcilePlan()


@given(view=lane_views())
def test_retires_only_idle_surplus(view: LaneView) -> None:
    """Exactly the surplus of idle children retires, the youngest first."""
    decided = plan(view)
    leaving = tuple(name for name in decided.retire if name not in view.replaceable)
    serving = len(view.idle) + view.busy
    surplus = max(0, serving - wanted(view))
    assert set(leaving) <= set(view.idle)
    assert len(leaving) == min(surplus, len(view.idle))
    assert tuple(view.idle[len(view.idle) - len(leaving) :]) == leaving


@given(view=lane_views())
def test_never_forks_above_the_target(view: LaneView) -> None:
    """No more children are forked than wanted."""
    decided = plan(view)
    coming = len(view.starting) - len(decided.kill_not_ready)
    assert decided.fork >= 0
    assert decided.fork == 0 or len(view.idle) + view.busy + coming + decided.fork <= wanted(view)
    assert not (decided.fork and set(decided.retire) & set(view.idle))


@given(view=lane_views())
def test_respects_the_back_off(view: LaneView) -> None:
    """After failed starts at most one child is forked, and not before its time."""
    assume(view.failed_starts)
    decided = plan(view)
    assert decided.fork <= 1
    if view.now < view.fork_after:
        assert decided.fork == 0


@given(view=lane_views())
def test_kills_exactly_the_overdue(view: LaneView) -> None:
    """Exactly those that start too slowly are killed."""
    overdue = tuple(name for name, since in view.starting if view.now >= since + view.start_timeout)
    assert plan(view).kill_not_ready == overdue


@given(view=lane_views())
def test_sleeps_past_no_deadline(view: LaneView) -> None:
    """The next look is no later than the next deadline, and there is none without a deadline."""
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
    """The plans lead to the wanted size and then to rest."""
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
    """Carry out the plan, with all starts succeeding, and let the time pass that it asks for."""
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
    """A ready child does not retire because of one that is still starting."""
    assert plan(headcount(target=1, idle=("ready",), starting=[("late", 99.0)])).retire == ()
    assert plan(headcount(target=1, idle=("ready", "second"))).retire == ("second",)


def test_a_replaceable_child_waits_for_its_replacement() -> None:
    """A replaceable child retires when its replacement is ready."""
    before = plan(headcount(target=1, replaceable=("old",)))
    assert (before.fork, before.retire) == (1, ())
    assert plan(headcount(target=1, replaceable=("old",), starting=[("new", 99.0)])).retire == ()
    assert plan(headcount(target=1, replaceable=("old",), idle=("new",))) == ReconcilePlan(retire=("old",))


@given(view=lane_views())
def test_capacity_outlasts_every_retirement(view: LaneView) -> None:
    """Retirements leave at least as many children as the pool's size, or all that there are."""
    decided = plan(view)
    staying = len([name for name in view.idle if name not in decided.retire]) + view.busy
    assert staying >= min(view.target, len(view.idle) + view.busy)
    if set(decided.retire) & set(view.replaceable):
        assert staying >= view.target
