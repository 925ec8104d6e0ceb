"""Lifespans: what a child opens once, before its first call, and closes after its last.

A sync child uses `enter_all`, a child with an event loop `entered`; both enter in the order of declaration and leave in
the reverse order. What fails while it is left is logged by its name, and the others are still left.

A value belongs to the process that made it. A process that a task has forked has a copy of the generator: if it ran the
rest of it, it would close a connection that the child still uses. So each of them checks the process id first.
"""

import logging
import os
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, TypeVar

from hybridpool._task_context import current_task

log = logging.getLogger("hybridpool.worker")

T = TypeVar("T")
#: in place of the value of a generator that yields none
_NOTHING: Final = object()


class LifespanFailed(Exception):
    """A lifespan could not be entered; the cause is what its code raised."""

    def __init__(self, name: str) -> None:
        super().__init__(f"lifespan {name} failed")
        self.name = name


class LifespanState(Generic[T]):
    """A lifespan as the child has it: how it is entered, and, once it is, what it has yielded."""

    #: what it has yielded; unset while it is not entered
    value: T

    def __init__(self, name: str, function: Callable[[], Iterator[T] | AsyncIterator[T]], lanes: Sequence[str]) -> None:
        #: module and qualified name of the generator function
        self.name = name
        self.function = function
        #: lanes in whose children it is entered
        self.lanes = tuple(lanes)
        #: pid of the process in which it is entered; 0: it is not
        self.owner = 0
        #: the generator, which closes the value when it goes on
        self.generator: Any = None
        self.was_left = False

    def begin(self, generator: object, value: Any) -> None:
        """Store what a generator has yielded.

        :raises RuntimeError: if it has yielded nothing.
        """
        if value is _NOTHING:
            raise RuntimeError(f"lifespan {self.name} did not yield: it should yield its value once, and then close it")
        self.generator, self.value, self.owner = generator, value, os.getpid()

    def end(self) -> None:
        """Forget the value."""
        self.generator, self.owner, self.was_left = None, 0, True
        del self.value

    def yielded_twice(self) -> RuntimeError:
        """Return the error of a generator that does not end."""
        return RuntimeError(f"lifespan {self.name} yielded twice: it should yield its value once, and then close it")

    def is_own(self) -> bool:
        """Tell whether this is the process that has entered it, and not one that a task has forked."""
        return self.owner == os.getpid()

    def describe_absence(self) -> str:
        """Say why there is no value in this process, and what to do."""
        lanes = f"{' and '.join(self.lanes)} children"
        if self.owner:
            why = f"belongs to process {self.owner}, from which this one was forked: open another one here"
        elif self.was_left:
            why = "is closed: this child has left it, after its last task"
        elif running := current_task():
            why = (
                f"has no value in {running.child}: it is entered in {lanes} of a worker; "
                f"run this task there (lane=…), or declare the lifespan for this lane too (lanes=…)"
            )
        else:
            why = (
                f"has no value here: it is entered in {lanes} of a worker, before their first task; "
                f"read .value inside a task, or in a test in a block of .replaced(…)"
            )
        return f"lifespan {self.name} {why}"


class Lifespan(Generic[T]):
    """What `App.lifespan` makes of a generator function: in each child, the access to what it has yielded there."""

    __module__ = "hybridpool"

    def __init__(self, state: LifespanState[T]) -> None:
        #: module and qualified name of the generator function
        self.name = state.name
        #: the generator function
        self.function = state.function
        #: lanes in whose children it is entered
        self.lanes = state.lanes
        self._state = state

    @property
    def value(self) -> T:
        """What the function has yielded in this child.

        :raises RuntimeError: if there is no value in this process; the message says why, and what to do.
        """
        state = self._state
        if state.owner != os.getpid():
            raise RuntimeError(state.describe_absence())
        return state.value

    @contextmanager
    def replaced(self, value: T) -> Generator[None]:
        """Have another value while a block lasts, for tests that call a task's function without a worker.

        :param value: what `value` returns in the block.
        """
        before, instead = self._state, LifespanState(self.name, self.function, self.lanes)
        instead.begin(None, value)
        self._state = instead
        try:
            yield
        finally:
            self._state = before

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be pickled: import it where it is needed")

    def __repr__(self) -> str:
        return f"<Lifespan {self.name}>"


# ---- sync children -------------------------------------------------------------------------------------------


def enter_all(lifespans: Sequence[LifespanState[Any]]) -> Callable[[], None]:
    """Enter the lifespans of a child without an event loop.

    :returns: what leaves them; it raises nothing, and does nothing in a forked process.
    :raises LifespanFailed: if one fails; those before it are left.
    """
    held: list[LifespanState[Any]] = []
    try:
        for lifespan in lifespans:
            try:
                _enter(lifespan)
            except (Exception, SystemExit) as error:
                raise LifespanFailed(lifespan.name) from error
            held.append(lifespan)
    except BaseException:
        _leave_all(held)
        raise
    return partial(_leave_all, held)


def _enter(lifespan: LifespanState[Any]) -> None:
    generator: Any = lifespan.function()
    lifespan.begin(generator, next(generator, _NOTHING))


def _leave_all(held: list[LifespanState[Any]]) -> None:
    while held and held[-1].is_own():
        lifespan = held.pop()
        try:
            _leave(lifespan)
        except BaseException as error:
            _report(lifespan, error)


def _leave(lifespan: LifespanState[Any]) -> None:
    generator = lifespan.generator
    try:
        if next(generator, _NOTHING) is not _NOTHING:
            try:
                raise lifespan.yielded_twice()
            finally:
                generator.close()
    finally:
        lifespan.end()


# ---- children with an event loop -----------------------------------------------------------------------------


@asynccontextmanager
async def entered(lifespans: Sequence[LifespanState[Any]]) -> AsyncGenerator[None]:
    """Enter the lifespans of a child with an event loop, sync ones among them, while a block lasts.

    All of it runs in the task that has the block, as cancel scopes and task groups in a lifespan require.

    :raises LifespanFailed: if one fails; those before it are left.
    """
    held: list[LifespanState[Any]] = []
    try:
        for lifespan in lifespans:
            try:
                await _enter_here(lifespan)
            except (Exception, SystemExit) as error:
                raise LifespanFailed(lifespan.name) from error
            held.append(lifespan)
        yield
    finally:
        await _leave_all_here(held)


async def _enter_here(lifespan: LifespanState[Any]) -> None:
    generator = lifespan.function()
    if isinstance(generator, AsyncGenerator):
        lifespan.begin(generator, await anext(generator, _NOTHING))
    else:
        _enter(lifespan)


async def _leave_all_here(held: list[LifespanState[Any]]) -> None:
    """:raises BaseException: a cancellation or the like that came meanwhile, after all are left."""
    interrupted: BaseException | None = None
    while held and held[-1].is_own():
        lifespan = held.pop()
        try:
            await _leave_here(lifespan)
        except BaseException as error:
            _report(lifespan, error)
            if not isinstance(error, Exception | SystemExit):
                interrupted = error
    if interrupted is not None:
        raise interrupted


async def _leave_here(lifespan: LifespanState[Any]) -> None:
    generator = lifespan.generator
    if not isinstance(generator, AsyncGenerator):
        _leave(lifespan)
        return
    try:
        if await anext(generator, _NOTHING) is not _NOTHING:
            try:
                raise lifespan.yielded_twice()
            finally:
                await generator.aclose()
    finally:
        lifespan.end()


# ---- both ----------------------------------------------------------------------------------------------------


def describe_failed_start(error: BaseException) -> str:
    """Describe what ended a child's start: the name of a lifespan, and the app's traceback."""
    what, cause = "initializer", error
    if isinstance(error, LifespanFailed) and error.__cause__ is not None:
        what, cause = f"lifespan {error.name}", error.__cause__
    text = "".join(traceback.format_exception(type(cause), cause, _of_the_app(cause)))
    return f"its {what} failed:\n{text.rstrip()}"


def _report(lifespan: LifespanState[Any], error: BaseException) -> None:
    log.error(
        "lifespan %s failed while it was left: the others are left all the same",
        lifespan.name,
        exc_info=(type(error), error, _of_the_app(error)),
    )


def _of_the_app(error: BaseException) -> TracebackType | None:
    """Return the part of a traceback that begins with the app's own code."""
    frames = error.__traceback__
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__")).startswith("hybridpool._child."):
        frames = frames.tb_next
    return frames
