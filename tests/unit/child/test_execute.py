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
    """A call returns its encoded value and its text."""
    assert call(add, 2, y=3) == Returned(b"5", "5")


@given(value=values)
def test_any_value(value: object) -> None:
    """Any value goes through a call unchanged."""
    outcome = call(give_back, value)
    assert isinstance(outcome, Returned)
    assert decode(outcome.value) == value


def test_unknown_task() -> None:
    """An unknown task is refused."""
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
    """Arguments that do not fit are refused, with the reason."""
    outcome = with_body(add, encode([args, kwargs, {}]))
    assert isinstance(outcome, Refused)
    assert outcome.reason.startswith("arguments do not fit: ")
    assert told in outcome.reason
    assert outcome.kind == "TypeError"


def test_a_type_error_inside() -> None:
    """A TypeError inside a task is the task's failure."""
    outcome = call(add, 1, "x")
    assert isinstance(outcome, Raised)
    assert outcome.kind == "TypeError"


def test_a_wrong_call_inside() -> None:
    """A wrong call that the task itself makes is the task's failure."""

    def task() -> int:
        return add(1, 2, 3)  # type: ignore[call-arg]  # that is the point

    assert isinstance(call(task), Raised)


def test_a_type_error_thrown_in_the_first_line() -> None:
    """A TypeError raised in the task's first line is the task's failure."""
    assert isinstance(raising(TypeError("mine")), Raised)


def test_a_result_without_a_form() -> None:
    """A result without a JSON form is the task's failure, and names its type."""
    outcome = call(object)
    assert isinstance(outcome, Raised)
    assert outcome.kind == "TypeError"
    assert outcome.text == (
        "TypeError('t returned a value of type object that cannot be sent as JSON: object has no JSON form')"
    )


def test_an_exception() -> None:
    """An exception is sent with its type, arguments and traceback, without our own frames."""
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
    """SystemExit, KeyboardInterrupt and the like are failures of the task."""
    assert raising(error).kind == type(error).__qualname__


def test_exception_groups() -> None:
    """An exception group is sent with the traceback of its members."""
    outcome = raising(ExceptionGroup("several", [ValueError(1), KeyError(2)]))
    assert outcome.kind == "ExceptionGroup"
    assert "ValueError: 1" in outcome.traceback


def test_exceptions_within_classes() -> None:
    """The class of an exception is sent by its qualified name."""

    class Deep(Exception):
        class Deeper(Exception):
            pass

    assert raising(Deep.Deeper()).kind == "test_exceptions_within_classes.<locals>.Deep.Deeper"


def test_arguments_of_an_exception_without_a_form() -> None:
    """An argument without a JSON form is sent as its repr."""
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
    """A repr that raises is replaced by a note."""
    returned = call(Rude)
    assert returned == Returned(b"1", "<Rude whose repr raised RuntimeError>")
    assert raising(RudeError(1)).text == "<RudeError whose repr raised RuntimeError>"
    assert decode(raising(ValueError(Mute())).arguments) == ["<Mute whose repr raised RuntimeError>"]


def test_an_exception_that_explodes_when_encoded() -> None:
    """An exception whose argument raises when encoded is sent."""
    assert raising(ValueError(Explosive())).kind == "ValueError"


def test_an_exception_too_deep_to_encode() -> None:
    """An exception whose argument is nested too deeply is sent."""
    value: list[object] = []
    for _ in range(5_000):
        value = [value]
    assert raising(ValueError(value)).kind == "ValueError"


@pytest.mark.parametrize("text", ["name-\udc80", "\ud83d"])
def test_text_that_is_no_unicode(text: str) -> None:
    """An exception whose text has surrogates is sent."""
    assert decode(raising(ValueError(text)).arguments) == [text]
    assert "ValueError: " in raising(ValueError(text)).traceback


def test_a_repr_that_is_no_unicode() -> None:
    """A result whose repr has surrogates is sent."""

    class Odd(int):
        def __repr__(self) -> str:
            return "\udc80"

    assert isinstance(call(lambda: {"odd": Odd(1)}), Returned)


def test_an_argument_that_does_not_fit_and_is_no_unicode() -> None:
    """An unknown keyword with surrogates is refused."""
    assert isinstance(with_body(add, b'[[1], {"\\udc80": 1}, {}]'), Refused)


def test_exceptions_of_unknown_origin() -> None:
    """An exception class without a module is sent."""
    made = type("Made", (Exception,), {"__module__": None})
    assert raising(made()).kind == "Made"


def test_long_texts_are_cut() -> None:
    """The text of a result is cut to 1024 characters."""
    outcome = call(give_back, "x" * 5000)
    assert isinstance(outcome, Returned)
    assert len(outcome.text) == 1024
    assert outcome.text.endswith("…")
    assert rendering.safe_repr("x" * 1022) == repr("x" * 1022)
    assert len(rendering.safe_repr("x" * 1023)) == 1024


def test_a_chain_of_causes() -> None:
    """The traceback has the chain of causes."""

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
    """A body that is not a call is refused."""
    outcome = with_body(add, body)
    assert isinstance(outcome, Refused)
    assert outcome.reason.startswith("undecodable body: ")


@pytest.mark.parametrize("embed", [None, {}, {"callbacks": None, "errbacks": [], "chain": None, "chord": None}])
def test_no_follow_ups(embed: object) -> None:
    """A call without follow-ups is run, however that is written."""
    assert with_body(add, encode([[1], {}, embed])) == Returned(b"2", "2")


@pytest.mark.parametrize("what", ["callbacks", "errbacks", "chain", "chord"])
def test_follow_ups_are_refused(what: str) -> None:
    """A call with follow-ups is refused."""
    outcome = with_body(add, encode([[1], {}, {what: [{"task": "next"}]}]))
    assert isinstance(outcome, Refused)
    assert outcome.reason == f"the message asks for {what!r}, which this worker does not do yet"
    assert outcome.kind == "NotImplementedError"


def test_pickled_calls() -> None:
    """A pickled call is run."""
    assert with_body(add, pickle.dumps(((1,), {"y": 5}, None)), PICKLE) == Returned(b"6", "6")


def test_a_pickle_that_raises() -> None:
    """A pickle that cannot be loaded is refused."""
    assert isinstance(with_body(add, b"\x80nonsense", PICKLE), Refused)
