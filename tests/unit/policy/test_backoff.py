"""Waiting before the next attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.backoff import ceiling, delay, next_attempt

attempts = st.integers(1, 10_000)
chances = st.floats(0, 1)


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, float]:
    """Return the arguments that say how a backoff grows."""
    first = draw(st.floats(0, 10))
    return {"first": first, "factor": draw(st.floats(1, 10)), "limit": draw(st.floats(first, 100))}


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 0.2), (2, 0.4), (3, 0.8), (8, 25.6), (9, 30), (5000, 30)])
def test_doubles_up_to_the_limit(attempt: int, seconds: float) -> None:
    """The delay doubles with each attempt up to its limit."""
    assert delay(attempt, first=0.2, factor=2, limit=30, jitter=1) == pytest.approx(seconds)


@given(attempt=attempts, shape=shapes(), jitter=chances)
def test_stays_within_its_bounds(attempt: int, shape: dict[str, float], jitter: float) -> None:
    """The delay is between half its ceiling and its ceiling, which is at most the limit."""
    most = ceiling(attempt, **shape)
    assert most / 2 <= delay(attempt, **shape, jitter=jitter) <= most <= shape["limit"]


@given(attempt=attempts, shape=shapes(), jitter=chances)
def test_never_shrinks(attempt: int, shape: dict[str, float], jitter: float) -> None:
    """The delay does not shrink with the number of attempts."""
    assert delay(attempt, **shape, jitter=jitter) <= delay(attempt + 1, **shape, jitter=jitter)


@given(attempt=attempts, shape=shapes(), one=chances, other=chances)
def test_chance_spreads_the_crowd(attempt: int, shape: dict[str, float], one: float, other: float) -> None:
    """The delay grows with the random number, so that workers spread."""
    low, high = sorted((one, other))
    assert delay(attempt, **shape, jitter=low) <= delay(attempt, **shape, jitter=high)


@pytest.mark.parametrize(
    "wrong", [{"attempt": 0}, {"first": -1.0}, {"factor": 0.5}, {"limit": 0.1}, {"jitter": 1.5}, {"jitter": -0.1}]
)
def test_refuses_nonsense(wrong: dict[str, float]) -> None:
    """A backoff with impossible numbers is refused."""
    right: dict[str, float] = {"attempt": 1, "first": 0.2, "factor": 2.0, "limit": 30.0, "jitter": 0.5}
    with pytest.raises(ValueError, match="no such backoff"):
        delay(**{**right, **wrong})  # type: ignore[arg-type]  # attempt is an int in both


@pytest.mark.parametrize(("lasted", "following"), [(0.0, 5), (4.9, 5), (5.0, 1), (3600.0, 1)])
def test_a_short_life_is_a_failure(lasted: float, following: int) -> None:
    """A start that lasted only briefly counts as one more failure; one that lasted longer resets the count."""
    assert next_attempt(4, lasted=lasted, settled_after=5.0) == following
