"""Calls of a task that may run only so many at once are held back."""

from hypothesis import given
from hypothesis import strategies as st

from hybridpool._lanes.base import Job
from hybridpool._lanes.quota import TaskQuota


def job(task: str = "t", concurrency: int = 1, priority: int = 0) -> Job:
    """Return a call of a task with a limit of its own."""
    return Job(
        task=task,
        id="",
        content_type="",
        body=b"",
        on_done=lambda *_: None,
        concurrency=concurrency,
        priority=priority,
    )


def test_those_above_the_limit_are_parked_in_order() -> None:
    """A call above its task's limit is parked, and comes out, oldest first, as others end."""
    quota = TaskQuota()
    first, second, third = job(), job(), job()
    assert [quota.take(one) for one in (first, second, third)] == [True, False, False]
    assert (quota.parked(), quota.count) == ([second, third], 2)
    assert quota.release(first) is second
    assert quota.take(second)
    assert quota.release(second) is third
    assert quota.take(third)
    assert quota.release(third) is None
    assert quota.count == 0


def test_a_higher_priority_comes_out_first() -> None:
    """Of the calls that are parked, those of a higher priority come out first, in their order."""
    quota = TaskQuota()
    first, low, high = job(), job(), job(priority=5)
    quota.take(first)
    assert not quota.take(low)
    assert quota.park_if_full(high)
    assert quota.parked() == [high, low]


def test_tasks_do_not_hinder_each_other() -> None:
    """Each task has a limit of its own."""
    quota = TaskQuota()
    assert quota.take(job("a"))
    assert quota.take(job("b"))
    assert not quota.take(job("a"))


def test_a_parked_call_can_be_taken_out() -> None:
    """A call that is taken out does not come back when another ends."""
    quota = TaskQuota()
    first, second = job(), job()
    quota.take(first)
    quota.take(second)
    assert quota.remove(second)
    assert not quota.remove(second)
    assert not quota.remove(first)
    assert (quota.release(first), quota.count, quota.parked()) == (None, 0, [])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["start", "end", "withdraw"])), max_size=60))
def test_never_more_at_work_than_allowed(steps: list[tuple[str, str]]) -> None:
    """At no moment are more calls of a task at work than it allows, and none waits while there is room."""
    quota = TaskQuota()
    limits = {"a": 1, "b": 3}
    at_work: dict[str, list[Job]] = {"a": [], "b": []}
    parked: dict[str, list[Job]] = {"a": [], "b": []}
    for task, step in steps:
        if step == "start":
            one = job(task, limits[task])
            (at_work if quota.take(one) else parked)[task].append(one)
        elif step == "end" and at_work[task]:
            freed = quota.release(at_work[task].pop())
            if freed is not None:
                assert parked[task].pop(0) is freed
                assert quota.take(freed)
                at_work[task].append(freed)
        elif step == "withdraw" and parked[task]:
            assert quota.remove(parked[task].pop())
        assert len(at_work[task]) <= limits[task]
        assert not parked[task] or len(at_work[task]) == limits[task]
        assert quota.count == sum(map(len, parked.values())) == len(quota.parked())
