"""When a task is told that it only waits."""

from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.waiting_advice import (
    MAX_CPU_PERCENT,
    MAX_TASKS,
    MIN_CALLS,
    MIN_RUNTIME_S,
    REPEAT_AFTER_S,
    WaitingAdvice,
)


def noted(advice: WaitingAdvice, times: int = MIN_CALLS, now: float = 0.0, **changed: object) -> list[bool]:
    """Record calls that wait, changed as told."""
    call = {"cpu_percent": 1, "runtime": 5.0, "are_others_waiting": True, "now": now, **changed}
    return [advice.note("fetch", **call) for _ in range(times)]  # type: ignore[arg-type]  # changed by tests


def test_calls_that_wait_in_a_row() -> None:
    """After so many calls that only waited, while others waited for a child, advice is due, once a day."""
    advice = WaitingAdvice()
    assert noted(advice) == [False] * (MIN_CALLS - 1) + [True]
    assert not any(noted(advice, now=REPEAT_AFTER_S - 1))
    assert noted(advice, 1, now=REPEAT_AFTER_S) == [True]


def test_one_that_computes_in_between() -> None:
    """A call that computes begins the count anew."""
    advice = WaitingAdvice()
    noted(advice, MIN_CALLS - 1)
    noted(advice, 1, cpu_percent=MAX_CPU_PERCENT + 1)
    assert noted(advice) == [False] * (MIN_CALLS - 1) + [True]


@given(st.integers(0, 100), st.floats(0, 100), st.booleans())
def test_no_advice_that_helps_nobody(cpu_percent: int, runtime: float, waiting: bool) -> None:
    """Short calls, calls that compute, and calls that nobody waits behind are never advised about."""
    advised = any(noted(WaitingAdvice(), 100, cpu_percent=cpu_percent, runtime=runtime, are_others_waiting=waiting))
    assert advised == (cpu_percent <= MAX_CPU_PERCENT and runtime >= MIN_RUNTIME_S and waiting)


def test_memory_is_bounded() -> None:
    """A bounded number of tasks is remembered."""
    advice = WaitingAdvice()
    for number in range(2 * MAX_TASKS):
        advice.note(str(number), cpu_percent=0, runtime=1.0, are_others_waiting=True, now=0.0)
    assert len(advice._waited) == MAX_TASKS
