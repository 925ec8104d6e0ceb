"""What a task can know about itself."""

import datetime as dt
import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, UnsetType, structs

import hybridpool
from hybridpool._task_context import RunningTask, current_task, set_current_task
from hybridpool.errors import RetriesExhausted, Retry
from tests.strategies import counts

RUNNING = RunningTask(
    id="id-1", name="shop.add", retries=0, root_id="id-0", child="ForkPoolWorker-1", _enqueue=lambda message: None
)


@pytest.fixture(autouse=True)
def afterwards() -> Iterator[None]:
    """Leave no task at work."""
    yield
    set_current_task(None)


def test_outside_of_a_task() -> None:
    """Outside of a task there is no current task."""
    assert current_task() is None


def test_inside_of_a_task() -> None:
    """Inside a task `current_task` returns it."""
    set_current_task(RUNNING)
    assert hybridpool.current_task() is RUNNING
    set_current_task(None)
    assert current_task() is None


def test_it_can_be_read_only() -> None:
    """The current task is read-only."""
    with pytest.raises(AttributeError):
        RUNNING.id = "other"  # type: ignore[misc]  # that is the point


def test_a_copied_context_keeps_its_task() -> None:
    """A copied context keeps its task."""
    set_current_task(RUNNING)
    copied = copy_context()
    set_current_task(None)
    assert copied.run(current_task) is RUNNING


def test_other_threads_have_none() -> None:
    """A thread of its own has no current task."""
    set_current_task(RUNNING)
    seen: list[RunningTask | None] = []
    thread = threading.Thread(target=lambda: seen.append(current_task()))
    thread.start()
    thread.join()
    assert seen == [None]


# ---- retry -----------------------------------------------------------------------------------------------------------


def retried(running: RunningTask = RUNNING, **asked: Any) -> Retry:
    """Ask for a retry, and return what it raises."""
    with pytest.raises(Retry) as raised:
        running.retry(**asked)
    return raised.value


def after(retries: int, most: int | None = 3) -> RunningTask:
    """A task that has been retried so often."""
    return structs.replace(RUNNING, retries=retries, max_retries=most)


def test_retry() -> None:
    """`retry` keeps its exception, countdown and new arguments."""
    cause = OSError("away")
    asked = retried(exc=cause, countdown=2.5, args=[1], kwargs={"k": 2})
    assert (asked.cause, asked.countdown, asked.new_args, asked.new_kwargs) == (cause, 2.5, [1], {"k": 2})
    assert retried().countdown is None


def test_it_can_be_said_with_raise() -> None:
    """`raise self.retry()` raises Retry, without showing its cause twice."""
    try:
        raise OSError("away")
    except OSError:
        with pytest.raises(Retry) as raised:
            raise RUNNING.retry()  # noqa: B904  that is how it is written
    assert raised.value.__suppress_context__


def test_the_exception_at_hand_is_the_reason() -> None:
    """`retry` within an `except` block has the handled exception as its reason, and ends with that."""
    cause = OSError("away")
    try:
        raise cause
    except OSError:
        assert retried().cause is cause
        assert retried(exc=(other := ValueError("v"))).cause is other
        with pytest.raises(OSError, match="away") as raised:
            after(3).retry()
    assert raised.value is cause


@given(retries=counts, most=st.none() | counts, own=st.just(UNSET) | st.none() | counts)
def test_retries_are_counted(retries: int, most: int | None, own: int | UnsetType | None) -> None:
    """`retry` raises Retry until the retries reach the limit of the call or of the task's options."""
    limit = most if isinstance(own, UnsetType) else own
    is_over = limit is not None and retries >= limit
    with pytest.raises(OSError if is_over else Retry):
        after(retries, most).retry(exc=OSError("away"), max_retries=own)
    with pytest.raises(RetriesExhausted if is_over else Retry):
        after(retries, most).retry(max_retries=own)


def test_the_end_is_told() -> None:
    """The error at the end of the retries names the task and their number."""
    with pytest.raises(RetriesExhausted, match=r"shop\.add was retried 3 times, which is all it may be"):
        after(3).retry()


def test_eta() -> None:
    """An ETA in any time zone becomes the right countdown, and one that has passed becomes 0."""
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(hours=2)
    for same in (moment, moment.replace(tzinfo=None), moment.astimezone(dt.timezone(dt.timedelta(hours=-7)))):
        countdown = retried(eta=same).countdown
        assert countdown is not None
        assert 7100 < countdown <= 7200
    assert retried(eta=moment - dt.timedelta(days=1)).countdown == 0


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"exc": "away"}, r"retry\(exc=…\) must be an exception, not 'away'"),
        ({"exc": OSError}, r"retry\(exc=…\) must be an exception"),
        ({"eta": "2030-01-01"}, r"retry\(eta=…\) must be a datetime, not '2030-01-01'"),
        ({"eta": dt.datetime(2030, 1, 1, tzinfo=dt.UTC), "countdown": 1}, "a countdown or an eta, not both"),
    ],
)
def test_what_cannot_be_asked_for(asked: dict[str, Any], complaint: str) -> None:
    """A wrong argument of `retry` raises TypeError."""
    with pytest.raises(TypeError, match=complaint):
        RUNNING.retry(**asked)


def test_the_request() -> None:
    """`self.request` is the task itself, as in Celery."""
    assert after(2).request.retries == 2
