"""When no more messages are taken because outcomes wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.backlog import MAX_WAITING, MAX_WAITING_BYTES, holds_back


@pytest.mark.parametrize(
    ("waiting", "size", "before", "after"),
    [
        (0, 0, False, False),
        (MAX_WAITING, MAX_WAITING_BYTES, False, False),
        (MAX_WAITING + 1, 0, False, True),
        (1, MAX_WAITING_BYTES + 1, False, True),
        (MAX_WAITING // 2 + 1, 0, True, True),
        (1, MAX_WAITING_BYTES // 2 + 1, True, True),
        (MAX_WAITING // 2, MAX_WAITING_BYTES // 2, True, False),
        (0, 0, True, False),
    ],
)
def test_examples(waiting: int, size: int, before: bool, after: bool) -> None:
    """Messages are held back beyond a number or a size, and taken again when half of both is left."""
    assert holds_back(waiting, size, is_held_back=before) is after


@given(st.integers(0, 3 * MAX_WAITING), st.integers(0, 3 * MAX_WAITING_BYTES), st.booleans())
def test_bounds(waiting: int, size: int, before: bool) -> None:
    """Beyond a bound messages are held back whatever was before, and a decision stays while nothing changes."""
    after = holds_back(waiting, size, is_held_back=before)
    assert after or (waiting <= MAX_WAITING and size <= MAX_WAITING_BYTES)
    assert holds_back(waiting, size, is_held_back=after) is after
