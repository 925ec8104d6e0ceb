"""When a child has served enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.recycle import RecycleLimits, age_reason, is_last, limits_for_child, retire_reason

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
    """A child goes at max_tasks_per_child."""
    assert (retire_reason(RecycleLimits(tasks=10), tasks=done, owned=0) is not None) == goes


@pytest.mark.parametrize(("mib", "goes"), [(0, False), (200, False), (201, True)])
def test_memory(mib: int, goes: bool) -> None:
    """A child goes above max_memory_per_child."""
    assert (retire_reason(RecycleLimits(memory=200 * MIB), tasks=1, owned=mib * MIB) is not None) == goes


def test_reasons_show_their_figures() -> None:
    """The reason shows the setting and its figures."""
    both = RecycleLimits(tasks=10, memory=200 * MIB)
    assert retire_reason(both, tasks=10, owned=0) == "max_tasks_per_child: 10 tasks"
    assert retire_reason(both, tasks=1, owned=212 * MIB) == "max_memory_per_child: 212.0 MiB own, limit 200.0 MiB"


@given(tasks=tasks, owned=owned)
def test_no_limit_no_end(tasks: int, owned: int) -> None:
    """Without limits no child goes."""
    assert retire_reason(RecycleLimits(), tasks=tasks, owned=owned) is None
    assert not is_last(RecycleLimits(), tasks=tasks)


@given(limits=limits, tasks=tasks)
def test_the_last_is_known_in_advance(limits: RecycleLimits, tasks: int) -> None:
    """The last task before a child goes by its count is known in advance."""
    goes_by_count = retire_reason(RecycleLimits(tasks=limits.tasks), tasks=tasks + 1, owned=0) is not None
    assert is_last(limits, tasks=tasks) == goes_by_count


@given(limits=limits, tasks=tasks, owned=owned)
def test_never_younger_again(limits: RecycleLimits, tasks: int, owned: int) -> None:
    """A child over a limit stays over it."""
    if retire_reason(limits, tasks=tasks, owned=owned) is not None:
        assert retire_reason(limits, tasks=tasks + 1, owned=owned + 1) is not None


chances = st.floats(0, 1, exclude_max=True)
jittered = st.builds(
    RecycleLimits,
    tasks=st.none() | st.integers(1, 5000),
    memory=st.none() | st.integers(1, 10),
    age=st.none() | st.floats(0.01, 1e6),
    jitter=st.floats(0, 1),
)


@given(limits=jittered, chance=chances)
def test_a_share_is_never_over_the_limit(limits: RecycleLimits, chance: float) -> None:
    """A child's own limits are at most the configured ones, and within the jitter."""
    own = limits_for_child(limits, chance=chance)
    assert own.memory == limits.memory
    if limits.tasks is None:
        assert own.tasks is None
    else:
        assert own.tasks is not None
        assert max(1, limits.tasks - limits.tasks * limits.jitter) <= own.tasks <= limits.tasks
    if limits.age is None:
        assert own.age is None
    else:
        assert own.age is not None
        assert 0 <= own.age <= limits.age


@given(chance=chances)
def test_small_counts_stay_exact(chance: float) -> None:
    """A small count is not changed by the jitter."""
    assert limits_for_child(RecycleLimits(tasks=10, jitter=0.05), chance=chance).tasks == 10


def test_large_counts_differ() -> None:
    """A large count is spread over the jitter."""
    found = {limits_for_child(RecycleLimits(tasks=1000, jitter=0.05), chance=n / 100).tasks for n in range(100)}
    assert (min(found), max(found)) == (950, 1000)  # type: ignore[type-var]  # none is None
    assert len(found) == 51


@pytest.mark.parametrize(("jitter", "chance"), [(-0.1, 0), (1.1, 0), (0, 1), (0, -0.1)])
def test_no_such_share(jitter: float, chance: float) -> None:
    """An impossible jitter or random number is refused."""
    with pytest.raises(ValueError, match="no such share"):
        limits_for_child(RecycleLimits(tasks=5, jitter=jitter), chance=chance)


@pytest.mark.parametrize(("age", "goes"), [(0, False), (59.9, False), (60, True), (61, True)])
def test_age(age: float, goes: bool) -> None:
    """A child goes at max_age_per_child."""
    assert (age_reason(RecycleLimits(age=60), age=age) is not None) == goes
    assert age_reason(RecycleLimits(), age=age) is None


def test_who_needs_a_spare() -> None:
    """One spare is needed if children go by count or by memory."""
    assert [RecycleLimits(tasks=1).spares, RecycleLimits(memory=1).spares, RecycleLimits().spares] == [1, 1, 0]
    assert RecycleLimits(age=60).spares == 0, "it works on until its replacement is there"
