"""How many calls may be in a child's channel at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.pipelining import MAX_DEPTH, MAX_SHORT_CALL_S, DurationEstimate
from hybridpool._policy.time_limits import STALL

runtimes = st.floats(0.0, 10.0)
BRIEFLY = 0.000_1


def after(*seconds: float) -> DurationEstimate:
    """Return a memory of calls that took so long, in this order."""
    pace = DurationEstimate()
    for runtime in seconds:
        pace.note("a", runtime)
    return pace


def test_the_unknown_goes_alone() -> None:
    """A task of unknown duration goes alone."""
    assert DurationEstimate().depth("a") == 1
    assert after(BRIEFLY).depth("b") == 1


@pytest.mark.parametrize(
    ("runtime", "depth"),
    [
        (0.0, MAX_DEPTH),
        (0.000_01, MAX_DEPTH),
        (0.000_4, 40),
        (0.001, 16),
        (MAX_SHORT_CALL_S / 2, 8),
        (MAX_SHORT_CALL_S * 0.99, 4),
        (MAX_SHORT_CALL_S, 1),
        (60.0, 1),
    ],
)
def test_about_sixteen_milliseconds_of_work(runtime: float, depth: int) -> None:
    """As many calls are sent ahead as take about sixteen milliseconds."""
    assert after(runtime).depth("a") == depth


def test_bad_news_counts_at_once() -> None:
    """A slow call counts at once."""
    assert after(*[BRIEFLY] * 100, 0.5).depth("a") == 1


def test_good_news_counts_in_time() -> None:
    """After a slow call the depth recovers with the next brief ones."""
    pace = after(0.01, BRIEFLY)
    assert pace.depth("a") == 1
    for _ in range(20):
        pace.note("a", BRIEFLY)
    assert pace.depth("a") > 10


@given(seconds=st.lists(runtimes, min_size=1, max_size=20))
def test_depth_stays_within_its_bounds(seconds: list[float]) -> None:
    """The depth is at least 1 and at most its maximum."""
    assert 1 <= after(*seconds).depth("a") <= MAX_DEPTH


@given(seconds=st.lists(runtimes, max_size=20), last=st.floats(MAX_SHORT_CALL_S, 10.0))
def test_nothing_is_put_behind_what_was_long_just_now(seconds: list[float], last: float) -> None:
    """Nothing is put behind a task that was slow just now."""
    assert after(*seconds, last).depth("a") == 1


@given(seconds=st.lists(runtimes, min_size=1, max_size=20))
def test_the_work_ahead_is_bounded_by_what_was_seen(seconds: list[float]) -> None:
    """The work sent ahead is at most sixteen milliseconds by the shortest duration seen."""
    depth = after(*seconds).depth("a")
    assert depth == 1 or depth * min(seconds) <= 0.016
    assert depth == 1 or min(seconds) < MAX_SHORT_CALL_S < STALL, "a call that is called back would not be put there"


def test_names_do_not_pile_up() -> None:
    """The number of remembered names is bounded, and the newest are kept."""
    pace = DurationEstimate()
    for number in range(10_000):
        pace.note(f"name {number}", BRIEFLY)
    assert len(pace._seconds) <= 4096
    assert pace.depth("name 9999") > 1
