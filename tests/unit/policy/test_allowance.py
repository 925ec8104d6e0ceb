"""How much of something may be used up."""

from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.allowance import Allowance


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 3)), max_size=40), st.integers(1, 20), st.integers(0, 5))
def test_no_more_than_the_rate(asked: list[tuple[int, int]], most: int, rate: int) -> None:
    """At no time was more used than the initial amount and what has come back since."""
    allowance, now, used = Allowance(most, rate), 100.0, 0
    for amount, pause in asked:
        now += pause
        used += amount if allowance.take(amount, now) else 0
        assert used <= most + (now - 100.0) * rate


def test_it_comes_back() -> None:
    """What is used up comes back at the given rate."""
    allowance = Allowance(2, 1)
    assert [allowance.take(2, 0.0), allowance.take(1, 0.5), allowance.take(1, 1.0)] == [True, False, True]
