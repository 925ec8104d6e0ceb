"""Calls of plain functions: pickled in, pickled out."""

import asyncio
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from hybridpool._child import execute, functions
from hybridpool._ipc import frames
from hybridpool._ipc.frames import ChildOutcome, Done, Raised, Returned, RunCall
from hybridpool._ipc.large_objects import LargeObject
from hybridpool.errors import CannotSend, Retry
from tests.strategies import values

MODULE = __name__


class Broken(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("broken")
        self.lock = threading.Lock()


class Shop:
    """Has functions inside."""

    @staticmethod
    def price(of: object, tax: float = 1.0) -> float:
        """Be called by a qualified name."""
        return len(repr(of)) * tax


def give_back(value: object) -> object:
    """Change nothing."""
    return value


def fail(error: BaseException) -> None:
    """Raise the given exception."""
    raise error


def make_broken() -> None:
    """Raise what cannot be pickled."""
    raise Broken


def make_lock() -> object:
    """Return what cannot be pickled."""
    return threading.Lock()


def make_local() -> Callable[[], int]:
    """Return what only cloudpickle can send."""
    return lambda: 7


def ask_again() -> None:
    """Want to be run again."""
    raise Retry


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this module be found by its name, as pytest does not put it there."""
    monkeypatch.setitem(sys.modules, MODULE, sys.modules.get(MODULE) or sys.modules[give_back.__module__])
    yield
    functions._found.clear()


def call(name: str, *args: object, **kwargs: object) -> ChildOutcome:
    """Run a function as a child would, and see that the outcome can be sent."""
    message = RunCall(1, f"{MODULE}:{name}", "", functions.BY_NAME, pickle.dumps((args, kwargs)))
    outcome = execute.runner({})(message, None)
    assert not isinstance(outcome, LargeObject)
    sent = Done(1, outcome, 0.0, 0)
    assert frames.read_from_child(frames.pack([sent])) == [sent]
    return outcome


def returned(outcome: ChildOutcome | LargeObject) -> Any:
    """Return the value of a call."""
    assert isinstance(outcome, Returned), outcome
    return pickle.loads(outcome.value)


def error_of(outcome: ChildOutcome | LargeObject) -> BaseException:
    """Return what a call raised, as its caller gets it."""
    assert isinstance(outcome, Raised), outcome
    error: BaseException = pickle.loads(outcome.pickled)
    return error


@given(value=values)
def test_any_value(value: object) -> None:
    """Any value goes through a call unchanged."""
    assert returned(call("give_back", value)) == value


def test_names_with_dots() -> None:
    """A function is found by a name with dots."""
    assert returned(call("Shop.price", "ab", tax=0.5)) == 2.0


def test_is_looked_up_once() -> None:
    """A function is looked up once."""
    call("give_back", 1)
    assert functions._found == {f"{MODULE}:give_back": give_back}


@pytest.mark.parametrize("name", ["gone", "Shop.gone", "Shop.gone.deeper", "MODULE"])
def test_no_such_function(name: str) -> None:
    """An unknown function raises CannotSend that names it."""
    error = error_of(call(name))
    assert isinstance(error, CannotSend)
    assert repr(name) in str(error)


def test_no_such_module() -> None:
    """An unknown module raises ModuleNotFoundError."""
    message = RunCall(1, "no.such.module:f", "", functions.BY_NAME, pickle.dumps(((), {})))
    assert isinstance(error_of(functions.run(message, None)), ModuleNotFoundError)


@pytest.mark.parametrize("error", [ValueError("x", 3), KeyError("k"), CannotSend("y")])
def test_what_it_raises(error: BaseException) -> None:
    """A function's exception is sent with its type, arguments and traceback."""
    outcome = call("fail", error)
    found = error_of(outcome)
    assert (type(found), found.args) == (type(error), error.args)
    assert isinstance(outcome, Raised)
    assert "in fail" in outcome.traceback


def test_an_exception_that_cannot_be_sent() -> None:
    """An exception that cannot be unpickled is sent as text."""
    outcome = call("make_broken")
    assert isinstance(outcome, Raised)
    assert (outcome.kind, outcome.pickled) == ("Broken", b"")
    assert "broken" in outcome.text


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), StopIteration(4)],
    ids=repr,
)
def test_what_would_end_the_caller_goes_as_text(error: BaseException) -> None:
    """SystemExit, KeyboardInterrupt and the like are sent as text, and not raised in the caller's program."""
    outcome = call("fail", error)
    assert isinstance(outcome, Raised)
    assert (outcome.kind, outcome.pickled) == (type(error).__qualname__, b"")


def test_a_body_that_is_no_pickle() -> None:
    """A body that is not a pickle fails the call."""
    outcome = functions.run(RunCall(1, f"{MODULE}:give_back", "", functions.BY_NAME, b"\x80nonsense"), None)
    assert isinstance(outcome, Raised)


def test_a_value_that_cannot_be_sent() -> None:
    """A value that cannot be sent raises CannotSend that names function and value."""
    error = error_of(call("make_lock"))
    assert isinstance(error, CannotSend)
    assert "make_lock" in str(error)
    assert "lock" in str(error)


def test_a_verdict() -> None:
    """A Retry in a function that is not a task raises CannotSend."""
    error = error_of(call("ask_again"))
    assert isinstance(error, CannotSend)
    assert "ask_again raised Retry, which is for tasks of an app" in str(error)


def test_with_cloudpickle() -> None:
    """With cloudpickle a lambda can be called and returned."""
    cloudpickle = pytest.importorskip("cloudpickle")
    assert returned(call("make_local"))() == 7
    body = cloudpickle.dumps((lambda number: number + 1, (1,), {}))
    assert returned(functions.run(RunCall(1, "<lambda>", "", functions.BY_VALUE, body), None)) == 2


def test_without_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cloudpickle a local function as a value raises CannotSend."""
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    assert isinstance(error_of(call("make_local")), CannotSend)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Be a child whose parent runs a script."""
    path = tmp_path / "script.py"
    path.write_text("def double(x):\n    return 2 * x\n\nif __name__ == '__main__':\n    raise SystemExit('started')\n")
    # so that both are put back
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setitem(sys.modules, "__mp_main__", sys.modules["__main__"])
    monkeypatch.delitem(sys.modules, "__mp_main__")
    yield path
    functions.set_main_path(None)


def test_functions_of_a_script(script: Path) -> None:
    """A function of a script is found once the script's path is known."""
    message = RunCall(1, "__main__:double", "", functions.BY_NAME, pickle.dumps(((21,), {})))
    assert isinstance(error_of(functions.run(message, None)), CannotSend), "nobody has said where it is"
    functions.set_main_path(str(script))
    assert returned(functions.run(message, None)) == 42


def test_tasks_of_an_app_still_run() -> None:
    """A call by a task's name runs the app's task."""
    message = RunCall(1, "double", "i", "application/json", b"[[4],{},null]")
    assert execute.runner({"double": lambda x: 2 * x})(message, None) == Returned(b"8", "8")
