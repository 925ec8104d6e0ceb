"""What is due for a call that runs beside others, by its limits."""

from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.shared_limits import SharedCall, SharedDue, due

#: what floats lose by adding up
BLINK = 1e-6
spans = st.floats(0.0, 100.0)


@st.composite
def calls(draw: st.DrawFn) -> SharedCall:
    """Return a call at any moment, whatever has been done about it."""
    age = draw(spans)
    return SharedCall(
        age=age,
        soft=draw(st.none() | spans),
        softened=draw(st.booleans()),
        hard=draw(st.none() | spans),
        cancelled_for=draw(st.none() | st.floats(0.0, age)),
        stopped_for=draw(st.none() | st.floats(0.0, age)),
        grace=draw(spans),
    )


def call(**changes: Any) -> SharedCall:
    """Return a call that nothing is due for, with changes."""
    quiet = SharedCall(age=1.0, soft=None, softened=False, hard=None, cancelled_for=None, stopped_for=None, grace=3.0)
    return attrs.evolve(quiet, **changes)


def test_nothing_is_due_without_limits() -> None:
    """A call without limits is never looked at again."""
    assert due(call()) == SharedDue()


def test_a_soft_limit_is_told_once() -> None:
    """The soft limit is raised when it is reached, once, and then the hard one is waited for."""
    assert due(call(soft=2.0)) == SharedDue(check_again_in=1.0)
    assert due(call(age=2.0, soft=2.0, hard=5.0)) == SharedDue(soften=True, check_again_in=3.0)
    assert due(call(age=3.0, soft=2.0, softened=True)) == SharedDue()


def test_a_hard_limit_stops_and_then_gives_up() -> None:
    """At its hard limit a call is told to stop; if it does not within its grace, it is given up."""
    assert due(call(age=5.0, hard=5.0)) == SharedDue(stop=True, check_again_in=3.0)
    assert due(call(age=6.0, hard=5.0, stopped_for=1.0)) == SharedDue(check_again_in=2.0)
    assert due(call(age=8.0, hard=5.0, stopped_for=3.0)) == SharedDue(give_up=True)


def test_a_cancelled_call_stops_at_once() -> None:
    """A call that is not wanted any more is told to stop; without a grace it is given up in the same moment."""
    assert due(call(cancelled_for=0.0)) == SharedDue(stop=True, check_again_in=3.0)
    assert due(call(cancelled_for=0.0, grace=0.0)) == SharedDue(stop=True, give_up=True)


@given(calls())
def test_no_call_is_disturbed_without_a_cause(one: SharedCall) -> None:
    """A call is stopped or given up only at its hard limit, when it is not wanted, or when it was told before."""
    decided = due(one)
    is_over = one.hard is not None and one.age >= one.hard
    if decided.stop or decided.give_up:
        assert is_over or one.cancelled_for is not None or one.stopped_for is not None
    if decided.stop:
        assert one.stopped_for is None, "it is told once"
    if decided.give_up and one.stopped_for is not None:
        assert one.stopped_for >= one.grace
    if decided.soften:
        assert one.soft is not None
        assert one.age >= one.soft
        assert not one.softened


@given(calls())
def test_what_is_due_next_is_due_then(one: SharedCall) -> None:
    """What was decided being done, something is due at the moment that is named, and nothing before it."""
    decided = due(one)
    wait = decided.check_again_in
    if wait is None:
        return
    assert wait >= 0
    done = attrs.evolve(
        one,
        softened=one.softened or decided.soften,
        stopped_for=0.0 if decided.stop else one.stopped_for,
    )
    assert _is_quiet(due(_later(done, wait / 2))) or wait < 2 * BLINK
    assert not _is_quiet(due(_later(done, wait + BLINK)))


@given(calls())
def test_every_call_comes_to_an_end(one: SharedCall) -> None:
    """A call that is over its hard limit, or not wanted, is given up in the end if it does not stop."""
    if one.hard is None and one.cancelled_for is None and one.stopped_for is None:
        return
    for _ in range(4):
        decided = due(one)
        if decided.give_up:
            return
        assert decided.check_again_in is not None
        one = attrs.evolve(
            one,
            softened=one.softened or decided.soften,
            stopped_for=0.0 if decided.stop else one.stopped_for,
        )
        one = _later(one, decided.check_again_in + BLINK)
    raise AssertionError(f"it is never given up: {one}")


def _later(one: SharedCall, seconds: float) -> SharedCall:
    return attrs.evolve(
        one,
        age=one.age + seconds,
        cancelled_for=None if one.cancelled_for is None else one.cancelled_for + seconds,
        stopped_for=None if one.stopped_for is None else one.stopped_for + seconds,
    )


def _is_quiet(decided: SharedDue) -> bool:
    return not (decided.soften or decided.stop or decided.give_up)
