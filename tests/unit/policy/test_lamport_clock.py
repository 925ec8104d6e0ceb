"""The logical clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.lamport_clock import MAX_BELIEVED, LamportClock


@given(st.lists(st.none() | st.integers(0, MAX_BELIEVED - 1)))
def test_it_goes_on(heard: list[int | None]) -> None:
    """Each event has a later time than those before it, here and where a message came from."""
    clock = LamportClock()
    for other in heard:
        before = clock.value
        now = clock.forward() if other is None else clock.adjust(other)
        assert now == clock.value > max(before, other or 0)


@pytest.mark.parametrize("told", [None, "7", -1, 1.5, True, MAX_BELIEVED, [1]])
def test_what_is_not_believed(told: object) -> None:
    """A value that no clock has counts as none."""
    clock = LamportClock()
    assert clock.adjust(told) == 1
