"""How many messages of a queue are held, by how long its tasks take."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.pace import (
    FIRST_PER_CHILD,
    MAX_HOLD,
    MAX_PER_CHILD,
    Children,
    QueuePace,
    target,
)

TWO = Children(size=2, ceiling=2)
STUCK = Children(size=2, ceiling=2, on_long_calls=2)
runtimes = st.floats(0.0, 1e5)
round_trips = st.floats(0.0, 100.0)


@st.composite
def some_children(draw: st.DrawFn) -> Children:
    """Draw children of a pool."""
    size = draw(st.integers(1, 2000))
    return Children(size=size, ceiling=size + draw(st.integers(0, 50)), on_long_calls=draw(st.integers(0, size)))


@pytest.mark.parametrize(
    ("children", "runtime", "round_trip", "held"),
    [
        (TWO, None, 0.0, 8),
        (TWO, 0.0, 0.0, 128),
        (TWO, 0.001, 0.001, 128),
        (TWO, 0.01, 0.001, 22),
        # a far broker: work for four round trips
        (TWO, 0.01, 0.1, 82),
        # a second of work at most, however slow the broker is
        (TWO, 0.1, 10.0, 22),
        (TWO, 0.1, 0.001, 4),
        (TWO, 60.0, 0.001, 2),
        (Children(size=50, ceiling=50), 10.0, 0.001, 50),
        # a child with a long call needs no further message, the other one does
        (Children(size=2, ceiling=2, on_long_calls=1), 0.0, 0.0, 65),
        (STUCK, 0.0, 0.0, 2),
        (STUCK, None, 0.0, 2),
        # a message beyond the size lets the pool grow
        (Children(size=1, ceiling=3), 60.0, 0.0, 3),
        (Children(size=2000, ceiling=2000), 0.0, 0.0, MAX_HOLD),
    ],
)
def test_target(children: Children, runtime: float | None, round_trip: float, held: int) -> None:
    """As much is held as runs in a few round trips, between what can start now and 64 for each child."""
    assert target(children, runtime, round_trip) == held


@given(children=some_children(), runtime=st.none() | runtimes, round_trip=round_trips)
def test_target_is_bounded(children: Children, runtime: float | None, round_trip: float) -> None:
    """Every child can have a message, none more than 64, and the broker takes the number."""
    held = target(children, runtime, round_trip)
    assert 1 <= min(children.can_start, MAX_HOLD) <= held <= MAX_HOLD
    assert held <= max(children.can_start, children.size * MAX_PER_CHILD)


@given(children=some_children(), runtime=runtimes, longer=runtimes, round_trip=round_trips)
def test_longer_tasks_are_held_less(children: Children, runtime: float, longer: float, round_trip: float) -> None:
    """The longer tasks take, the fewer are held."""
    assert target(children, runtime + longer, round_trip) <= target(children, runtime, round_trip)


def paced(runtime: float, count: int, children: Children = TWO, at: float = 0.0) -> QueuePace:
    """Return the pace of a queue of which so many calls have ended since it was first decided on."""
    pace = QueuePace()
    pace.decide(children, 0.0, at)
    for _ in range(count):
        pace.note(runtime)
    return pace


def test_it_begins_small() -> None:
    """Before a call has ended, four messages are held for each child."""
    assert QueuePace().decide(TWO, 0.0, 0.0) == TWO.size * FIRST_PER_CHILD


def test_as_many_short_calls_as_would_be_held_are_enough_to_grow_at_once() -> None:
    """The whole growth is made at once when as many calls have ended, and `note` says when that is."""
    pace = QueuePace()
    pace.decide(TWO, 0.0, 0.0)
    due = [pace.note(0.0001) for _ in range(200)]
    assert due.index(True) == 2 * MAX_PER_CHILD - 1
    assert due.count(True) == 1
    assert pace.decide(TWO, 0.0, 0.01) == 2 * MAX_PER_CHILD


def test_few_short_calls_double_it_each_second() -> None:
    """With fewer short calls the hold doubles, at most once a second, and not without any call."""
    pace = paced(0.0001, 10)
    seen = []
    for second in range(1, 7):
        seen.append(pace.decide(TWO, 0.0, float(second)))
        pace.note(0.0001)
        assert pace.decide(TWO, 0.0, second + 0.9) == seen[-1]
    assert seen == [16, 32, 64, 128, 128, 128]
    pace = paced(0.0001, 10)
    assert [pace.decide(TWO, 0.0, float(second)) for second in range(1, 4)] == [16, 16, 16]


def test_it_shrinks_at_once_when_a_long_call_is_seen() -> None:
    """One call of a minute among a thousand short ones is enough to hold only what can start now."""
    pace = paced(0.001, 1000)
    assert pace.decide(TWO, 0.0, 10.0) == 128
    pace.note(60.0)
    assert pace.decide(TWO, 0.0, 11.0) == 2


def test_it_shrinks_while_a_long_call_still_runs() -> None:
    """Children that have run their calls for a second make it shrink before those calls have ended."""
    pace = paced(0.001, 1000)
    assert pace.decide(TWO, 0.0, 10.0) == 128
    assert pace.decide(STUCK, 0.0, 11.0) == 2


def test_one_child_with_a_long_call_leaves_the_others_theirs() -> None:
    """A hold is not changed when half of it or more is still wanted."""
    pace = paced(0.001, 1000)
    pace.decide(TWO, 0.0, 10.0)
    assert pace.decide(Children(size=2, ceiling=2, on_long_calls=1), 0.0, 20.0) == 128


def test_a_little_more_or_less_changes_nothing() -> None:
    """A hold stays until it should be half as large again, or half as large."""
    pace = paced(0.01, 1000)
    assert pace.decide(TWO, 0.0, 10.0) == 22
    steps = ((0.0072, 22), (0.018, 22), (0.03, 9), (0.021, 9), (0.015, 15))
    for second, (runtime, held) in enumerate(steps, start=20):
        for _ in range(1000):
            pace.note(runtime)
        assert (runtime, pace.decide(TWO, 0.0, float(second))) == (runtime, held)


@given(
    steps=st.lists(
        st.tuples(st.floats(0.0, 3.0), st.lists(st.floats(0.0, 100.0), max_size=200), st.integers(0, 4), round_trips),
        max_size=30,
    ),
    ceiling=st.integers(4, 8),
)
def test_changes_are_rare_and_bounded(steps: list[tuple[float, list[float], int, float]], ceiling: int) -> None:
    """Whatever is measured, a hold changes at most once a second, and stays between its bounds."""
    pace, now, changed_at = QueuePace(), 0.0, None
    hold = pace.decide(Children(size=4, ceiling=ceiling), 0.0, now)
    for passed, ended, long, round_trip in steps:
        now += passed
        for runtime in ended:
            pace.note(runtime)
        chosen = pace.decide(Children(size=4, ceiling=ceiling, on_long_calls=long), round_trip, now)
        assert ceiling <= chosen <= 4 * MAX_PER_CHILD
        if chosen != hold:
            assert changed_at is None or now - changed_at >= 1.0
            changed_at = now
        hold = chosen


@given(runtime=st.floats(1e-5, 100.0), spread=st.floats(0.85, 1.15), seconds=st.integers(20, 60))
def test_it_comes_to_rest(runtime: float, spread: float, seconds: int) -> None:
    """With runtimes that vary a little about a value, the hold stays what it is after ten changes at most."""
    pace, holds = QueuePace(), []
    for second in range(seconds):
        for number in range(100):
            pace.note(runtime * (spread if number % 2 else 2 - spread))
        holds.append(pace.decide(TWO, 0.001, float(second)))
    assert len(set(holds[10:])) == 1
    changes = sum(before != after for before, after in pairwise(holds))
    assert changes <= 10


def test_surplus_goes_back_only_if_it_would_wait_long() -> None:
    """Messages go back when all children run long calls, or when they would wait for more than a second."""
    short, long = paced(0.001, 10), paced(10.0, 10)
    assert not short.gives_back(100, TWO)
    assert short.gives_back(1, STUCK)
    assert not short.gives_back(0, STUCK)
    assert long.gives_back(1, TWO)
    assert not paced(1.0, 0).gives_back(6, TWO), "nothing is known of them"
