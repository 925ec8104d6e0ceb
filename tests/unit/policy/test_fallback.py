"""What follows when the broker does not take a step of settlement."""

from collections import deque

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool import errors
from hybridpool._policy.fallback import (
    ATTEMPT_GIVEN_UP_S,
    KEEPS_PLACE_S,
    MAX_REFUSED_PAUSE_S,
    MAX_UNKNOWN,
    MAX_WAIT_HERE_S,
    RESULT_GIVEN_UP_S,
    Again,
    Attempt,
    Instead,
    NotFinished,
    Remedy,
    Skip,
    Trouble,
    remedy,
    trouble_of,
)
from hybridpool._policy.settlement import (
    Acknowledge,
    DeadLetter,
    Delay,
    FinishInApp,
    Republish,
    Route,
    Step,
    Store,
    StoreFailure,
    UnlessDone,
    WaitHere,
)

roads = st.sampled_from(Route)
steps: st.SearchStrategy[Step] = (
    st.builds(Store, st.booleans())
    | st.builds(StoreFailure, st.just("why"), st.just("TaskError"))
    | st.builds(Republish, st.integers(0, 5), roads)
    | st.builds(Delay, roads)
    | st.builds(DeadLetter, st.just("why"), st.booleans())
)
failed_attempts = st.builds(
    Attempt,
    step=steps,
    trouble=st.sampled_from(Trouble),
    failures=st.integers(1, 10_000),
    waited=st.floats(0.0, 100_000.0),
    reason=st.just("the broker's words"),
    wants_result=st.booleans(),
    is_acknowledged=st.booleans(),
    delay=st.floats(0.0, 100_000.0),
)
FOR_GOOD = (Trouble.DENIED, Trouble.TOO_LARGE, Trouble.UNWRITABLE, Trouble.REFUSED)


def attempt(step: Step, trouble: Trouble, *, failures: int = 1, waited: float = 0.0, delay: float = 0.0) -> Attempt:
    """Return a step that failed, of a message whose client waits."""
    return Attempt(
        step=step,
        trouble=trouble,
        failures=failures,
        waited=waited,
        reason="the broker's words",
        wants_result=True,
        is_acknowledged=False,
        delay=delay,
    )


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (errors.BrokerUnavailable("cut"), Trouble.AWAY),
        (errors.QueueFull("full"), Trouble.FULL),
        (errors.AccessRefused("no"), Trouble.DENIED),
        (errors.QueueNotFound("no"), Trouble.MISSING),
        (errors.MessageTooLarge("no"), Trouble.TOO_LARGE),
        (errors.CannotEncode("no"), Trouble.UNWRITABLE),
        (errors.BrokerRefused("no"), Trouble.REFUSED),
        (errors.BrokerError("who knows"), Trouble.UNKNOWN),
    ],
)
def test_troubles(error: errors.BrokerError, trouble: Trouble) -> None:
    """Each error of the broker is of one kind of trouble."""
    assert trouble_of(error) is trouble


@given(failed=failed_attempts)
def test_pauses(failed: Attempt) -> None:
    """A step that is tried again waits before it, for at most some minutes."""
    found = remedy(failed)
    if isinstance(found, Again):
        assert 0 < found.pause <= MAX_REFUSED_PAUSE_S
        if failed.failures > 5:
            assert found.pause >= 0.5, "it hammers"


@given(failed=failed_attempts)
def test_what_waits_long_keeps_no_place(failed: Attempt) -> None:
    """A message that waits long for anything but a connection gives up its place in the prefetch."""
    found = remedy(failed)
    if isinstance(found, Again) and failed.waited >= KEEPS_PLACE_S:
        assert found.is_held or failed.trouble in (Trouble.AWAY, Trouble.UNKNOWN)


@given(failed=failed_attempts)
def test_a_message_is_dropped_by_nobody(failed: Attempt) -> None:
    """Only results are skipped; a message that the broker still has is stored elsewhere or waits."""
    found = remedy(failed)
    if isinstance(found, Skip) and not isinstance(failed.step, Store | StoreFailure):
        assert failed.is_acknowledged
        assert failed.waited >= ATTEMPT_GIVEN_UP_S


@given(step=steps, trouble=st.sampled_from(FOR_GOOD), delay=st.floats(0.0, 10_000.0), acknowledged=st.booleans())
def test_refused_for_good_comes_to_rest(step: Step, trouble: Trouble, delay: float, acknowledged: bool) -> None:
    """With a broker that refuses everything each message ends in a few steps as a dead letter that waits."""
    left, taken = deque[Step]([step, Acknowledge()]), 0
    while left:
        taken += 1
        assert taken < 12, "it goes round"
        this = left.popleft()
        if isinstance(this, WaitHere):
            assert this.seconds <= MAX_WAIT_HERE_S
            continue
        if isinstance(this, Acknowledge):
            assert isinstance(step, Store | StoreFailure), "it is lost"
            continue
        found = remedy(attrs.evolve(attempt(this, trouble, delay=delay), is_acknowledged=acknowledged))
        if isinstance(found, Instead):
            left.extendleft(reversed(found.steps))
        elif isinstance(found, Again):
            assert isinstance(this, DeadLetter)
            return


def _steps(found: Remedy) -> tuple[Step, ...]:
    assert isinstance(found, Instead)
    return found.steps


def test_a_result_that_does_not_fit() -> None:
    """A result that is too large becomes a failure, and that failure is skipped if it cannot be stored either."""
    told = StoreFailure("the broker's words", "ResultError")
    assert _steps(remedy(attempt(Store(), Trouble.TOO_LARGE))) == (told,)
    assert _steps(remedy(attempt(Store(), Trouble.UNWRITABLE))) == (told,)
    assert remedy(attempt(told, Trouble.UNWRITABLE)) == Skip()
    assert remedy(attempt(Store(), Trouble.DENIED)) == Skip()


def test_the_word_that_a_task_is_retried() -> None:
    """The note that a task is retried is skipped, not replaced by a failure."""
    assert remedy(attempt(Store(is_final=False), Trouble.TOO_LARGE)) == Skip()


def test_a_delay_that_the_broker_does_not_hold() -> None:
    """A message that the broker cannot delay waits in the worker and is then published without a delay."""
    found = remedy(attempt(Delay(), Trouble.DENIED, delay=20.0))
    assert _steps(found) == (WaitHere(20.0), Delay(Route.AT_ONCE))
    assert _steps(remedy(attempt(Delay(), Trouble.UNWRITABLE, delay=1e6)))[0] == WaitHere(MAX_WAIT_HERE_S)


def test_an_attempt_that_cannot_be_published() -> None:
    """If the next attempt cannot be published, the client is told and the message is dead-lettered."""
    story = "its next attempt cannot be published: the broker's words"
    for step in (Delay(Route.AT_ONCE), Republish(1)):
        assert _steps(remedy(attempt(step, Trouble.DENIED))) == (StoreFailure(story, "TaskError"), DeadLetter(story))


def test_a_queue_that_is_full() -> None:
    """A message for a full queue is tried for seconds, then held by the broker or here, and given up in the end."""
    assert isinstance(remedy(attempt(Delay(), Trouble.FULL, waited=1.0)), Again)
    assert _steps(remedy(attempt(Delay(), Trouble.FULL, waited=5.0))) == (Delay(Route.DETOUR),)
    assert _steps(remedy(attempt(Delay(Route.DETOUR), Trouble.DENIED))) == (Delay(Route.NO_DETOUR),)
    assert remedy(attempt(Delay(Route.NO_DETOUR), Trouble.FULL, failures=20, waited=60.0)) == Again(5.0, is_held=True)
    given_up = _steps(remedy(attempt(Delay(Route.NO_DETOUR), Trouble.FULL, waited=ATTEMPT_GIVEN_UP_S)))
    assert isinstance(given_up[-1], DeadLetter)


def test_what_is_not_known_counts_as_refused_in_the_end() -> None:
    """An unknown error is tried a number of times, and then counts as a refusal."""
    for failures in range(1, MAX_UNKNOWN):
        assert isinstance(remedy(attempt(Republish(1), Trouble.UNKNOWN, failures=failures)), Again)
    assert isinstance(remedy(attempt(Republish(1), Trouble.UNKNOWN, failures=MAX_UNKNOWN)), Instead)


def test_an_app_that_cannot_record() -> None:
    """What an app could not record is asked again for minutes; then its message is dead-lettered, and never dropped."""
    follows = (Republish(1),)
    assert remedy(attempt(UnlessDone(follows), Trouble.APP)) == Instead(follows), "it runs once more than it need"
    lost = FinishInApp("lost", "signal 9 (SIGKILL)")
    assert trouble_of(NotFinished("the backend is away")) is Trouble.APP
    again = remedy(attempt(lost, Trouble.APP, failures=3, waited=KEEPS_PLACE_S))
    assert isinstance(again, Again)
    assert again.is_held
    assert remedy(attempt(lost, Trouble.APP, waited=0.0)) == Again(0.05)
    given_up = attempt(lost, Trouble.APP, failures=90, waited=RESULT_GIVEN_UP_S)
    [letter] = _steps(remedy(given_up))
    assert isinstance(letter, DeadLetter)
    assert "(lost) cannot be recorded" in letter.reason
    assert remedy(attrs.evolve(given_up, is_acknowledged=True)) == Skip()
    kept = FinishInApp("refused", "why", is_dead_lettered=True)
    assert remedy(attrs.evolve(given_up, step=kept)) == Skip()
