"""One call: bytes → arguments → the function → outcome."""

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from hybridpool._child import execute, rendering
from hybridpool._ipc import frames
from hybridpool._ipc.codec import JSON, PICKLE, decode, encode
from hybridpool._ipc.frames import ChildOutcome, Done, Raised, Refused, Returned, RunCall
from tests.strategies import values


def call(function: Callable[..., Any], *args: object, **kwargs: object) -> ChildOutcome:
    """Run a function as a child would, for a well-formed message."""
    return with_body(function, encode([args, kwargs, None]))


def with_body(function: Callable[..., Any], body: bytes, content_type: str = JSON) -> ChildOutcome:
    """Run a function as a child would, for any body, and see that the outcome can be sent."""
    message = RunCall(seq=1, task="t", id="i", content_type=content_type, body=body)
    outcome = execute.run(message, {"t": function})
    sent = Done(1, outcome, 0.0, 0)
    assert frames.read_from_child(frames.pack([sent])) == [sent]
    return outcome


def raising(error: BaseException) -> Raised:
    """Run a task that raises, and return how that looks."""

    def task() -> None:
        raise error

    outcome = call(task)
    assert isinstance(outcome, Raised)
    return outcome


def add(x: int, y: int = 1) -> int:
    """Be a task."""
    return x + y


def give_back(value: object) -> object:
    """Be a task that changes nothing."""
    return value


def test_a_value() -> None:
    """No task would have a result."""
    assert call(add, 2, y=3) == Returned(b"5", "5")


@given(value=values)
def test_any_value(value: object) -> None:
    """Some argument or result would be changed on its way through a child."""
    outcome = call(give_back, value)
    assert isinstance(outcome, Returned)
    assert decode(outcome.value) == value


def test_unknown_task() -> None:
    """A call for a task that this child does not have would end the child."""
    outcome = execute.run(RunCall(1, "gone", "i", JSON, b"[[],{},null]"), {})
    assert outcome == Refused("unknown task 'gone'", "NotRegistered", "celery.exceptions", b'["gone"]')


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        ([], {}, "missing 1 required positional argument: 'x'"),
        ([1, 2, 3], {}, "takes from 1 to 2 positional arguments but 3 were given"),
        ([1], {"z": 1}, "got an unexpected keyword argument 'z'"),
        ([1], {"x": 1}, "got multiple values for argument 'x'"),
    ],
)
def test_arguments_that_do_not_fit(args: list[object], kwargs: dict[str, object], told: str) -> None:
    """A wrong call would look like a fault inside the task."""
    outcome = with_body(add, encode([args, kwargs, {}]))
    assert isinstance(outcome, Refused)
    assert outcome.reason.startswith("arguments do not fit: ")
    assert told in outcome.reason
    assert outcome.kind == "TypeError"


def test_a_type_error_inside() -> None:
    """A fault inside the task would be called a wrong message, and dead-lettered."""
    outcome = call(add, 1, "x")
    assert isinstance(outcome, Raised)
    assert outcome.kind == "TypeError"


def test_a_wrong_call_inside() -> None:
    """A wrong call that the task itself makes would be called a wrong message."""

    def task() -> int:
        return add(1, 2, 3)  # type: ignore[call-arg]  # that is the point

    assert isinstance(call(task), Raised)


def test_a_type_error_thrown_in_the_first_line() -> None:
    """A task that raises TypeError itself would be called a wrong message."""
    assert isinstance(raising(TypeError("mine")), Raised)


def test_a_result_without_a_form() -> None:
    """A task whose result cannot be sent would end its child, or be called a wrong message."""
    outcome = call(object)
    assert isinstance(outcome, Raised)
    assert outcome.kind == "TypeError"
    assert outcome.text == (
        "TypeError('t returned a value of type object that cannot be sent as JSON: object has no JSON form')"
    )


def test_an_exception() -> None:
    """The log and whoever waits would not learn what was raised, and where."""
    outcome = raising(ValueError("wrong", 3))
    assert (outcome.kind, outcome.module, outcome.text) == ("ValueError", "builtins", "ValueError('wrong', 3)")
    assert decode(outcome.arguments) == ["wrong", 3]
    assert outcome.traceback.startswith("Traceback (most recent call last):\n")
    assert outcome.traceback.endswith("ValueError: ('wrong', 3)")
    assert "child/payload.py" not in outcome.traceback, "our own frame tells a user nothing"
    assert "in task" in outcome.traceback


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), BaseException("odd")],
    ids=repr,
)
def test_what_is_no_exception(error: BaseException) -> None:
    """What asks the process, the program or the coroutine to end is a failure of the task like any other."""
    assert raising(error).kind == type(error).__qualname__


def test_exception_groups() -> None:
    """A group would lose its members, or end the child because it cannot be sent."""
    outcome = raising(ExceptionGroup("several", [ValueError(1), KeyError(2)]))
    assert outcome.kind == "ExceptionGroup"
    assert "ValueError: 1" in outcome.traceback


def test_exceptions_within_classes() -> None:
    """Whoever reads the result could not find the class (Celery sends the qualified name)."""

    class Deep(Exception):
        class Deeper(Exception):
            pass

    assert raising(Deep.Deeper()).kind == "test_exceptions_within_classes.<locals>.Deep.Deeper"


def test_arguments_of_an_exception_without_a_form() -> None:
    """An exception with such an argument would end the child."""
    assert decode(raising(ValueError("a", {1})).arguments) == ["'a'", "{1}"]


class Rude:
    """Raises whenever it is shown."""

    def __repr__(self) -> str:
        raise RuntimeError("not now")

    def __json__(self) -> object:
        return 1


class RudeError(Exception):
    """Raises whenever it is shown."""

    def __repr__(self) -> str:
        raise RuntimeError("not now")

    def __str__(self) -> str:
        raise RuntimeError("not now")


class Mute:
    """Can neither be sent nor shown."""

    def __repr__(self) -> str:
        raise RuntimeError("not now")


class Explosive:
    """Raises when it is encoded."""

    def __json__(self) -> object:
        raise LookupError("no")


def test_a_repr_that_raises() -> None:
    """A result or exception that cannot be shown would end the child."""
    returned = call(Rude)
    assert returned == Returned(b"1", "<Rude whose repr raised RuntimeError>")
    assert raising(RudeError(1)).text == "<RudeError whose repr raised RuntimeError>"
    assert decode(raising(ValueError(Mute())).arguments) == ["<Mute whose repr raised RuntimeError>"]


def test_an_exception_that_explodes_when_encoded() -> None:
    """It would end the child."""
    assert raising(ValueError(Explosive())).kind == "ValueError"


def test_an_exception_too_deep_to_encode() -> None:
    """It would end the child."""
    value: list[object] = []
    for _ in range(5_000):
        value = [value]
    assert raising(ValueError(value)).kind == "ValueError"


@pytest.mark.parametrize("text", ["name-\udc80", "\ud83d"])
def test_text_that_is_no_unicode(text: str) -> None:
    """A task that raises with the name of a file that is no UTF-8 would end the child, three times over."""
    assert decode(raising(ValueError(text)).arguments) == [text]
    assert "ValueError: " in raising(ValueError(text)).traceback


def test_a_repr_that_is_no_unicode() -> None:
    """A result that shows itself so would end the child."""

    class Odd(int):
        def __repr__(self) -> str:
            return "\udc80"

    assert isinstance(call(lambda: {"odd": Odd(1)}), Returned)


def test_an_argument_that_does_not_fit_and_is_no_unicode() -> None:
    """A message with such a keyword would end the child."""
    assert isinstance(with_body(add, b'[[1], {"\\udc80": 1}, {}]'), Refused)


def test_exceptions_of_unknown_origin() -> None:
    """An exception class made at run time, without a module, would end the child or hang its call."""
    made = type("Made", (Exception,), {"__module__": None})
    assert raising(made()).kind == "Made"


def test_long_texts_are_cut() -> None:
    """A 20 MB result would be written into the log."""
    outcome = call(give_back, "x" * 5000)
    assert isinstance(outcome, Returned)
    assert len(outcome.text) == 1024
    assert outcome.text.endswith("…")
    assert rendering.safe_repr("x" * 1022) == repr("x" * 1022)
    assert len(rendering.safe_repr("x" * 1023)) == 1024


def test_a_chain_of_causes() -> None:
    """The cause of an exception would be missing from the log."""

    def task() -> None:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise ValueError("second") from first

    outcome = call(task)
    assert isinstance(outcome, Raised)
    assert outcome.traceback.index("KeyError: 'first'") < outcome.traceback.index("ValueError: second")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"[[], {}]",
        b"[[], [], {}]",
        b"[{}, {}, {}]",
        b'["ab", {}, {}]',
        b'{"args": []}',
        b"[[],{},7]",
    ],
)
def test_bodies_that_are_no_calls(body: bytes) -> None:
    """A body of another shape would end the child, or call the task with nonsense."""
    outcome = with_body(add, body)
    assert isinstance(outcome, Refused)
    assert outcome.reason.startswith("undecodable body: ")


@pytest.mark.parametrize("embed", [None, {}, {"callbacks": None, "errbacks": [], "chain": None, "chord": None}])
def test_no_follow_ups(embed: object) -> None:
    """A plain call would be refused because of what it does not ask for."""
    assert with_body(add, encode([[1], {}, embed])) == Returned(b"2", "2")


@pytest.mark.parametrize("what", ["callbacks", "errbacks", "chain", "chord"])
def test_follow_ups_are_refused(what: str) -> None:
    """The rest of a workflow would be dropped in silence."""
    outcome = with_body(add, encode([[1], {}, {what: [{"task": "next"}]}]))
    assert isinstance(outcome, Refused)
    assert outcome.reason == f"the message asks for {what!r}, which this worker does not do yet"
    assert outcome.kind == "NotImplementedError"


def test_pickled_calls() -> None:
    """A Celery estate that sends pickles could not move here (the parent has checked accept_content)."""
    assert with_body(add, pickle.dumps(((1,), {"y": 5}, None)), PICKLE) == Returned(b"6", "6")


def test_a_pickle_that_raises() -> None:
    """It would end the child."""
    assert isinstance(with_body(add, b"\x80nonsense", PICKLE), Refused)
