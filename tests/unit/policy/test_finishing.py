"""How many children record how tasks ended."""

from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.finishing import MAX_FINISHERS, SLOW_S, finishers

SIZES = st.integers(0, MAX_FINISHERS)
COUNTS = st.integers(0, 100_000)
SECONDS = st.floats(0, 1000)


def test_examples() -> None:
    """One child is made by the first request, a second one when it is slow and more wait; at rest there is one."""
    assert finishers(0, waiting=1, took=0.0) == 1
    assert finishers(1, waiting=5, took=SLOW_S * 2) == 2
    assert finishers(1, waiting=5, took=SLOW_S / 2) == 1
    assert finishers(3, waiting=3, took=SLOW_S * 2) == 3
    assert finishers(3, waiting=0, took=SLOW_S * 2) == 1


@given(SIZES, COUNTS, SECONDS)
def test_bounds(size: int, waiting: int, took: float) -> None:
    """There is always one, never more than the maximum, and one more at a time."""
    found = finishers(size, waiting=waiting, took=took)
    assert 1 <= found <= MAX_FINISHERS
    assert found <= max(size, 0) + 1
    assert found >= size or not waiting
