"""A call of a plain function through a pool: how it is written, how its outcome is read, and its handle."""

import asyncio
import pickle
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar, cast

from hybridpool import errors
from hybridpool.child import bulk, codec, functions
from hybridpool.child.bulk import Bulk
from hybridpool.child.words import annotate
from hybridpool.lanes.bell import Bell
from hybridpool.lanes.freight import Freight, Parcel
from hybridpool.lanes.job import Job
from hybridpool.outcome import Cancelled, Lost, Outcome, Raised, Refused, Returned, TimedOut

R = TypeVar("R")
_HINT: Final = "; with cloudpickle installed it may work"
_MAIN: Final = b"__main__"
#: types of arguments that are never large
_SMALL: Final = frozenset({type(None), bool, int, float, complex})
#: where a call is in its life
CallState = Literal["waiting", "running", "done", "cancelled"]


class Names:
    """How functions are named to children; found once for each function that has a name."""

    def __init__(self) -> None:
        self._known: dict[Callable[..., object], str] = {}
        self.has_script = has_script()

    def name(self, function: Callable[..., object]) -> str | None:
        """Return ``module:qualname`` if that leads to this very function, else None."""
        try:
            return self._known[function]
        except (KeyError, TypeError):  # not known, or not hashable
            found = self._find(function)
        if found is not None:
            self._known[function] = found
        return found

    def _find(self, function: Callable[..., object]) -> str | None:
        module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(qualname, str):
            return None
        if module == "__main__" and not self.has_script:
            return None
        found: object = sys.modules.get(module)
        for part in qualname.split("."):
            found = getattr(found, part, None)
        return f"{module}:{qualname}" if found is function else None


def has_script() -> bool:
    """Tell whether a child can find what ``__main__`` defines: not in a notebook, nor at a prompt."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return path is not None and Path(path).is_file()


def write(
    names: Names, function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[str, str, bytes | Freight]:
    """Return name, content type and body of a call.

    :raises CannotSend: if the function or an argument cannot be sent; the message names it.
    """
    name = names.name(function)
    if name is not None:
        try:
            body = _dump_arguments(args, kwargs)
        except Exception as error:  # noqa: BLE001  # whatever pickling user values raises
            return _write_whole(names, name, function, args, kwargs, error)
        if names.has_script or not _mentions_main(body):
            return name, functions.BY_NAME, body
    shown = getattr(function, "__qualname__", repr(function))
    reason = errors.CannotSend(f"{shown} has no name by which a child could import it")
    return _write_whole(names, shown, function, args, kwargs, reason)


def _write_whole(
    names: Names,
    name: str,
    function: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    why: Exception,
) -> tuple[str, str, bytes | Freight]:
    def dump(value: object) -> bytes | Bulk:
        return dump_whole(value, has_script=names.has_script)

    try:
        return name, functions.WHOLE, _packed(dump((function, args, kwargs)))
    except ImportError:
        raise _unsendable(name, args, kwargs, why, pickle.dumps, _HINT) from None
    except Exception as error:  # noqa: BLE001  # whatever pickling user values raises
        raise _unsendable(name, args, kwargs, error, dump, "") from None


def _dump_arguments(args: Sequence[object], kwargs: Mapping[str, object]) -> bytes | Freight:
    # Gathering a large value's pieces has its price, which a small one need not pay.
    if not kwargs and _SMALL.issuperset(map(type, args)):
        return pickle.dumps((args, kwargs), pickle.HIGHEST_PROTOCOL)
    return _packed(bulk.dump((args, kwargs)))


def _packed(dumped: bytes | Bulk) -> bytes | Freight:
    return Freight(dumped) if isinstance(dumped, Bulk) else dumped


def _mentions_main(body: bytes | Freight) -> bool:
    return body.mentions(_MAIN) if isinstance(body, Freight) else _MAIN in body


def dump_whole(value: object, *, has_script: bool) -> bytes | Bulk:
    """Pickle a value that holds functions: methods and partials as they are, the rest by cloudpickle.

    :raises ImportError: if it takes cloudpickle, and that is not installed.
    """
    if has_script:
        try:
            return bulk.dump(value)
        except Exception:  # noqa: BLE001  # whatever pickling user values raises; there is another way
            pass
    import cloudpickle

    return bulk.dump(value, cloudpickle.Pickler)


def _unsendable(
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


def read(name: str, outcome: Outcome, value: Callable[[], object] | None = None) -> object:
    """Return the value of a call.

    :param value: gives a large one, which came in a parcel.

    :raises ChildLost: if its child died.
    :raises PoolClosed: if it was not run, because the pool ended.
    :raises TimeLimitExceeded: if it was killed for its time, or ended by its soft limit.
    :raises TaskCancelled: if it was given up.
    :raises TaskFailed: if the exception it raised cannot be rebuilt here; else that exception.
    """
    match outcome:
        case Returned():
            return pickle.loads(outcome.value) if value is None else value()
        case Raised():
            raise _rebuilt(name, outcome)
        case Lost(cause=cause, child=child):
            if not child:
                raise errors.PoolClosed(f"{name} was not run: {cause}")
            why = f"{cause}, {outcome.hint}" if outcome.hint else cause
            raise errors.ChildLost(f"{child} died in {name}: {why}", name, child, outcome.exitcode, outcome.peak)
        case TimedOut(limit=limit, child=child):
            raise errors.TimeLimitExceeded(f"{name} ran over its time limit of {limit:g} s; {child} was killed")
        case Cancelled():
            raise errors.TaskCancelled(f"{name} was cancelled")
        case Refused(reason=reason):
            raise errors.TaskFailed(name, (reason,))
        case _:
            raise errors.TaskFailed(
                name, ("it asked for a retry, or to be rejected or ignored: there is no broker here",)
            )


def clear(job: Job) -> Parcel | None:
    """Let a call that has ended go of what it held, and return the large value, if that is what came of it.

    Job and handle know each other: only the collector would free them, and the body with them.
    """
    job.body, job.on_done = b"", _already_ended
    parcel, job.parcel = job.parcel, None
    return parcel


def _already_ended(*_: object) -> None:
    """Nobody is to be told any more."""


_SIGNALS: Final = {kind.__name__: kind for kind in (errors.SoftTimeLimitExceeded, errors.TaskCancelled)}


def _is_cancelled(outcome: Outcome) -> bool:
    """Tell whether a call ended because it was given up: before it began, by the signal inside, or with its child."""
    match outcome:
        case Cancelled():
            return True
        case Raised(module=errors.__name__, kind=errors.TaskCancelled.__name__):
            return True
        case _:
            return False


def _rebuilt(name: str, raised: Raised) -> BaseException:
    error: object = None
    if raised.pickled:
        try:
            error = pickle.loads(raised.pickled)
        except Exception:  # noqa: BLE001  # whatever unpickling user values raises; the text still tells the story
            error = None
    elif raised.module == errors.__name__ and raised.kind in _SIGNALS:
        # It came between the function's end and its answer, so it was not pickled.
        error = _SIGNALS[raised.kind](*codec.decode(raised.arguments))
    if isinstance(error, errors.SoftTimeLimitExceeded):
        # Inside the task it is no Exception, so that it is not swallowed; here it is an error like others.
        error = errors.TimeLimitExceeded(f"{name} ran over its soft time limit of {error.args[0]:g} s")
    if not isinstance(error, BaseException):
        error = errors.TaskFailed(f"{raised.module}.{raised.kind}", (raised.text,), raised.traceback)
    if not annotate(error, f"\nIn the child:\n{raised.traceback}"):
        error = errors.TaskFailed(f"{raised.module}.{raised.kind}", (raised.text,), raised.traceback)
        error.add_note(f"\nIn the child:\n{raised.traceback}")
    return error


class Call(Generic[R]):
    """A submitted call. Await it for its value; any number of times, by any number of tasks of its loop."""

    __slots__ = ("__weakref__", "_bell", "_cancel", "_child", "_outcome", "_value", "job", "name", "runtime")

    def __init__(self, name: str, cancel: Callable[[Job], None]) -> None:
        self.name = name
        self._cancel = cancel
        #: what the lane knows it as
        self.job: Job | None = None
        self._outcome: Outcome | None = None
        #: gives a large value
        self._value: Callable[[], object] | None = None
        # Not one future for all who wait: each would have to shield it, which costs a turn of the loop.
        self._bell: Bell | None = None
        self._child = ""
        #: seconds it ran
        self.runtime = 0.0

    def ended(self, job: Job, outcome: Outcome, child: str, runtime: float) -> None:
        """Hear how it ended; the job's `on_done`."""
        self._child, self.runtime = child, runtime
        parcel = clear(job)
        if parcel is None:
            self._end(outcome)
        else:
            parcel.open(lambda value: self._end(outcome, value))

    def _end(self, outcome: Outcome, value: Callable[[], object] | None = None) -> None:
        self._value, self._outcome = value, outcome
        if self._bell is not None:
            self._bell.ring()

    @property
    def state(self) -> CallState:
        """Where it is in its life."""
        if self._outcome is None:
            return "running" if self.started_at is not None else "waiting"
        return "cancelled" if _is_cancelled(self._outcome) else "done"

    @property
    def child(self) -> str:
        """Name of the child that runs it, or ran it; empty before."""
        return self._child or (self.job.child if self.job else "")

    @property
    def started_at(self) -> float | None:
        """Monotonic seconds of when a child had it in hand; None before."""
        return self.job.handed_at if self.job else None

    def cancel(self) -> None:
        """Give it up: if it has not begun it never will; else it is stopped, and after a grace its child is killed."""
        if self.job is not None and self._outcome is None:
            self._cancel(self.job)

    async def wait(self) -> None:
        """Wait until it has ended, however."""
        while self._outcome is None:
            await self._sleeper()

    def _sleeper(self) -> "asyncio.Future[None]":
        if self._bell is None:
            self._bell = Bell()
        return self._bell.sleeper()

    def __await__(self) -> Generator[Any, None, R]:
        while self._outcome is None:
            yield from self._sleeper()
        return cast("R", read(self.name, self._outcome, self._value))
