"""What follows from an outcome of an app of another library, which records and publishes by itself."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._outcome import (
    Cancelled,
    Ignored,
    Lost,
    Outcome,
    Raised,
    Refused,
    Rejected,
    Retrying,
    Returned,
    TimedOut,
)
from hybridpool._policy.guest_settlement import settle_guest
from hybridpool._policy.settlement import (
    Acknowledge,
    DeadLetter,
    DeliveryOptions,
    FinishInApp,
    GuestOptions,
    Refuse,
    Republish,
    Requeue,
    Step,
    UnlessDone,
)

RETURNED = Returned(b"", "1")
RAISED = Raised("ValueError", "builtins", b"[]", "ValueError()", "")
RETRYING = Retrying("OSError", "builtins", b"[]", "OSError()", "", 0.0, None)
REFUSED = Refused("unknown task 'x'", "NotRegistered", "celery.exceptions", b'["x"]')
LOST = Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1")
TIMED_OUT = TimedOut(2.0, "ForkPoolWorker-1")
REJECTED, RETURNED_TO_QUEUE = Rejected("no", False), Rejected("not now", True)
OPTIONS = DeliveryOptions(wants_result=False, acks_late=True, max_deliveries=3)
ACK, REFUSE, LOST_STEP = Acknowledge(), Refuse(), FinishInApp("lost", "signal 9 (SIGKILL)")
PLAIN = GuestOptions()
AGAIN = GuestOptions(reject_on_worker_lost=True)
STRICT = GuestOptions(acks_on_failure=False, acks_on_timeout=False)

outcomes: st.SearchStrategy[Outcome] = st.sampled_from(
    [
        RETURNED,
        RAISED,
        RETRYING,
        REFUSED,
        LOST,
        Lost("gone", "", blamed=False),
        TIMED_OUT,
        REJECTED,
        RETURNED_TO_QUEUE,
        Ignored(),
        Cancelled(""),
    ]
)
guests = st.builds(
    GuestOptions,
    reject_on_worker_lost=st.booleans(),
    retry_on_worker_lost=st.booleans(),
    acks_on_failure=st.booleans(),
    acks_on_timeout=st.booleans(),
)


def steps(
    outcome: Outcome, guest: GuestOptions = PLAIN, lost_before: int = 0, *, early: bool = False
) -> tuple[Step, ...]:
    """Settle in an ordinary moment."""
    return settle_guest(outcome, OPTIONS, guest, lost_before=lost_before, acknowledged=early, stopping=False)


@pytest.mark.parametrize("outcome", [RETURNED, RAISED, RETRYING, Ignored()])
def test_what_the_app_has_recorded(outcome: Outcome) -> None:
    """A message whose task has recorded its end is acknowledged, if it was not before, and no more."""
    assert steps(outcome) == (ACK,)
    assert steps(outcome, early=True) == ()


def test_failures_that_are_not_acknowledged() -> None:
    """With `acks_on_failure` off the message of a failed or lost task is rejected; that of another is not."""
    assert steps(RAISED, STRICT) == (REFUSE,)
    assert steps(RAISED, STRICT, early=True) == ()
    assert steps(LOST, STRICT) == (LOST_STEP, REFUSE)
    assert steps(RETURNED, STRICT) == (ACK,)


def test_rejected() -> None:
    """A task that rejects its message has it requeued or rejected, unless it was acknowledged before."""
    assert steps(REJECTED) == (REFUSE,)
    assert steps(RETURNED_TO_QUEUE) == (Requeue(),)
    assert steps(REJECTED, early=True) == steps(RETURNED_TO_QUEUE, early=True) == ()


def test_lost() -> None:
    """A lost task is recorded and acknowledged; with `reject_on_worker_lost` it runs again, a few times at most."""
    assert steps(LOST) == (LOST_STEP, ACK)
    assert steps(LOST, early=True) == steps(LOST, AGAIN, early=True) == (LOST_STEP,)
    assert steps(LOST, AGAIN) == (UnlessDone((Republish(1),)), ACK)
    assert steps(Lost("gone", "", blamed=False), AGAIN, 9) == (UnlessDone((Republish(9),)), ACK)
    unless_done, ack = steps(LOST, AGAIN, 2)
    assert isinstance(unless_done, UnlessDone)
    finish, letter = unless_done.steps
    assert finish == FinishInApp("lost", "signal 9 (SIGKILL)", is_dead_lettered=True)
    assert isinstance(letter, DeadLetter)
    assert "died 3 times" in letter.reason
    assert ack == ACK


def test_lost_and_retried_by_the_app() -> None:
    """With `retry_on_worker_lost` the app makes the next attempt, or records the failure. A blameless loss is none."""
    both = GuestOptions(reject_on_worker_lost=True, retry_on_worker_lost=True)
    assert steps(LOST, both) == (LOST_STEP, ACK)
    blameless = steps(Lost("gone", "", blamed=False), GuestOptions(retry_on_worker_lost=True), 9)
    assert blameless == (UnlessDone((Republish(9),)), ACK)


def test_over_its_time_limit() -> None:
    """A task over its limit is recorded and acknowledged; with `acks_on_timeout` off it runs again, up to the limit."""
    finish = FinishInApp("timed out", limit=2.0)
    assert steps(TIMED_OUT) == (finish, ACK)
    assert steps(TIMED_OUT, STRICT, early=True) == (finish,)
    assert steps(TIMED_OUT, STRICT) == (finish, Republish(1), ACK)
    assert [type(step) for step in steps(TIMED_OUT, STRICT, 2)] == [FinishInApp, DeadLetter, Acknowledge]


def test_refused_and_cancelled() -> None:
    """A message that is not run is recorded and dead-lettered; a cancelled task is recorded as terminated."""
    finish, letter, ack = steps(REFUSED)
    assert finish == FinishInApp(
        "refused",
        "unknown task 'x'",
        is_dead_lettered=True,
        kind="NotRegistered",
        module="celery.exceptions",
        arguments=b'["x"]',
    )
    assert (letter, ack) == (DeadLetter("unknown task 'x'"), ACK)
    assert steps(Cancelled("")) == (FinishInApp("terminated"), ACK)


@given(outcomes, guests, st.integers(0, 9), st.booleans(), st.booleans())
def test_a_message_is_answered_once_and_last(
    outcome: Outcome, guest: GuestOptions, lost_before: int, acknowledged: bool, stopping: bool
) -> None:
    """A message that is not acknowledged is answered by exactly one step, the last; another one by none."""
    found: Sequence[Step] = settle_guest(
        outcome, OPTIONS, guest, lost_before=lost_before, acknowledged=acknowledged, stopping=stopping
    )
    answers = [step for step in found if isinstance(step, Acknowledge | Requeue | Refuse)]
    assert answers == ([] if acknowledged else [found[-1]])
    assert not acknowledged or not any(isinstance(step, Republish | UnlessDone) for step in found)


@given(outcomes, guests, st.integers(0, 9))
def test_a_stopping_worker_blames_no_task(outcome: Outcome, guest: GuestOptions, lost_before: int) -> None:
    """A task whose child is killed because the worker stops goes back to its queue, uncounted."""
    found = settle_guest(outcome, OPTIONS, guest, lost_before=lost_before, acknowledged=False, stopping=True)
    if isinstance(outcome, Lost):
        assert found == (Requeue(),)
