"""What becomes of a task that raised: run again, rejected, ignored, or failed."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._child import execute
from hybridpool._child.failure_rules import DEFAULT_RULES, Rules
from hybridpool._ipc import frames
from hybridpool._ipc.codec import JSON, PICKLE, decode, encode
from hybridpool._ipc.frames import ChildOutcome, Done, Ignored, Raised, Rejected, Retrying, RunCall
from hybridpool._task_context import RunningTask, set_current_task
from hybridpool.errors import Ignore, Reject, Retry, SoftTimeLimitExceeded, TaskVerdict
from tests.strategies import counts


class Odd(Exception):
    """An exception whose repr raises."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Sly:
    """A value whose way to JSON fails in its own way."""

    def __json__(self) -> object:
        raise KeyError("sly")


def ran(
    function: Callable[..., Any], rules: Rules = DEFAULT_RULES, *args: object, retries: int = 0, **kwargs: object
) -> ChildOutcome:
    """Run a function as a child would, and see that its outcome can cross the wire."""
    call = RunCall(1, "t", "id-1", JSON, encode([args, kwargs, None]), retries)
    outcome = execute.run(call, {"t": function}, rules)
    sent = Done(1, outcome, 0.0, 0)
    assert frames.read_from_child(frames.pack([sent])) == [sent]
    return outcome


def raising(error: BaseException, rules: Rules = DEFAULT_RULES, *, retries: int = 0) -> ChildOutcome:
    """Run a task that raises."""

    def task() -> None:
        raise error

    return ran(task, rules, retries=retries)


def retrying(outcome: ChildOutcome) -> Retrying:
    """Take it for a retry."""
    assert isinstance(outcome, Retrying), outcome
    return outcome


def failure(outcome: ChildOutcome, kind: type[BaseException]) -> Raised:
    """Take it for a failure of this kind."""
    assert isinstance(outcome, Raised), outcome
    assert outcome.kind == kind.__qualname__
    return outcome


def test_autoretry() -> None:
    """An exception in autoretry_for leads to a retry with its type, arguments and traceback."""
    again = retrying(raising(OSError("away"), Rules(autoretry_for=(OSError,))))
    assert (again.kind, again.module, again.arguments) == ("OSError", "builtins", b'["away"]')
    assert again.text == "OSError('away')"
    assert again.traceback.startswith("Traceback")
    assert (again.countdown, again.body) == (None, None)


@pytest.mark.parametrize("error", [KeyError("k"), ValueError("v"), SystemExit(3)])
def test_what_is_not_named_fails(error: BaseException) -> None:
    """An exception that is not in autoretry_for fails the task."""
    failure(raising(error, Rules(autoretry_for=(OSError,))), type(error))


def test_exceptions_of_the_rule() -> None:
    """An exception in dont_autoretry_for fails the task, also if autoretry_for has its base class."""
    rules = Rules(autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,))
    retrying(raising(PermissionError("p"), rules))
    failure(raising(FileNotFoundError("f"), rules), FileNotFoundError)


@given(retries=counts, most=st.none() | counts)
def test_retries_end(retries: int, most: int | None) -> None:
    """A task is retried as often as max_retries says."""
    outcome = raising(OSError("away"), Rules(autoretry_for=(OSError,), max_retries=most), retries=retries)
    assert isinstance(outcome, Retrying if most is None or retries < most else Raised)


def test_the_end_is_the_error_itself() -> None:
    """A task out of retries fails with its exception."""
    said = failure(raising(OSError("away"), Rules(autoretry_for=(OSError,)), retries=3), OSError)
    assert said.arguments == b'["away"]'


def test_a_soft_limit_can_be_retried() -> None:
    """A soft limit is retried if it is named itself, not by a base class."""
    late = SoftTimeLimitExceeded(2.0)
    assert retrying(raising(late, Rules(autoretry_for=(SoftTimeLimitExceeded,)))).kind == "SoftTimeLimitExceeded"
    failure(raising(late, Rules(autoretry_for=(Exception,))), SoftTimeLimitExceeded)


def test_expected_exceptions() -> None:
    """An exception in `throws` is marked as expected when it fails the task."""
    rules = Rules(throws=(KeyError,))
    assert failure(raising(KeyError("k"), rules), KeyError).expected
    assert not failure(raising(ValueError("v"), rules), ValueError).expected
    both = Rules(throws=(KeyError,), autoretry_for=(KeyError,), max_retries=1)
    retrying(raising(KeyError("k"), both))
    assert failure(raising(KeyError("k"), both, retries=1), KeyError).expected


def test_the_task_asks() -> None:
    """A Retry that the task raises keeps its exception and countdown."""
    again = retrying(raising(Retry(OSError("away"), 2.5)))
    assert (again.kind, again.text, again.countdown, again.body) == ("OSError", "OSError('away')", 2.5, None)


def test_without_a_reason() -> None:
    """A Retry without an exception is sent as Retry without a text."""
    again = retrying(raising(Retry()))
    assert (again.kind, again.module, again.text) == ("Retry", "hybridpool.errors", "")


def test_a_reason_in_words() -> None:
    """A Retry may have a text in place of an exception."""
    assert retrying(raising(Retry("not yet"))).text == "'not yet'"  # type: ignore[arg-type]


@pytest.mark.parametrize("rules", [Rules(), Rules(max_retries=1)])
def test_raised_by_hand_it_ends_too(rules: Rules) -> None:
    """A Retry raised by hand ends at max_retries, with its exception or RetriesExhausted."""
    assert failure(raising(Retry(OSError("away")), rules, retries=3), OSError).arguments == b'["away"]'
    raised = raising(Retry(), rules, retries=3)
    assert isinstance(raised, Raised)
    assert (raised.kind, raised.module) == ("RetriesExhausted", "hybridpool.errors")
    retrying(raising(Retry(), Rules(max_retries=None), retries=1000))


def test_the_tasks_own_limit_counts() -> None:
    """The limit given to `self.retry` goes before that of the options."""
    running = RunningTask("id-1", "t", 7, None, "ForkPoolWorker-1", lambda message: None)

    def task() -> None:
        running.retry(max_retries=10)

    again = retrying(ran(task, retries=7))
    assert again.traceback.endswith("hybridpool.errors.Retry: (None, None, None, None)")


def test_except_exception_lets_it_through() -> None:
    """`except Exception` in a task does not catch Retry, Reject and Ignore."""

    def task(error: str) -> None:
        try:
            raise {"retry": Retry(), "reject": Reject("no"), "ignore": Ignore()}[error]
        except Exception:  # noqa: BLE001  that is the point
            raise AssertionError("swallowed") from None

    assert isinstance(ran(task, DEFAULT_RULES, "retry"), Retrying)
    assert ran(task, DEFAULT_RULES, "reject") == Rejected("no", False)
    assert ran(task, DEFAULT_RULES, "ignore") == Ignored()


def test_verdicts_are_no_errors() -> None:
    """Reject and Ignore go before autoretry_for and throws."""
    rules = Rules(autoretry_for=(BaseException,), throws=(BaseException,))
    assert raising(Reject("no", requeue=True), rules) == Rejected("no", True)
    assert raising(Ignore(), rules) == Ignored()

    class Other(TaskVerdict):
        """An unknown verdict."""

    assert isinstance(raising(Other(), rules), Raised)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("no", "no"),
        ("", ""),
        (ValueError("no"), "ValueError('no')"),
        (KeyError(), "KeyError()"),
        (None, "None"),
        ("\udcff", "\\udcff"),
        (Odd(), "<Odd whose repr raised RuntimeError>"),
    ],
)
def test_reasons(reason: object, text: str) -> None:
    """The reason of a Reject may be of any type."""
    assert raising(Reject(reason)) == Rejected(text, False)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Retry(args=(7, 8)), [[7, 8], {"k": 3}, None]),
        (Retry(args=[]), [[], {"k": 3}, None]),
        (Retry(kwargs={"k": 4}), [[1, 2], {"k": 4}, None]),
        (Retry(kwargs={}), [[1, 2], {}, None]),
        (Retry(args=[7], kwargs={"k": 4}), [[7], {"k": 4}, None]),
    ],
)
def test_other_arguments(asked: Retry, expected: object) -> None:
    """A Retry's new arguments are sent, and those not given stay."""

    def task(*args: object, k: int) -> None:
        raise asked

    assert decode(retrying(ran(task, DEFAULT_RULES, 1, 2, k=3)).body or b"") == expected


def test_the_task_at_work_is_no_argument() -> None:
    """The bound task itself is not among the next attempt's arguments."""
    set_current_task(running := RunningTask("id-1", "t", 0, None, "ForkPoolWorker-1", lambda message: None))

    def task(self: RunningTask, *args: object) -> None:
        assert self is running
        raise Retry(kwargs={"k": 1})

    try:
        assert decode(retrying(ran(task, Rules(bind=True), 5)).body or b"") == [[5], {"k": 1}, None]
    finally:
        set_current_task(None)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (Retry(args=[object()]), "cannot be sent as JSON"),
        (Retry(args=[Sly()]), "cannot be sent as JSON"),
        (Retry(args=5), "must be a list or tuple"),
        (Retry(args="ab"), "must be a list or tuple"),
        (Retry(kwargs=[1]), "kwargs a dict"),
        (Retry(countdown="5"), "must be seconds, not '5'"),  # type: ignore[arg-type]
        (Retry(countdown=float("inf")), "must be seconds, not inf"),
        (Retry(countdown=float("nan")), "must be seconds, not nan"),
        (Retry(countdown=10**400), "must be seconds"),
        (Retry(countdown=True), "must be seconds"),
    ],
)
def test_what_cannot_be_asked_for(asked: Retry, complaint: str) -> None:
    """A wrong value in a Retry fails the task with TypeError."""
    assert complaint in failure(raising(asked), TypeError).text


def test_deep_arguments() -> None:
    """New arguments nested too deeply fail the task with TypeError."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert "cannot be sent as JSON" in failure(raising(Retry(args=deep)), TypeError).text


def test_a_pickled_body() -> None:
    """New arguments beside pickled ones that JSON does not have fail the task with TypeError."""
    import pickle

    def task(value: object, **_: object) -> None:
        raise Retry(kwargs={"k": 1})

    body = pickle.dumps([[{1, 2}], {}, None])
    outcome = execute.run(RunCall(1, "t", "id-1", PICKLE, body), {"t": task})
    assert "cannot be sent as JSON" in failure(outcome, TypeError).text


@given(
    countdown=st.one_of(
        st.none(), st.floats(), st.integers(), st.text(max_size=2), st.booleans(), st.binary(max_size=2)
    ),
    args=st.one_of(st.none(), st.lists(st.integers()), st.integers(), st.text(max_size=2), st.just([object()])),
    kwargs=st.one_of(st.none(), st.dictionaries(st.text(max_size=2), st.integers()), st.lists(st.none(), max_size=1)),
)
def test_any_wish_has_an_outcome(countdown: Any, args: object, kwargs: object) -> None:
    """Any Retry is either sent or fails the task with TypeError."""
    outcome = raising(Retry(OSError("away"), countdown, args, kwargs))
    if not isinstance(outcome, Retrying):
        failure(outcome, TypeError)
