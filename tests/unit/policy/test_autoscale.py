"""How large the pool should be."""

import sys
from collections.abc import Iterator

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.autoscale import ScaleLimits, ScaleMemory, ScalePlan, decide
from tests.strategies import loads, quarters, scale_limits

#: seconds since the look before, and the load then
histories = st.lists(st.tuples(quarters, loads), min_size=1, max_size=25)
LIMITS = ScaleLimits(floor=2, ceiling=6, idle=10.0)


@attrs.frozen
class Look:
    """One decision in a history."""

    now: float
    load: int
    before: int
    decided: ScalePlan


def looks(limits: ScaleLimits, history: list[tuple[float, int]]) -> Iterator[Look]:
    """Decide at every change of a history, each time on what was decided before."""
    size, memory, now = limits.floor, ScaleMemory(), 0.0
    for passed, load in history:
        now += passed
        decided = decide(load=load, size=size, limits=limits, memory=memory, now=now)
        yield Look(now, load, size, decided)
        size, memory = decided.size, decided.memory


@pytest.mark.parametrize(("load", "size"), [(0, 2), (2, 2), (3, 3), (6, 6), (100, 6)])
def test_grows_at_once(load: int, size: int) -> None:
    """The pool grows at once to the load, up to its maximum."""
    assert decide(load=load, size=2, limits=LIMITS, memory=ScaleMemory(), now=0.0).size == size


def test_a_surplus_must_last() -> None:
    """The pool shrinks only after a surplus has lasted for the idle time."""
    first = decide(load=3, size=6, limits=LIMITS, memory=ScaleMemory(), now=100.0)
    assert (first.size, first.look_again_in) == (6, 10.0)
    later = decide(load=3, size=6, limits=LIMITS, memory=first.memory, now=109.75)
    assert (later.size, later.look_again_in) == (6, 0.25)
    due = decide(load=3, size=6, limits=LIMITS, memory=later.memory, now=110.0)
    assert (due.size, due.memory, due.look_again_in) == (3, ScaleMemory(), None)


def test_full_use_forgives() -> None:
    """A moment of full use ends a surplus."""
    surplus = decide(load=1, size=6, limits=LIMITS, memory=ScaleMemory(), now=0.0)
    full = decide(load=6, size=6, limits=LIMITS, memory=surplus.memory, now=9.0)
    assert decide(load=1, size=6, limits=LIMITS, memory=full.memory, now=11.0).look_again_in == 10.0


def test_rests_at_its_bounds() -> None:
    """The scaler is not woken by loads that lead to the same size."""
    assert decide(load=1, size=2, limits=LIMITS, memory=ScaleMemory(), now=0.0).watch == (0, 2)
    assert decide(load=9, size=6, limits=LIMITS, memory=ScaleMemory(), now=0.0).watch == (6, sys.maxsize)
    assert decide(load=4, size=4, limits=LIMITS, memory=ScaleMemory(), now=0.0).watch == (4, 4)


@given(limits=scale_limits(), history=histories)
def test_stays_within_its_limits(limits: ScaleLimits, history: list[tuple[float, int]]) -> None:
    """The size stays between the minimum and the maximum."""
    for look in looks(limits, history):
        assert limits.floor <= look.decided.size <= limits.ceiling


@given(limits=scale_limits(), history=histories)
def test_always_large_enough(limits: ScaleLimits, history: list[tuple[float, int]]) -> None:
    """The size is at least the load, up to the maximum."""
    for look in looks(limits, history):
        assert look.decided.size >= min(look.load, limits.ceiling)


@given(limits=scale_limits(), history=histories)
def test_shrinks_only_after_a_lasting_surplus(limits: ScaleLimits, history: list[tuple[float, int]]) -> None:
    """The pool shrinks, to what the load needs, exactly when a surplus has lasted for the idle time."""
    since: float | None = None
    for look in looks(limits, history):
        needed = min(max(look.load, limits.floor), limits.ceiling)
        since = None if needed >= look.before else look.now if since is None else since
        lasted = since is not None and look.now - since >= limits.idle
        assert (look.decided.size < look.before) == lasted
        if lasted:
            assert look.decided.size == needed
            since = None


@given(limits=scale_limits(), history=histories, passed=quarters, data=st.data())
def test_nothing_is_missed(
    limits: ScaleLimits, history: list[tuple[float, int]], passed: float, data: st.DataObject
) -> None:
    """A load within the watched range changes nothing before the next look is due."""
    *_, last = looks(limits, history)
    decided = last.decided
    least, most = decided.watch
    load = data.draw(st.sampled_from([least, min(most, 100), decided.size - 1, decided.size, decided.size + 1]) | loads)
    again = decide(load=load, size=decided.size, limits=limits, memory=decided.memory, now=last.now + passed)
    is_unseen = least <= load <= most and (decided.look_again_in is None or passed < decided.look_again_in)
    if is_unseen:
        assert (again.size, again.memory) == (decided.size, decided.memory)


@given(limits=scale_limits(), history=histories)
def test_a_look_when_it_is_due_settles(limits: ScaleLimits, history: list[tuple[float, int]]) -> None:
    """A look when it is due ends the surplus by shrinking."""
    *_, last = looks(limits, history)
    decided = last.decided
    if decided.look_again_in is not None:
        assert decided.look_again_in > 0
        due = last.now + decided.look_again_in
        again = decide(load=last.load, size=decided.size, limits=limits, memory=decided.memory, now=due)
        assert again.size < decided.size
        assert again.look_again_in is None


def test_a_lower_ceiling_holds_at_once() -> None:
    """A pool that is larger than a new maximum shrinks to it without waiting."""
    assert decide(load=9, size=9, limits=LIMITS, memory=ScaleMemory(), now=0.0).size == 6
    assert decide(load=0, size=9, limits=LIMITS, memory=ScaleMemory(), now=0.0).size == 6
