"""`Task` and `AsyncTask`: what @app.task makes. They still are the function, and can be called remotely, with types."""

import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

import attrs

from hybridpool._child.failure_rules import DEFAULT_RULES, Rules
from hybridpool._client.call_checks import Signature
from hybridpool._client.call_options import CallOptions, CallOptionsDict
from hybridpool._task import TaskOptions
from hybridpool._task_context import RunningTask

if TYPE_CHECKING:
    from hybridpool._client.result_handle import Handle, SyncHandle

P = ParamSpec("P")
R = TypeVar("R")


_NO_OPTIONS = CallOptions()


class Sender(Protocol):
    """The part of an app that sends calls of its tasks."""

    async def send(
        self, name: str, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None, **options: Any
    ) -> "Handle[Any]": ...

    async def send_many(self, name: str, calls: Iterable[Sequence[object]], **options: Any) -> "list[Handle[Any]]": ...

    def send_task(
        self, name: str, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None, **options: Any
    ) -> "SyncHandle[Any]": ...


class BaseTask(Generic[P, R]):
    """A registered task of either kind, `Task` or `AsyncTask`: they differ in what a call in this process gives.

    Calling it calls the function in this process; `enqueue` and `delay` send a call to a worker.
    """

    __module__ = "hybridpool"

    def __init__(
        self, app: Sender, function: Callable[P, Any], options: TaskOptions, rules: Rules = DEFAULT_RULES
    ) -> None:
        functools.update_wrapper(self, function)
        self._app = app
        #: the function itself
        self.function = function
        #: name, queue and the other options it was declared with
        self.declared = options
        #: those of the options that its children need
        self._rules = rules

    @property
    def name(self) -> str:
        """The name it is registered under."""
        return self.declared.name

    @functools.cached_property
    def _signature(self) -> Signature:
        return Signature(self.function, bind=self._rules.bind)

    def __reduce__(self) -> str:
        """Pickle it by its name, as functions are; unpickling imports its module.

        :raises PicklingError: by pickle, if that name leads to something else.
        """
        return str(getattr(self, "__qualname__", self.name))

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self.function(*args, **kwargs)

    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> "Handle[R]":
        """Send a call, and wait until the broker has confirmed it.

        :raises BrokerUnavailable: if there is no broker within broker_connection_timeout.
        :raises CannotSend: if an argument has no JSON form, or the arguments do not fit the function.
        """
        return await TaskCall(self._app, self, _NO_OPTIONS).enqueue(*args, **kwargs)

    async def enqueue_many(self, calls: Iterable[Sequence[object]]) -> "list[Handle[R]]":
        """Send a call for each tuple of arguments, and wait until the broker has confirmed them all.

        Much faster than one after the other: no call waits for the confirmation of the one before.

        :raises BrokerUnavailable: if there is no broker within broker_connection_timeout; a note says how many calls
            were confirmed.
        :raises CannotSend: if an argument has no JSON form, or does not fit the function; nothing is sent then.
        """
        return await TaskCall(self._app, self, _NO_OPTIONS).enqueue_many(calls)

    def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> "SyncHandle[R]":
        """Send a call from sync code; as `enqueue` in all else."""
        return TaskCall(self._app, self, _NO_OPTIONS).delay(*args, **kwargs)

    def apply_async(
        self, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None, **options: Any
    ) -> "SyncHandle[R]":
        """Send a call from sync code with options, in Celery's form.

        :raises CannotSend: if there is no such option, or a value is not allowed.
        """
        return self._app.send_task(self.name, args, kwargs, **options)

    def options(self, **options: Unpack[CallOptionsDict]) -> "TaskCall[P, R]":
        """Give this task with options for the next calls: ``await add.options(queue="slow").enqueue(2, 3)``.

        :raises CannotSend: if there is no such option, or a value is not allowed.
        """
        from hybridpool._client.call_checks import read_call_options

        return TaskCall(self._app, self, read_call_options(options))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Task(BaseTask[P, R]):
    """A registered task, made by ``@app.task`` of a function. Calling it calls the function in this process."""

    __module__ = "hybridpool"

    #: the function itself
    function: Callable[P, R]

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)


class AsyncTask(BaseTask[P, R]):
    """A registered task, made by ``@app.task`` of an ``async def`` function. Awaiting a call runs it in this process.

    Its `R` is what the coroutine returns.
    """

    __module__ = "hybridpool"

    #: the coroutine function itself
    function: Callable[P, Coroutine[Any, Any, R]]

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.function(*args, **kwargs)


class TaskDecorator(Protocol):
    """What ``@app.task(...)`` gives: it makes a task of a function."""

    # a coroutine is a result too, so the second overload takes all that the first one takes
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class BoundTaskDecorator(Protocol):
    """What ``@app.task(bind=True)`` gives: it makes a task of a function that takes the running task first."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # as above
        self, function: Callable[Concatenate[RunningTask, P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[RunningTask, P], R], /) -> Task[P, R]: ...


def rules_of(task: BaseTask[..., Any]) -> Rules:
    """Return those options of a task that its children need."""
    return task._rules  # pyright: ignore[reportPrivateUsage]


def signature_of(task: BaseTask[..., Any]) -> Signature:
    """Return which arguments a task takes."""
    return task._signature  # pyright: ignore[reportPrivateUsage]


class TaskCall(Generic[P, R]):
    """A task with the options of its next calls, made by `Task.options`."""

    __module__ = "hybridpool"

    def __init__(self, app: Sender, task: BaseTask[P, R], options: CallOptions) -> None:
        self._app = app
        self._task = task
        self._options = options

    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> "Handle[R]":
        """As `Task.enqueue`, with these options."""
        return cast("Handle[R]", await self._app.send(self._task.name, args, kwargs, **self._as_keywords()))

    async def enqueue_many(self, calls: Iterable[Sequence[object]]) -> "list[Handle[R]]":
        """As `Task.enqueue_many`, with these options."""
        return cast("list[Handle[R]]", await self._app.send_many(self._task.name, calls, **self._as_keywords()))

    def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> "SyncHandle[R]":
        """As `Task.delay`, with these options."""
        return cast("SyncHandle[R]", self._app.send_task(self._task.name, args, kwargs, **self._as_keywords()))

    def _as_keywords(self) -> dict[str, Any]:
        if self._options is _NO_OPTIONS:
            return {}
        return attrs.asdict(self._options, recurse=False, filter=lambda _, value: value not in (None, {}))
