"""How many messages a worker holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.prefetch import prefetch

sizes = st.integers(1, 50)


@pytest.mark.parametrize(
    ("size", "ceiling", "multiplier", "disabled", "held"),
    [
        (2, 2, 4, False, 8),
        (2, 2, 0, False, 0),
        (2, 4, 1, False, 3),
        (4, 4, 1, False, 4),
        (2, 2, 4, True, 2),
        (2, 2, 0, True, 2),
        (1, 4, 4, True, 4),
    ],
)
def test_held(size: int, ceiling: int, multiplier: int, disabled: bool, held: int) -> None:
    """The prefetch count is the pool's size times the multiplier, with a spare for growth."""
    assert prefetch(size=size, ceiling=ceiling, multiplier=multiplier, disabled=disabled) == held


@given(size=sizes, more=st.integers(0, 50), multiplier=st.integers(0, 10), disabled=st.booleans())
def test_enough_for_every_child_and_to_grow(size: int, more: int, multiplier: int, disabled: bool) -> None:
    """The prefetch count has a message for every child, and one more if the pool can grow."""
    held = prefetch(size=size, ceiling=size + more, multiplier=multiplier, disabled=disabled)
    if held:
        assert held >= size + (more > 0)
    else:
        assert multiplier == 0, "0 is no limit at all"
        assert not disabled
