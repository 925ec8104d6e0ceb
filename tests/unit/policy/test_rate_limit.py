"""Rate limits: when calls may start, and where messages wait until then."""

from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.rate_limit import MAX_AWAY_S, MAX_HERE_S, NEAR_S, SLACK_S, SUPPLY, TaskRate

rates = st.sampled_from([1 / 3600, 0.1, 1.0, 7.0, 100.0, 2500.0])
#: seconds between two calls that want to start
steps = st.lists(st.floats(0.0, 20.0) | st.floats(0.0, 0.01), min_size=1, max_size=60)
ROUNDING_S = 1e-6


@given(rates, steps)
def test_never_faster(rate: float, passed: list[float]) -> None:
    """Any `n` calls that start in turn need the time of `n - 1` intervals, less the slack; also after a quiet time."""
    limit, now, started = TaskRate(rate), 1000.0, list[float]()
    for step in passed:
        now += step
        if not limit.take(now):
            started.append(now)
    for first, begin in enumerate(started):
        for last in range(first + 1, len(started)):
            assert started[last] - begin >= (last - first) / rate - SLACK_S - ROUNDING_S


@given(rates, st.integers(1, 50), st.floats(0.0, SLACK_S))
def test_as_fast_as_allowed(rate: float, calls: int, late: float) -> None:
    """Calls that wait start as often as the rate says, though timers are a little late."""
    limit, now = TaskRate(rate), 1000.0
    for _ in range(calls):
        assert limit.take(now) == 0.0
        now = max(now, limit.next_at) + late
    assert now - 1000.0 <= calls / rate + late * (1 if 1 / rate > late else calls) + ROUNDING_S


@given(rates, steps)
def test_the_wait_is_told(rate: float, passed: list[float]) -> None:
    """A call that may not start is told for how long, and may start then."""
    limit, now = TaskRate(rate), 1000.0
    for step in passed:
        now += step
        if wait := limit.take(now):
            now += wait
            assert limit.take(now + ROUNDING_S) == 0.0


@given(rates, st.integers(0, 500), st.floats(0.0, 1.0))
def test_where_it_waits(rate: float, waiting: int, chance: float) -> None:
    """What waits here is near its turn, or one of a few; what waits in the broker comes back within a bound."""
    limit, now = TaskRate(rate), 1000.0
    limit.take(now)
    turn = (waiting + 1) / rate
    away = limit.away(waiting, now, chance)
    if away:
        assert turn >= NEAR_S - ROUNDING_S
        assert waiting >= SUPPLY or turn >= MAX_HERE_S - ROUNDING_S
        assert NEAR_S <= away <= MAX_AWAY_S
    else:
        assert turn < NEAR_S + ROUNDING_S or (waiting < SUPPLY and turn < MAX_HERE_S + ROUNDING_S)


def test_messages_come_back_in_turn() -> None:
    """Of many messages at once each is planned for a turn of its own, and those beyond the plan are spread."""
    limit, now = TaskRate(2.0, next_at=1000.5), 1000.0
    planned = [limit.away(SUPPLY, now, 0.5) for _ in range(700)]
    assert planned[:4] == [1.5, 2.0, 2.5, 3.0]
    assert planned[-1] == MAX_AWAY_S * 0.75
    assert len(set(planned[:590])) == 590
