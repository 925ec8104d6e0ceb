"""When a child has served enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool.policy.recycle import RecycleLimits, is_last, verdict

MIB = 1024 * 1024
limits = st.builds(
    RecycleLimits,
    tasks=st.none() | st.integers(1, 20),
    memory=st.none() | st.integers(1, 500).map(lambda mib: mib * MIB),
)
tasks = st.integers(0, 25)
owned = st.integers(0, 600 * MIB)


@pytest.mark.parametrize(("done", "goes"), [(1, False), (9, False), (10, True), (11, True)])
def test_count(done: int, goes: bool) -> None:
    """A child would run one task more or less than max_tasks_per_child."""
    assert (verdict(RecycleLimits(tasks=10), tasks=done, owned=0) is not None) == goes


@pytest.mark.parametrize(("mib", "goes"), [(0, False), (200, False), (201, True)])
def test_memory(mib: int, goes: bool) -> None:
    """A child would grow without end, or be replaced below the limit."""
    assert (verdict(RecycleLimits(memory=200 * MIB), tasks=1, owned=mib * MIB) is not None) == goes


def test_reasons_show_their_figures() -> None:
    """An operator could not see from the log which limit to change."""
    both = RecycleLimits(tasks=10, memory=200 * MIB)
    assert verdict(both, tasks=10, owned=0) == "max_tasks_per_child: 10 tasks"
    assert verdict(both, tasks=1, owned=212 * MIB) == "max_memory_per_child: 212.0 MiB own, limit 200.0 MiB"


@given(tasks=tasks, owned=owned)
def test_no_limit_no_end(tasks: int, owned: int) -> None:
    """Children would be replaced though nobody asked for it."""
    assert verdict(RecycleLimits(), tasks=tasks, owned=owned) is None
    assert not is_last(RecycleLimits(), tasks=tasks)


@given(limits=limits, tasks=tasks)
def test_the_last_is_known_in_advance(limits: RecycleLimits, tasks: int) -> None:
    """A replacement would be made for a child that stays, or none for one that goes."""
    goes_by_count = verdict(RecycleLimits(tasks=limits.tasks), tasks=tasks + 1, owned=0) is not None
    assert is_last(limits, tasks=tasks) == goes_by_count


@given(limits=limits, tasks=tasks, owned=owned)
def test_never_younger_again(limits: RecycleLimits, tasks: int, owned: int) -> None:
    """A child over a limit would be kept because it ran one task more."""
    if verdict(limits, tasks=tasks, owned=owned) is not None:
        assert verdict(limits, tasks=tasks + 1, owned=owned + 1) is not None
