"""Calls of functions through a pool: serialization, outcomes, and the handle `Call`."""

import asyncio
import inspect
import pickle
import sys
import types
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Generic, Literal, NamedTuple, NoReturn, TypeVar, assert_never, cast

from hybridpool import errors
from hybridpool._child import functions
from hybridpool._child.rendering import annotate
from hybridpool._client.function_identity import is_alike
from hybridpool._ipc import codec, large_objects
from hybridpool._ipc.blobs import OutgoingBlob
from hybridpool._ipc.large_objects import LargeObject
from hybridpool._lanes.base import Job
from hybridpool._lanes.wakeup import Wakeup
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

R = TypeVar("R")
_HINT: Final = "; with cloudpickle installed it may work"
_MAIN_NAME: Final = b"__main__"
#: types of arguments that are never large
_SMALL_TYPES: Final = frozenset({type(None), bool, int, float, complex})
#: the states of a call
CallState = Literal["waiting", "running", "done", "cancelled"]


class FunctionName(NamedTuple):
    """A function that children find by its name."""

    name: str
    #: with the fingerprint, by which a child checks that it has found this function
    content_type: str
    #: its code when it was looked up; a program may replace it at run time
    code: object


class FunctionNames:
    """The names by which children find functions, looked up once for each function.

    A name is valid only if it leads to the caller's function, here and in the children. Here it is looked up, as pickle
    does. The children import the same modules for themselves, so they do not see later
    changes of this process (a module that is reloaded, a function that a test patches). Such a function is refused:
    under its name a child would run the earlier one.
    """

    def __init__(self) -> None:
        self._known: dict[Callable[..., object], FunctionName] = {}
        #: the function that a name led to at first
        self._first: dict[str, Callable[..., object]] = {}
        #: modules by name, as their specs: a reload makes another one
        self._specs: dict[str, object] = {}
        #: whether a function is a coroutine function
        self._are_async: dict[Callable[..., object], bool] = {}
        #: functions that have a parameter of that name
        self._parameters: dict[tuple[Callable[..., object], str], bool] = {}
        self.has_script = has_script()

    def opened(self) -> None:
        """Record the loaded modules, as children import theirs from now on."""
        self._known.clear()
        self._first.clear()
        self._specs = {name: getattr(module, "__spec__", None) for name, module in list(sys.modules.items())}
        if self.has_script:
            # Objects of the script's classes come back under that module name; multiprocessing sets it too, if loaded.
            sys.modules.setdefault("__mp_main__", sys.modules["__main__"])

    def name(self, function: Callable[..., object]) -> FunctionName | None:
        """Return how children find a function, or None if its name does not lead to this function.

        :raises CannotSend: if a child cannot run it, or was defined again since the pool was opened.
        """
        try:
            known = self._known[function]
        except (KeyError, TypeError):  # not known, or not hashable
            pass
        else:
            if known.code is getattr(function, "__code__", None):
                return known
            raise _redefined(known.name)
        _check_function(function)
        found = self._find(function)
        if found is not None:
            self._known[function] = found
        return found

    def fingerprint(self, name: str, function: Callable[..., object]) -> str:
        """Return the fingerprint of a function pickled by value, if it wraps one that is found by its name.

        :raises CannotSend: if that one was defined again since the pool was opened.
        """
        inner = functions.innermost(function)
        return "" if inner is function or self._find(inner) is None else functions.fingerprint(name, inner)

    def is_coroutine_function(self, function: Callable[..., object]) -> bool:
        """Tell whether a function, an object that is called, or what a partial stands for is ``async def``."""
        try:
            return self._are_async[function]
        except (KeyError, TypeError):  # not known, or not hashable
            pass
        inner = functions.innermost(function)
        call = getattr(type(inner), "__call__", None)  # noqa: B004  # an object whose call is async def
        found = inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)
        with suppress(TypeError):
            # A function without a name may be made for each call, so it is not kept.
            if function in self._known:
                self._are_async[function] = found
        return found

    def has_parameter(self, function: Callable[..., object], name: str) -> bool:
        """Tell whether a function has a parameter that can be given by that name."""
        try:
            return self._parameters[function, name]
        except (KeyError, TypeError):  # not known, or not hashable
            pass
        try:
            parameter = inspect.signature(function).parameters.get(name)
        except (ValueError, TypeError):  # some functions in C tell nothing
            return False
        found = parameter is not None and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        with suppress(TypeError):
            # A function without a name may be made for each call, so it is not kept.
            if function in self._known:
                self._parameters[function, name] = found
        return found

    def _find(self, function: Callable[..., object]) -> FunctionName | None:
        module_name, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
        if not isinstance(module_name, str) or not isinstance(qualname, str):
            return None
        if module_name == "__main__" and not self.has_script:
            return None
        module = sys.modules.get(module_name)
        found: object = module
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if found is not function:
            return None
        name = f"{module_name}:{qualname}"
        spec = getattr(module, "__spec__", None)
        if self._specs.setdefault(module_name, spec) is not spec:
            raise _redefined(name)
        if not is_alike(self._first.setdefault(name, function), function):
            raise _redefined(name)
        fingerprint = functions.fingerprint(name, function)
        return FunctionName(name, functions.BY_NAME + fingerprint, getattr(function, "__code__", None))


def _redefined(name: str) -> errors.CannotSend:
    return errors.CannotSend(
        f"{name} was defined again after the pool was opened (a reload, a patch), and its children have the one "
        f"before; open another pool for the new one"
    )


def _check_function(function: Callable[..., object]) -> None:
    """:raises CannotSend: if it is a generator function, or not callable."""
    name_shown = getattr(function, "__qualname__", None) or repr(function)
    if not callable(function):
        raise errors.CannotSend(f"a pool runs functions, and {name_shown} cannot be called")
    inner = functions.innermost(function)
    call = getattr(type(inner), "__call__", None)  # noqa: B004  # an object whose call is async def
    code = getattr(inner, "__code__", None) or getattr(call, "__code__", None)
    flags = code.co_flags if isinstance(code, types.CodeType) else 0
    if flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        raise errors.CannotSend(f"{name_shown} is a generator function, whose values stay in the child; return a list")


def has_script() -> bool:
    """Tell whether a child can find what ``__main__`` defines: not in a notebook, nor at a prompt."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return path is not None and Path(path).is_file()


def write(
    names: FunctionNames, function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[str, str, bytes | OutgoingBlob]:
    """Return name, content type and body of a call.

    :raises CannotSend: if the function or an argument cannot be sent; the message names it.
    """
    named = names.name(function)
    if named is not None:
        try:
            body = _dump_arguments(args, kwargs)
        except Exception as error:  # noqa: BLE001  # whatever pickling user values raises
            return _write_by_value(names, named.name, function, args, kwargs, error)
        if names.has_script or not _mentions_main(body):
            return named.name, named.content_type, body
    name_shown = getattr(function, "__qualname__", repr(function))
    reason = errors.CannotSend(f"{name_shown} has no name by which a child could import it")
    return _write_by_value(names, name_shown, function, args, kwargs, reason)


def _write_by_value(
    names: FunctionNames,
    name: str,
    function: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    why: Exception,
) -> tuple[str, str, bytes | OutgoingBlob]:
    def dump(value: object) -> bytes | LargeObject:
        return dump_by_value(value, has_script=names.has_script)

    try:
        return name, functions.BY_VALUE + names.fingerprint(name, function), _pack(dump((function, args, kwargs)))
    except ImportError:
        raise _cannot_send(name, args, kwargs, why, pickle.dumps, _HINT) from None
    except Exception as error:  # noqa: BLE001  # whatever pickling user values raises
        raise _cannot_send(name, args, kwargs, error, dump, "") from None


def _dump_arguments(args: Sequence[object], kwargs: Mapping[str, object]) -> bytes | OutgoingBlob:
    # Collecting the pieces of a large value costs time, which small values do not need.
    if not kwargs and _SMALL_TYPES.issuperset(map(type, args)):
        return pickle.dumps((args, kwargs), pickle.HIGHEST_PROTOCOL)
    return _pack(large_objects.dump((args, kwargs)))


def _pack(dumped: bytes | LargeObject) -> bytes | OutgoingBlob:
    return OutgoingBlob(dumped) if isinstance(dumped, LargeObject) else dumped


def _mentions_main(body: bytes | OutgoingBlob) -> bool:
    return body.mentions(_MAIN_NAME) if isinstance(body, OutgoingBlob) else _MAIN_NAME in body


def dump_by_value(value: object, *, has_script: bool) -> bytes | LargeObject:
    """Pickle a value that contains functions: methods and partials by pickle, other functions by cloudpickle.

    :raises ImportError: if cloudpickle is needed and not installed.
    """
    if has_script:
        try:
            return large_objects.dump(value)
        except Exception:  # noqa: BLE001  # whatever pickling user values raises; cloudpickle may do it
            pass
    import cloudpickle

    return large_objects.dump(value, cloudpickle.Pickler)


def _cannot_send(
    name: str,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    why: Exception,
    dumps: Callable[[object], object],
    hint: str,
) -> errors.CannotSend:
    named = [*((f"argument {n}", value) for n, value in enumerate(args, 1)), *kwargs.items()]
    for argument, value in named:
        try:
            dumps(value)
        except Exception as error:  # noqa: BLE001  # whatever pickling user values raises
            return errors.CannotSend(f"{name}: {argument}, a {type(value).__qualname__}, cannot be sent: {error}{hint}")
    return errors.CannotSend(f"{name} cannot be sent to a child: {why}{hint}")


def result_of(name: str, outcome: Outcome, value: Callable[[], object] | None = None) -> object:
    """Return the value of a call.

    :param value: returns a large value, which came in a blob.

    :raises ChildLost: if its child died.
    :raises PoolClosed: if it was not run, because the pool was closed.
    :raises TimeLimitExceeded: if it ran over its hard or soft limit.
    :raises TaskCancelled: if it was cancelled.
    :raises TaskFailed: if the exception that it raised cannot be rebuilt here; otherwise that exception.
    """
    match outcome:
        case Returned():
            try:
                return pickle.loads(outcome.value) if value is None else value()
            except (SystemExit, GeneratorExit) as error:
                # Unpickling runs code of the value; these exceptions would end the caller.
                raise errors.TaskFailed(name, (f"its value cannot be unpickled: {error!r}",)) from error
        case Raised():
            raise _rebuild(name, outcome)
        case Lost(cause=cause, child=child):
            if not child:
                raise errors.PoolClosed(f"{name} was not run: {cause}")
            why = f"{cause}, {outcome.hint}" if outcome.hint else cause
            raise errors.ChildLost(f"{child} died in {name}: {why}", name, child, outcome.exitcode, outcome.peak)
        case TimedOut(limit=limit, child=child, is_killed=is_killed):
            end = f"{child} was killed" if is_killed else "it was told to stop"
            raise errors.TimeLimitExceeded(f"{name} ran over its time limit of {limit:g} s; {end}")
        case Cancelled():
            raise errors.TaskCancelled(f"{name} was cancelled")
        case Refused(reason=reason):
            raise errors.TaskFailed(name, (reason,))
        case Retrying() | Rejected() | Ignored():
            raise errors.TaskFailed(
                name, ("it asked for a retry, or to be rejected or ignored: there is no broker here",)
            )
        case _:
            assert_never(outcome)


def release(job: Job, outcome: Outcome, end: Callable[[Outcome, Callable[[], object] | None], None]) -> None:
    """Release what an ended call holds, and pass its outcome on when its large value, if it has one, can be read.

    Job and handle refer to each other, so only the garbage collector would free them, and the body with them.

    :param end: gets the outcome, and what reads the large value; None: there is none.
    """
    job.body, job.on_done = b"", _already_ended
    blob, job.blob = job.blob, None
    if blob is None:
        end(outcome, None)
    else:
        blob.open(lambda value: end(outcome, value))


def _already_ended(*_: object) -> None:
    """Do nothing: the end was reported."""


_SIGNALS: Final = {kind.__name__: kind for kind in (errors.SoftTimeLimitExceeded, errors.TaskCancelled)}


def _is_cancelled(outcome: Outcome) -> bool:
    """Tell whether a call was cancelled: before it began, by `TaskCancelled` inside, or with its child."""
    match outcome:
        case Cancelled():
            return True
        case Raised(module=errors.__name__, kind=errors.TaskCancelled.__name__):
            return True
        case _:
            return False


def _rebuild(name: str, raised: Raised) -> BaseException:
    error: object = None
    if raised.pickled:
        try:
            error = pickle.loads(raised.pickled)
        except Exception:  # noqa: BLE001  # unpickling runs user code; the error's text is used instead
            error = None
    elif raised.module == errors.__name__ and raised.kind in _SIGNALS:
        # It was raised after the function had ended, so it was not pickled.
        error = _SIGNALS[raised.kind](*codec.decode(raised.arguments))
    if isinstance(error, errors.SoftTimeLimitExceeded):
        # Inside the task it is not an Exception, so that it is not swallowed; here it is an error like others.
        error = errors.TimeLimitExceeded(f"{name} ran over its soft time limit of {error.args[0]:g} s")
    if not isinstance(error, BaseException):
        error = errors.TaskFailed(f"{raised.module}.{raised.kind}", (raised.text,), raised.traceback)
    if not annotate(error, f"\nIn the child:\n{raised.traceback}"):
        error = errors.TaskFailed(f"{raised.module}.{raised.kind}", (raised.text,), raised.traceback)
        error.add_note(f"\nIn the child:\n{raised.traceback}")
    return error


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Check that this is the pool's event loop: on another loop, or without one, a waiter would not be woken.

    :raises PoolError: if this is another one.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is not loop:
        raise errors.PoolError(
            "this pool belongs to another event loop; from a thread use "
            "`asyncio.run_coroutine_threadsafe(pool.run(…), loop)` with the loop that opened it"
        )


class Call(Generic[R]):
    """A submitted call. Await it for its value; any number of times, by any number of tasks of its loop."""

    __module__ = "hybridpool"
    __slots__ = (
        "__weakref__",
        "_cancel",
        "_child",
        "_job",
        "_loop",
        "_outcome",
        "_value",
        "_wakeup",
        "name",
        "runtime",
    )

    def __init__(self, name: str, cancel: Callable[[Job], None], loop: asyncio.AbstractEventLoop) -> None:
        #: name of the function
        self.name = name
        self._cancel = cancel
        self._loop = loop
        #: what the lane knows it as
        self._job: Job | None = None
        self._outcome: Outcome | None = None
        #: returns a large value
        self._value: Callable[[], object] | None = None
        # Not one future for all waiters: each would have to shield it, which costs a turn of the loop.
        self._wakeup: Wakeup | None = None
        self._child = ""
        #: seconds it ran; 0 until it has ended
        self.runtime = 0.0

    def _ended(self, job: Job, outcome: Outcome, child: str, runtime: float) -> None:
        """Hear how it ended; the job's `on_done`."""
        self._child, self.runtime = child, runtime
        release(job, outcome, self._end)

    def _end(self, outcome: Outcome, value: Callable[[], object] | None) -> None:
        self._value, self._outcome = value, outcome
        if self._wakeup is not None:
            self._wakeup.notify_all()

    @property
    def state(self) -> CallState:
        """The state of the call."""
        if self._outcome is None:
            return "running" if self.started_at is not None else "waiting"
        return "cancelled" if _is_cancelled(self._outcome) else "done"

    @property
    def child(self) -> str:
        """Name of the child that runs it, or ran it; empty before."""
        return self._child or (self._job.child if self._job else "")

    @property
    def started_at(self) -> float | None:
        """Monotonic seconds of when a child had it in hand; None before."""
        return self._job.handed_at if self._job else None

    def cancel(self) -> None:
        """Give it up: if it has not begun it never will; else it is stopped, and after a grace its child is killed."""
        if self._job is not None and self._outcome is None:
            check_loop(self._loop)
            self._cancel(self._job)

    async def wait(self) -> None:
        """Wait until it has ended, in any way."""
        while self._outcome is None:
            await self._sleeper()

    def _sleeper(self) -> "asyncio.Future[None]":
        check_loop(self._loop)
        if self._wakeup is None:
            self._wakeup = Wakeup()
        return self._wakeup.waiter()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"the call of {self.name} belongs to its pool and cannot be pickled; await it and send its value"
        )

    def __await__(self) -> Generator[Any, None, R]:
        while self._outcome is None:
            yield from self._sleeper()
        return cast("R", result_of(self.name, self._outcome, self._value))


def submitted(
    name: str,
    begin: Callable[[Callable[..., None]], Job],
    cancel: Callable[[Job], None],
    loop: asyncio.AbstractEventLoop,
) -> Call[Any]:
    """Submit a call and return its handle.

    :param begin: submits the job; its argument is the job's `on_done`.
    """
    call: Call[Any] = Call(name, cancel, loop)
    call._job = begin(call._ended)  # pyright: ignore[reportPrivateUsage]
    return call
