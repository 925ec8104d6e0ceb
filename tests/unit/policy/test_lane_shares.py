"""How the lanes of a worker share the prefetch of a queue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.lane_shares import FIRST_SLOTS, HeadOfLine, SlotWindow, shared_hold


@pytest.mark.parametrize(
    ("process", "weight", "slots", "held"),
    [
        (8, 1, 0, 8),
        (8, 3, 0, 24),
        (8, 3, 100, 124),
        (None, 3, 100, 100),
        (0, 3, 100, 0),
        (65_535, 2, 0, 65_535),
        (8, 1, 100_000, 65_535),
    ],
)
def test_shared(process: int | None, weight: int, slots: int, held: int) -> None:
    """A weight multiplies the process lane's part only; 0 is no limit; the broker's number has 16 bits."""
    assert shared_hold(process, weight, slots) == held


def test_a_flood_opens_the_window_in_six_steps() -> None:
    """The part of the other lanes doubles while three quarters of it are at work."""
    window = SlotWindow(1000)
    assert window.part == 16
    assert window.decide(11, 0.0) == 16
    assert [window.decide(window.part, float(step)) for step in range(7)] == [32, 64, 128, 256, 512, 1000, 1000]
    assert SlotWindow(5).part == 5


def test_quiet_halves_the_window() -> None:
    """The part is halved after a minute under a quarter, not sooner, and not below where it began."""
    window = SlotWindow(1000)
    window.decide(16, 0.0)
    window.decide(32, 0.0)
    assert window.decide(15, 10.0) == 64
    assert window.decide(15, 69.9) == 64
    assert window.decide(16, 69.95) == 64, "a quarter is at work again"
    assert window.decide(15, 70.0) == 64
    assert window.decide(0, 130.0) == 32
    assert window.decide(0, 189.9) == 32
    assert window.decide(0, 190.0) == 16
    assert [window.decide(0, 190.0 + 60 * step) for step in range(1, 5)] == [16] * 4


@given(slots=st.integers(1, 5000), steps=st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 100)), max_size=60))
def test_the_window_is_bounded(slots: int, steps: list[tuple[int, float]]) -> None:
    """The part is never more than the slots, and never less than where it began."""
    window, now = SlotWindow(slots), 0.0
    for at_work, passed in steps:
        now += passed
        assert min(FIRST_SLOTS, slots) <= window.decide(min(at_work, slots), now) <= slots


def test_it_says_once_what_is_in_the_way() -> None:
    """A line is due after five seconds on end, and not again for ten minutes."""
    head = HeadOfLine()

    def at(now: float, held: int = 20, *, has_room: bool = True) -> bool:
        return head.decide(held=held, share=8, has_room=has_room, now=now)

    assert not at(0.0)
    assert not at(4.9)
    assert not at(4.95, held=8), "not in the way for a moment"
    assert not at(5.0)
    assert not at(9.9, has_room=False), "the others are full themselves"
    assert not at(10.0)
    assert at(15.0)
    assert not any(at(now) for now in (16.0, 100.0, 614.9))
    assert at(615.0)
