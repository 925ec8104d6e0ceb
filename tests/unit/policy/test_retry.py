"""When a task that failed is run again."""

import datetime as dt

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.retry import DEFAULT_DELAY_S, DEFAULT_MAX_BACKOFF_S, RetryPace, wait
from tests.strategies import NOON

chances = st.floats(0, 1)
retries = st.integers(0, 10_000)
seconds = st.floats(0, 1e15)
paces = st.builds(
    RetryPace, delay=seconds, backoff=st.none() | st.floats(1e-3, 1e15), max_backoff=seconds, jitter=st.booleans()
)
CENTURY = 100 * 365 * 86400


def backing_off(backoff: float, **more: float) -> RetryPace:
    """A pace without chance."""
    return RetryPace(backoff=backoff, jitter=False, **more)


def test_the_numbers_are_celerys() -> None:
    """The defaults are Celery's."""
    assert (DEFAULT_DELAY_S, DEFAULT_MAX_BACKOFF_S) == (180, 600)
    assert RetryPace() == RetryPace(delay=180, backoff=None, max_backoff=600, jitter=True)


@pytest.mark.parametrize("number", [0, 1, 7])
def test_without_backoff(number: int) -> None:
    """Without a backoff the delay is constant and not spread."""
    assert wait(RetryPace(), retries=number, countdown=None, chance=0.3) == 180
    assert wait(RetryPace(delay=5), retries=number, countdown=None, chance=0.3) == 5


@pytest.mark.parametrize(
    ("factor", "number", "expected"),
    [(1, 0, 1), (1, 1, 2), (1, 9, 512), (1, 10, 600), (5, 0, 5), (5, 3, 40), (5, 7, 600), (1, 10_000, 600)],
)
def test_backoff(factor: float, number: int, expected: float) -> None:
    """The backoff is the factor times two to the power of the retries, at most retry_backoff_max, as in Celery."""
    assert wait(backing_off(factor), retries=number, countdown=None, chance=0.3) == expected


@given(pace=paces, number=retries, countdown=st.floats(allow_nan=False, allow_infinity=False), chance=chances)
def test_the_task_knows_best(pace: RetryPace, number: int, countdown: float, chance: float) -> None:
    """A countdown of the task's own is used as it is; a negative one means now."""
    found = wait(pace, retries=number, countdown=countdown, chance=chance)
    assert found == min(max(0.0, countdown), CENTURY)


@given(pace=paces, number=retries, countdown=st.none() | st.floats(), chance=chances)
def test_it_ends_at_a_moment(pace: RetryPace, number: int, countdown: float | None, chance: float) -> None:
    """A wait is not negative, and ends at a date that can be written."""
    found = wait(pace, retries=number, countdown=countdown, chance=chance)
    assert 0 <= found <= CENTURY
    assert NOON + dt.timedelta(seconds=found) >= NOON


@given(backoff=st.floats(1e-3, 1e3), max_backoff=st.floats(0, 1e6), number=retries, chance=chances)
def test_full_jitter(backoff: float, max_backoff: float, number: int, chance: float) -> None:
    """The full jitter spreads a wait from 0 to the whole backoff."""
    pace = RetryPace(backoff=backoff, max_backoff=max_backoff)
    whole = wait(backing_off(backoff, max_backoff=max_backoff), retries=number, countdown=None, chance=chance)
    assert wait(pace, retries=number, countdown=None, chance=0) == 0
    assert wait(pace, retries=number, countdown=None, chance=1) == whole <= max_backoff
    assert wait(pace, retries=number, countdown=None, chance=chance) == whole * chance


@given(pace=paces, number=retries, chance=chances)
def test_never_shrinks(pace: RetryPace, number: int, chance: float) -> None:
    """A wait does not shrink with the number of retries."""
    earlier = wait(pace, retries=number, countdown=None, chance=chance)
    assert earlier <= wait(pace, retries=number + 1, countdown=None, chance=chance)


@given(pace=paces, number=retries, chance=chances)
def test_doubles_until_the_limit(pace: RetryPace, number: int, chance: float) -> None:
    """A wait doubles with each retry until its limit."""
    pace = attrs.evolve(pace, backoff=pace.backoff or 1.0, jitter=False)
    earlier = wait(pace, retries=number, countdown=None, chance=chance)
    later = wait(pace, retries=number + 1, countdown=None, chance=chance)
    assert later == min(2 * earlier, pace.max_backoff, CENTURY)


@pytest.mark.parametrize("chance", [-0.1, 1.1, float("nan")])
def test_no_chance(chance: float) -> None:
    """A random number outside 0 to 1 is refused."""
    with pytest.raises(ValueError, match="no chance"):
        wait(RetryPace(), retries=0, countdown=None, chance=chance)
