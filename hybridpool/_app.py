"""App: the tasks of a program, its settings, and the way to send calls to its workers.

Importing this loads neither asyncio nor a broker's library; what sends is imported by the first call that does.
"""

import inspect
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, ParamSpec, Self, TypeVar, Unpack, overload

import attrs

from hybridpool._child.lifespans import Lifespan, LifespanState
from hybridpool._client.app_manifest import AppManifest
from hybridpool._client.function_identity import Origin, is_same, origin_of
from hybridpool._client.lifespan_declaration import declare_lifespan
from hybridpool._client.publisher import CallPublisher, TransportOverride
from hybridpool._client.task_arguments import TaskOptionsDict, read_arguments
from hybridpool._client.task_functions import check_lane, is_async
from hybridpool._client.tasks import AsyncTask, BaseTask, BoundTaskDecorator, Task, TaskDecorator
from hybridpool._config import Conf
from hybridpool._task import LaneName
from hybridpool.errors import ConfigError

if TYPE_CHECKING:
    from hybridpool._client.result_handle import Handle, SyncHandle

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Hook = TypeVar("Hook", bound=Callable[[], object])


class App:
    """The tasks of a program, their settings, and the way to send calls to its workers.

    :param name: shown in the banner, and the module name of tasks defined in a script.
    :param broker: URL of the broker, short for the setting ``broker_url``.
    :param settings: any other setting, as `conf` takes it; see docs/reference/settings.md.
    :raises ConfigError: if a setting is unknown or has a wrong value.
    """

    __module__ = "hybridpool"

    def __init__(self, name: str, *, broker: str | None = None, **settings: object) -> None:
        #: the name that it was given
        self.name = name
        #: settings as attributes: ``app.conf.worker_concurrency = 4``, ``app.conf.update({...})``
        self.conf = Conf(settings if broker is None else {"broker_url": broker, **settings})
        #: registered tasks by name
        self.tasks: dict[str, BaseTask[..., Any]] = {}
        #: where each of them was declared
        self._origins: dict[str, Origin] = {}
        self._hooks: defaultdict[str, list[Callable[[], object]]] = defaultdict(list)
        self._lifespans: list[LifespanState[Any]] = []
        self._outbox = CallPublisher(name, self.conf, self.tasks)

    # ---- declaring ---------------------------------------------------------------------------------------

    # a coroutine is a result too, so the second overload takes all that the first one takes
    @overload
    def task(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, *, bind: Literal[True], **options: Unpack[TaskOptionsDict]) -> BoundTaskDecorator: ...
    @overload
    def task(self, *, bind: Literal[False] = False, **options: Unpack[TaskOptionsDict]) -> TaskDecorator: ...
    def task(  # type: ignore[misc]  # mypy does not match ParamSpec across overloads
        self, function: Callable[..., Any] | None = None, /, *, bind: bool = False, **options: Unpack[TaskOptionsDict]
    ) -> BaseTask[..., Any] | Callable[[Callable[..., Any]], BaseTask[..., Any]]:
        """Register a function as a task, `def` or `async def`; it stays callable.

        A module that is reloaded and a cell that is run again declare the same tasks, which replace the earlier ones.

        :param bind: pass the running task (`current_task()`) as the first argument.
        :param options: see `TaskOptionsDict`.
        :raises ConfigError: if the function is a generator function or cannot run in the lane that is asked for, an
            option is wrong, or another function has the name.
        """
        declared, rules = read_arguments(options, bind=bind)

        def register(wrapped: Callable[..., Any]) -> BaseTask[..., Any]:
            if not callable(wrapped):
                raise ConfigError(f"a task is made of a function, not of {wrapped!r}")
            task_name = declared.name or _name_of(wrapped, self.name)
            lane = check_lane(task_name, wrapped, declared.lane)
            origin = origin_of(_plain(wrapped), _caller())
            known = self.tasks.get(task_name)
            if known is not None and not is_same(_plain(known), self._origins[task_name], _plain(wrapped), origin):
                raise ConfigError(_two_of_one_name(task_name, self._origins[task_name], origin, wrapped))
            kind: type[BaseTask[..., Any]] = AsyncTask if is_async(wrapped) else Task
            made = kind(self, wrapped, attrs.evolve(declared, name=task_name, lane=lane), rules)
            self.tasks[task_name], self._origins[task_name] = made, origin
            return made

        return register if function is None else register(function)

    def worker_init(self, hook: Hook) -> Hook:
        """Register a function to be called once, in the process that imports the app, before a child is forked."""
        self._hooks["worker_init"].append(hook)
        return hook

    def worker_process_init(self, hook: Hook) -> Hook:
        """Register a function to be called in each child, before its first task."""
        self._hooks["worker_process_init"].append(hook)
        return hook

    def worker_process_shutdown(self, hook: Hook) -> Hook:
        """Register a function to be called in each child that exits normally, after its last task."""
        self._hooks["worker_process_shutdown"].append(hook)
        return hook

    @overload
    def lifespan(self, function: Callable[[], Iterator[T]], /) -> Lifespan[T]: ...
    @overload
    def lifespan(self, function: Callable[[], AsyncIterator[T]], /) -> Lifespan[T]: ...
    @overload
    def lifespan(
        self, /, *, lanes: Sequence[LaneName] | None = None
    ) -> Callable[[Callable[[], Iterator[T] | AsyncIterator[T]]], Lifespan[T]]: ...
    def lifespan(
        self,
        function: Callable[[], Iterator[Any] | AsyncIterator[Any]] | None = None,
        /,
        *,
        lanes: Sequence[LaneName] | None = None,
    ) -> Lifespan[Any] | Callable[[Callable[[], Iterator[Any] | AsyncIterator[Any]]], Lifespan[Any]]:
        """Register a generator function that opens what all tasks of a child share, yields it, and closes it.

        It is entered in each child before its first task, after the hooks and the lifespans declared before it, and
        left after the last task, in the reverse order. Tasks read `Lifespan.value`.

        :param lanes: lanes in whose children it is entered; default: "async" for an async generator function,
            "process" and "thread" for any other.
        :raises ConfigError: if it is not a generator function without arguments, or a lane is wrong.
        """

        def register(wrapped: Callable[[], Iterator[Any] | AsyncIterator[Any]]) -> Lifespan[Any]:
            named: Callable[..., Any] = wrapped
            while isinstance(named, partial):
                named = named.func
            declared = declare_lifespan(_name_of(named, self.name), wrapped, lanes)
            self._lifespans.append(declared)
            return Lifespan(declared)

        return register if function is None else register(function)

    # ---- sending -----------------------------------------------------------------------------------------

    async def send(
        self, name: str, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None, **options: Any
    ) -> "Handle[Any]":
        """Send a call by name, and wait until the broker has confirmed it. This app need not know the task.

        :param name: name of the task.
        :param args: positional arguments.
        :param kwargs: keyword arguments.
        :param options: see `CallOptionsDict`.
        :raises BrokerUnavailable: if there is no connection to a broker within ``broker_connection_timeout``.
        :raises CannotSend: if an argument has no JSON form or does not fit a task that this app knows, or an option
            is unknown or has a wrong value.
        """
        return await self._outbox.send(name, args, kwargs, options)

    async def send_many(self, name: str, calls: Iterable[Sequence[object]], **options: Any) -> "list[Handle[Any]]":
        """Send many calls by name, and wait until the broker has confirmed them all; see `Task.enqueue_many`.

        :param calls: the positional arguments of each call.
        """
        return await self._outbox.send_many(name, calls, options)

    def send_task(
        self, name: str, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None, **options: Any
    ) -> "SyncHandle[Any]":
        """Send a call by name from sync code; otherwise as `send`."""
        return self._outbox.send_from_sync(name, args, kwargs, options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections that this event loop sends over; the next call opens others."""
        await self._outbox.close_here()

    def close(self) -> None:
        """Close the background connections of the sync calls; the next one opens others."""
        self._outbox.close_background()

    def __hybridpool_program__(self) -> AppManifest:
        """Return what the zygote and the children need of this app; by this method they also tell that it is one."""
        return AppManifest(self.name, self.conf, self.tasks, self._hooks, self._lifespans)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be pickled: import it where it is needed")

    def __repr__(self) -> str:
        return f"<App {self.name}>"


def override_transport(app: App, transport: TransportOverride | None) -> TransportOverride | None:
    """Have an app send over another broker from now on, under the settings that hold there.

    :param transport: None: as conf and environment say.
    :returns: what held before.
    """
    outbox = app._outbox  # pyright: ignore[reportPrivateUsage]
    before, outbox.transport_override = outbox.transport_override, transport
    return before


def transport_overridden(app: App, transport: TransportOverride) -> AbstractContextManager[None]:
    """Have an app send over another broker while a block lasts, under the settings that hold there."""
    return app._outbox.override_transport(transport)  # pyright: ignore[reportPrivateUsage]


def _name_of(function: Callable[..., object], script: str) -> str:
    """Return a task's default name; what a script defines has the app's name for its module.

    :raises ConfigError: if the callable has no name, as a partial has none.
    """
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise ConfigError(f"{function!r} has no name of its own; give the task name=")
    # In a process that was spawned by multiprocessing, the script has the second name.
    return f"{script if module in ('__main__', '__mp_main__') else module}.{qualname}"


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of a task that is declared once more."""
    while isinstance(function, BaseTask):
        function = function.function
    return function


def _caller() -> FrameType | None:
    """Return the frame of the code that declares a task."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals is globals():
        frame = frame.f_back
    return frame


def _two_of_one_name(name: str, first: Origin, second: Origin, function: Callable[..., Any]) -> str:
    places = f"{first.location} and at {second.location}"
    said = f"there are two tasks named {name!r}, declared at {places}; give one of them name="
    if "<locals>" in name and not hasattr(function, "__wrapped__"):
        said += " (or, if a decorator returns this function, put functools.wraps into the decorator)"
    return said
