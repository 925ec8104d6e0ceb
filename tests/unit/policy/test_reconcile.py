"""How many children to fork, and which to retire."""

from typing import Any

import attrs
from hypothesis import assume, given

from hybridpool._policy.reconcile import LaneView, ReconcilePlan, plan
from tests.strategies import lane_views


def headcount(**changes: Any) -> LaneView:
    """Return a headcount of nobody, with changes."""
    nobody = LaneView(
        target=0, spares=0, now=100.0, idle=(), busy=0, starting=(), failed_starts=0, fork_after=0.0, start_timeout=10.0
    )
    return attrs.evolve(nobody, **changes)


def test_forks_what_is_missing() -> None:
    """A pool would start child after child in place of all at once."""
    assert plan(headcount(target=4, busy=1)) == ReconcilePlan(fork=3, look_again_in=10.0)


def test_forks_the_spares_too() -> None:
    """A child that retires would leave a gap until its replacement is born."""
    assert plan(headcount(target=2, spares=1, busy=2)) == ReconcilePlan(fork=1, look_again_in=10.0)
    assert plan(headcount(target=2, spares=1, busy=2, idle=("spare",))) == ReconcilePlan()
    # one is on its last call, so it does not count any more: the spare takes its place, and a new one is made
    assert plan(headcount(target=2, spares=1, busy=1, idle=("spare",))).fork == 1


def test_nobody_needs_no_spare() -> None:
    """A pool that is being emptied would keep a child, and its shutdown wait for ever."""
    assert plan(headcount(target=0, spares=1, idle=("spare",))).retire == ("spare",)
    assert plan(headcount(target=0, spares=1)) == ReconcilePlan()


def test_those_being_born_count() -> None:
    """Each look during a birth would fork once more."""
    decided = plan(headcount(target=2, starting=[("a", 99.0), ("b", 95.0)]))
    assert decided == ReconcilePlan(look_again_in=5.0)


def test_the_youngest_idle_leave() -> None:
    """The children with warm caches would be thrown away."""
    assert plan(headcount(target=2, idle=("old", "middle", "young"))).retire == ("young",)


def test_a_late_birth_is_ended_and_made_good() -> None:
    """A child that hangs in its birth would take a place for ever."""
    decided = plan(headcount(target=1, starting=[("slow", 90.0)]))
    assert decided == ReconcilePlan(fork=1, kill_unborn=("slow",), look_again_in=10.0)


def test_waits_after_failed_births() -> None:
    """A broken worker_process_init would make the pool fork as fast as it can."""
    assert plan(headcount(target=3, failed_starts=1, fork_after=102.0)) == ReconcilePlan(look_again_in=2.0)


def test_tries_one_after_failed_births() -> None:
    """All children at once would fail again with every attempt."""
    assert plan(headcount(target=3, failed_starts=1, fork_after=100.0)).fork == 1
    assert plan(headcount(target=3, failed_starts=1, fork_after=100.0, starting=[("a", 99.5)])).fork == 0


def test_content_means_rest() -> None:
    """A complete headcount would be looked at again and again for nothing."""
    assert plan(headcount(target=2, idle=("a",), busy=1)) == ReconcilePlan()


@given(view=lane_views())
def test_retires_only_idle_surplus(view: LaneView) -> None:
    """A busy child would be sent away, or more than are too many."""
    decided = plan(view)
    leaving = tuple(name for name in decided.retire if name not in view.replaceable)
    serving = len(view.idle) + view.busy
    surplus = max(0, serving - wanted(view))
    assert set(leaving) <= set(view.idle)
    assert len(leaving) == min(surplus, len(view.idle))
    assert tuple(view.idle[len(view.idle) - len(leaving) :]) == leaving


@given(view=lane_views())
def test_never_forks_above_the_target(view: LaneView) -> None:
    """The machine would run more children than the operator allowed."""
    decided = plan(view)
    coming = len(view.starting) - len(decided.kill_unborn)
    assert decided.fork >= 0
    assert decided.fork == 0 or len(view.idle) + view.busy + coming + decided.fork <= wanted(view)
    assert not (decided.fork and set(decided.retire) & set(view.idle))


@given(view=lane_views())
def test_respects_the_back_off(view: LaneView) -> None:
    """SpawnFailures that fail would be tried without a pause."""
    assume(view.failed_starts)
    decided = plan(view)
    assert decided.fork <= 1
    if view.now < view.fork_after:
        assert decided.fork == 0


@given(view=lane_views())
def test_kills_exactly_the_overdue(view: LaneView) -> None:
    """A child would be killed in a birth that is still in time, or hang in one for ever."""
    overdue = tuple(name for name, since in view.starting if view.now >= since + view.start_timeout)
    assert plan(view).kill_unborn == overdue


@given(view=lane_views())
def test_sleeps_past_no_deadline(view: LaneView) -> None:
    """A birth's timeout or the end of a back-off would pass unseen, until something else happens."""
    decided = plan(view)
    deadlines = [since + view.start_timeout for name, since in view.starting if name not in decided.kill_unborn]
    coming = len(deadlines)
    missing = wanted(view) > len(view.idle) + view.busy + coming
    if missing and view.failed_starts and view.now < view.fork_after:
        deadlines.append(view.fork_after)
    if decided.fork:
        deadlines.append(view.now + view.start_timeout)
    if deadlines:
        assert decided.look_again_in is not None
        assert view.now + decided.look_again_in <= min(deadlines)
    else:
        assert decided.look_again_in is None


@given(view=lane_views())
def test_reaches_the_target(view: LaneView) -> None:
    """The pool would stay too small or too large for ever, or swing about its target."""
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
    """Carry the plan out in a world where spawn_failures succeed, and let the time pass that it asks for."""
    idle = [name for name in view.idle if name not in decided.retire]
    born = [name for name, _ in view.starting if name not in decided.kill_unborn]
    now = view.now + (decided.look_again_in or 0.0)
    return attrs.evolve(
        view,
        now=now,
        idle=[*idle, *born],
        replaceable=[name for name in view.replaceable if name not in decided.retire],
        starting=[(f"new-{now}-{number}", now) for number in range(decided.fork)],
        failed_starts=0 if born else view.failed_starts,
    )


def test_the_unborn_take_nobodys_place() -> None:
    """A READY child would leave for one that is not born yet, and may never be."""
    assert plan(headcount(target=1, idle=("ready",), starting=[("unborn", 99.0)])).retire == ()
    assert plan(headcount(target=1, idle=("ready", "born"))).retire == ("born",)


def test_a_replaceable_child_waits_for_its_replacement() -> None:
    """The pool would be one child short while the new one is born."""
    before = plan(headcount(target=1, replaceable=("old",)))
    assert (before.fork, before.retire) == (1, ())
    assert plan(headcount(target=1, replaceable=("old",), starting=[("new", 99.0)])).retire == ()
    assert plan(headcount(target=1, replaceable=("old",), idle=("new",))) == ReconcilePlan(retire=("old",))


@given(view=lane_views())
def test_capacity_outlasts_every_retirement(view: LaneView) -> None:
    """Those that stay would be fewer than the pool's size though enough were there."""
    decided = plan(view)
    staying = len([name for name in view.idle if name not in decided.retire]) + view.busy
    assert staying >= min(view.target, len(view.idle) + view.busy)
    if set(decided.retire) & set(view.replaceable):
        assert staying >= view.target
