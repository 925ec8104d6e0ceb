"""What follows from an outcome."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._outcome import Ignored, Lost, Outcome, Raised, Refused, Rejected, Retrying, Returned
from hybridpool._policy.settlement import (
    Acknowledge,
    DeadLetter,
    Delay,
    DeliveryOptions,
    Republish,
    Requeue,
    Step,
    Store,
    settle,
)
from tests.strategies import delivery_options
from tests.strategies import outcomes as other_outcomes

RETURNED = Returned(b"1", "1")
RAISED = Raised("ValueError", "builtins", b"[]", "ValueError()", "")
REFUSED = Refused("arguments do not fit", "TypeError", "builtins", b"[]")
LOST = Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1")
RETRYING = Retrying("OSError", "builtins", b'["away"]', "OSError('away')", "Traceback …", None, None)
REJECTED, RETURNED_TO_SENDER = Rejected("no", False), Rejected("not now", True)
WANTED = DeliveryOptions(wants_result=True, acks_late=True, max_deliveries=3)
IGNORED = DeliveryOptions(wants_result=False, acks_late=True, max_deliveries=3)
truths = st.booleans()
attempts = st.integers(0, 6)
verdicts: st.SearchStrategy[Outcome] = st.sampled_from([RETRYING, REJECTED, RETURNED_TO_SENDER, Ignored()])
outcomes = other_outcomes | verdicts


def steps(outcome: Outcome, options: DeliveryOptions, lost_before: int = 0, *, early: bool = False) -> tuple[Step, ...]:
    """Settle in an ordinary moment."""
    return settle(outcome, options, lost_before=lost_before, acknowledged=early, stopping=False)


@pytest.mark.parametrize("outcome", [RETURNED, RAISED])
def test_a_task_that_ended(outcome: Outcome) -> None:
    """A task that ended has its result stored and its message acknowledged."""
    assert steps(outcome, WANTED) == (Store(), Acknowledge())
    assert steps(outcome, IGNORED) == (Acknowledge(),)
    assert steps(outcome, WANTED, early=True) == (Store(),)
    assert steps(outcome, IGNORED, early=True) == ()


def test_a_task_that_was_refused() -> None:
    """A refused task is dead-lettered."""
    assert steps(REFUSED, WANTED) == (Store(), DeadLetter("arguments do not fit"), Acknowledge())
    assert steps(REFUSED, IGNORED, early=True) == (DeadLetter("arguments do not fit"),)


def test_a_task_whose_child_died() -> None:
    """A task whose child died is published again, and dead-lettered after task_max_deliveries."""
    assert steps(LOST, WANTED, 0) == (Republish(1), Acknowledge())
    assert steps(LOST, WANTED, 1) == (Republish(2), Acknowledge())
    story = "its child died 3 times (task_max_deliveries); the last time: signal 9 (SIGKILL)"
    assert steps(LOST, WANTED, 2) == (Store(), DeadLetter(story), Acknowledge())
    assert steps(LOST, IGNORED, 2) == (DeadLetter(story), Acknowledge())


def test_a_task_that_is_not_to_blame() -> None:
    """A death for which a call is not blamed is not counted."""
    let_off = Lost("its zygote died: signal 9 (SIGKILL)", "ForkPoolWorker-1", blamed=False)
    for lost_before in (0, 2, 9):
        assert steps(let_off, WANTED, lost_before) == (Republish(lost_before), Acknowledge())
    assert steps(let_off, WANTED, early=True) == (Store(),)


def test_a_task_that_is_retried() -> None:
    """A retried task is published before its message is acknowledged."""
    assert steps(RETRYING, WANTED) == (Store(is_final=False), Delay(), Acknowledge())
    assert steps(RETRYING, IGNORED) == (Delay(), Acknowledge())
    assert steps(RETRYING, WANTED, early=True) == (Store(is_final=False), Delay())
    assert steps(RETRYING, IGNORED, early=True) == (Delay(),)


def test_a_task_that_is_rejected() -> None:
    """A rejected task is dead-lettered, and its result is stored."""
    letter = DeadLetter("the task rejected it: no")
    assert steps(REJECTED, WANTED) == (Store(), letter, Acknowledge())
    assert steps(REJECTED, IGNORED) == (letter, Acknowledge())
    assert steps(REJECTED, WANTED, early=True) == (Store(), letter)


def test_a_task_that_is_given_back() -> None:
    """A task rejected with requeue goes back to its queue; one acknowledged early is published again."""
    assert steps(RETURNED_TO_SENDER, WANTED) == (Requeue(),)
    assert steps(RETURNED_TO_SENDER, WANTED, 1, early=True) == (Republish(1),)


def test_a_task_that_is_ignored() -> None:
    """An ignored task is acknowledged without a result."""
    assert steps(Ignored(), WANTED) == (Acknowledge(),)
    assert steps(Ignored(), WANTED, early=True) == ()


def test_at_most_once_means_it() -> None:
    """A task acknowledged early is not run again after its child's death."""
    assert steps(LOST, WANTED, early=True) == (Store(),)
    assert steps(LOST, IGNORED, early=True) == ()


def test_a_stop_is_not_the_tasks_fault() -> None:
    """A task lost in a stop goes back to its queue, and its death is not counted."""
    assert settle(LOST, WANTED, lost_before=2, acknowledged=False, stopping=True) == (Requeue(),)


def places(found: Sequence[Step], kind: type[object]) -> list[int]:
    """Return where steps of a kind stand."""
    return [place for place, step in enumerate(found) if isinstance(step, kind)]


@given(outcome=outcomes, options=delivery_options, lost_before=attempts, acknowledged=truths, stopping=truths)
def test_the_answer_comes_last_and_once(
    outcome: Outcome, options: DeliveryOptions, lost_before: int, acknowledged: bool, stopping: bool
) -> None:
    """The answer to the broker is the last step, and given once."""
    found = settle(outcome, options, lost_before=lost_before, acknowledged=acknowledged, stopping=stopping)
    answers = places(found, Acknowledge) + places(found, Requeue)
    assert answers == ([] if acknowledged else [len(found) - 1])


@given(outcome=outcomes, options=delivery_options, lost_before=attempts, acknowledged=truths, stopping=truths)
def test_results_are_stored_first_and_only_if_wanted(
    outcome: Outcome, options: DeliveryOptions, lost_before: int, acknowledged: bool, stopping: bool
) -> None:
    """A result is stored first, and only if it is wanted."""
    found = settle(outcome, options, lost_before=lost_before, acknowledged=acknowledged, stopping=stopping)
    stores = places(found, Store)
    assert stores in ([], [0])
    assert options.wants_result or not stores
    is_final = not places(found, Republish) and not places(found, Requeue)
    assert not (options.wants_result and is_final) or stores == ([] if isinstance(outcome, Ignored) else [0])


@given(options=delivery_options, lost_before=attempts, acknowledged=truths, stopping=truths)
def test_a_lost_task_is_never_just_acknowledged(
    options: DeliveryOptions, lost_before: int, acknowledged: bool, stopping: bool
) -> None:
    """A lost task is acknowledged only after it was published again or dead-lettered."""
    found = settle(LOST, options, lost_before=lost_before, acknowledged=acknowledged, stopping=stopping)
    if places(found, Acknowledge):
        assert places(found, Republish) or places(found, DeadLetter)
    if not acknowledged and stopping:
        assert found == (Requeue(),)


@given(options=delivery_options, lost_before=attempts)
def test_the_attempts_are_counted(options: DeliveryOptions, lost_before: int) -> None:
    """Lost attempts are counted up to max_deliveries."""
    found = settle(LOST, options, lost_before=lost_before, acknowledged=False, stopping=False)
    again = [step.lost for step in found if isinstance(step, Republish)]
    assert again == ([lost_before + 1] if lost_before + 1 < options.max_deliveries else [])
    assert len(places(found, DeadLetter)) == 1 - len(again)


@given(outcome=outcomes, options=delivery_options, lost_before=attempts, acknowledged=truths)
def test_only_the_lost_go_back(
    outcome: Outcome, options: DeliveryOptions, lost_before: int, acknowledged: bool
) -> None:
    """Only lost and requeued tasks go back to their queue."""
    found = settle(outcome, options, lost_before=lost_before, acknowledged=acknowledged, stopping=True)
    assert not places(found, Requeue) or isinstance(outcome, Lost) or outcome == RETURNED_TO_SENDER


@given(options=delivery_options, lost_before=attempts, acknowledged=truths, stopping=truths)
def test_retries_are_no_deaths(options: DeliveryOptions, lost_before: int, acknowledged: bool, stopping: bool) -> None:
    """A retry does not count as a death, and is not dropped by a stop."""
    found = settle(RETRYING, options, lost_before=lost_before, acknowledged=acknowledged, stopping=stopping)
    assert len(places(found, Delay)) == 1
    assert not places(found, DeadLetter)
