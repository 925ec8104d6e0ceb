"""How far a pool may grow before memory gets scarce."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.headroom import MIB, Bound, Fit, fit

sizes = st.integers(0, 64)
memory = st.integers(0, 10_000).map(lambda mib: mib * MIB)
bounds = st.lists(
    st.builds(
        Bound,
        name=st.sampled_from(["the host's memory", "the cgroup's memory"]),
        limit=memory,
        used=memory,
        reserve=memory,
    ),
    max_size=3,
)


def budget(mib: int, used: int = 0) -> list[Bound]:
    """Return one bound, in MiB."""
    return [Bound(name="the budget", limit=mib * MIB, used=used * MIB, reserve=0)]


def test_where_there_is_plenty() -> None:
    """With plenty of memory the pool grows at once to the wanted size."""
    assert fit(size=1, wanted=8, heaviest=30 * MIB, bounds=budget(20_000)) == Fit(size=8)
    assert fit(size=1, wanted=8, heaviest=0, bounds=[]) == Fit(size=8)


def test_the_newcomers_are_weighed_first() -> None:
    """New children are weighed before more are added."""
    grown = fit(size=2, wanted=20, heaviest=10 * MIB, bounds=budget(1000))
    assert grown == Fit(size=4, is_short=True)


def test_stops_where_none_fits_any_more() -> None:
    """The pool stops growing where no child fits any more, and says which bound holds it."""
    held = fit(size=5, wanted=20, heaviest=50 * MIB, bounds=budget(300, used=255))
    assert held == Fit(size=5, is_short=True, held_by="45 MiB are left of the budget, and a child owns up to 50")


def test_the_last_one_that_fits_is_no_reason_to_wait() -> None:
    """The last child that fits does not count as a shortage if no more are wanted."""
    assert fit(size=1, wanted=2, heaviest=50 * MIB, bounds=budget(60)) == Fit(size=2)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_the_tightest_counts(names: tuple[str, str]) -> None:
    """The tightest bound counts."""
    two = [Bound(name=name, limit=MIB if name == "a" else 10**12, used=0, reserve=0) for name in names]
    assert fit(size=1, wanted=9, heaviest=50 * MIB, bounds=two).size == 1


@given(size=sizes, growth=st.integers(1, 64), heaviest=memory, limits=bounds)
def test_never_beyond(size: int, growth: int, heaviest: int, limits: list[Bound]) -> None:
    """The size neither shrinks, nor exceeds what is wanted, nor exceeds the memory."""
    fitting = fit(size=size, wanted=size + growth, heaviest=heaviest, bounds=limits)
    assert size <= fitting.size <= size + growth
    assert fitting.is_short == (fitting.size < size + growth)
    for bound in limits:
        assert (fitting.size - size) * heaviest <= bound.free
    if fitting.size == size:
        assert fitting.held_by, "nobody would know why it does not grow"


@given(size=sizes, growth=st.integers(1, 64), heaviest=memory, limits=bounds, more=memory)
def test_more_memory_never_means_fewer(size: int, growth: int, heaviest: int, limits: list[Bound], more: int) -> None:
    """More memory never means fewer children."""
    roomier = [Bound(name=b.name, limit=b.limit + more, used=b.used, reserve=b.reserve) for b in limits]
    before = fit(size=size, wanted=size + growth, heaviest=heaviest, bounds=limits)
    assert before.size <= fit(size=size, wanted=size + growth, heaviest=heaviest, bounds=roomier).size
