"""App: the tasks of a program, its settings, and the way to send calls to its workers.

Importing this loads neither asyncio nor a broker's library; what sends is imported by the first call that does.
"""

import inspect
import os
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

import msgspec

from hybridpool.child.context import Running, current_task
from hybridpool.client.calls import CALL_OPTIONS, CallOptions, Task
from hybridpool.config import Conf, Settings, environment_layer, nearest, resolve
from hybridpool.errors import ConfigError
from hybridpool.protocol.request import Request
from hybridpool.task import TaskOptions, tasks_to_plain

if TYPE_CHECKING:
    import asyncio

    from hybridpool.brokers.base import Broker
    from hybridpool.client.handle import Handle, SyncHandle
    from hybridpool.client.portal import Portal
    from hybridpool.client.sender import Sender
    from hybridpool.events import Listener

P = ParamSpec("P")
R = TypeVar("R")
Hook = TypeVar("Hook", bound=Callable[[], object])


class App:
    """The tasks of a program and their settings.

    :param name: shown in the banner, and the module name of tasks defined in a script.
    :param broker: short for the setting broker_url.
    :param settings: as `conf` takes them; see docs/reference/settings.md.
    :raises ConfigError: if a setting is unknown or has a wrong value.
    """

    def __init__(self, name: str, *, broker: str | None = None, **settings: object) -> None:
        self.name = name
        self.conf = Conf(settings if broker is None else {"broker_url": broker, **settings})
        #: tasks by name
        self.tasks: dict[str, Task[..., Any]] = {}
        #: opens a broker connection for a sender; replace it to send over something else
        self.open_broker: Callable[[Listener], Broker] = self._open_broker
        self._hooks: dict[str, list[Callable[[], object]]] = {}
        self._senders: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Sender] = weakref.WeakKeyDictionary()
        self._portal: Portal | None = None
        #: what conf gave, and what follows from it and the environment
        self._settings: tuple[Settings, Settings] | None = None

    # ---- declaring ---------------------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        queue: str | None = None,
        acks_late: bool | None = None,
        ignore_result: bool | None = None,
        max_deliveries: int | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(  # type: ignore[misc]  # mypy does not match ParamSpec across overloads
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        acks_late: bool | None = None,
        ignore_result: bool | None = None,
        max_deliveries: int | None = None,
    ) -> Task[..., Any] | Callable[[Callable[..., Any]], Task[..., Any]]:
        """Register a function as a task; it stays callable.

        :param name: default: module and qualified name.
        :raises ConfigError: if it is a coroutine function, or the name is taken by another function.
        """

        def register(wrapped: Callable[..., Any]) -> Task[..., Any]:
            task_name = name or self._name_of(wrapped)
            if inspect.iscoroutinefunction(wrapped):
                raise ConfigError(f"task {task_name}: a task runs in a sync child; it cannot be async def")
            known = self.tasks.get(task_name)
            if known is not None and known.function.__code__ is not getattr(wrapped, "__code__", None):
                raise ConfigError(f"there are two tasks named {task_name!r}; give one of them name=")
            options = TaskOptions(
                name=task_name,
                queue=queue,
                acks_late=acks_late,
                ignore_result=ignore_result,
                max_deliveries=max_deliveries,
            )
            made = Task(self, wrapped, options)
            self.tasks[task_name] = made
            return made

        return register if function is None else register(function)

    def worker_init(self, hook: Hook) -> Hook:
        """Call this once, in the process that imports the app, before any child is forked."""
        return self._hook("worker_init", hook)

    def worker_process_init(self, hook: Hook) -> Hook:
        """Call this in each child, before its first task."""
        return self._hook("worker_process_init", hook)

    def worker_process_shutdown(self, hook: Hook) -> Hook:
        """Call this in each child that leaves in order, after its last task."""
        return self._hook("worker_process_shutdown", hook)

    def _hook(self, moment: str, hook: Hook) -> Hook:
        self._hooks.setdefault(moment, []).append(hook)
        return hook

    def _name_of(self, function: Callable[..., object]) -> str:
        module = self.name if function.__module__ == "__main__" else function.__module__
        return f"{module}.{function.__qualname__}"

    # ---- sending -----------------------------------------------------------------------------------------

    async def send(
        self, name: str, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None, **options: Any
    ) -> "Handle[Any]":
        """Send a call by name, and wait until the broker has confirmed it. The task need not be known here.

        :param options: as `Task.options` takes them.
        :raises BrokerUnavailable: if there is no broker within broker_connection_timeout.
        :raises TypeError: if an argument has no JSON form, or there is no such option.
        """
        request = self._request(name, args, kwargs, options)
        running = current_task()
        if running is not None:
            return _through_parent(request, running)
        return await self._sender().send(request)

    def send_task(
        self, name: str, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None, **options: Any
    ) -> "SyncHandle[Any]":
        """Send a call by name from sync code; as `send` in all else."""
        from hybridpool.client.handle import SyncHandle

        request = self._request(name, args, kwargs, options)
        running = current_task()
        if running is not None:
            return SyncHandle(_through_parent(request, running), None)

        async def on_portal() -> "Handle[Any]":
            return await self._sender().send(request)

        return SyncHandle(self._background().call(on_portal), self._background)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection that this event loop sends over; the next call opens another."""
        import asyncio

        sender = self._senders.pop(asyncio.get_running_loop(), None)
        if sender is not None:
            await sender.close()

    def close(self) -> None:
        """Close the background connection of the sync calls; the next one opens another."""
        portal, self._portal = self._portal, None
        if portal is not None:
            portal.close()

    def settings(self) -> Settings:
        """Give the settings that hold for sending: the environment over `conf`.

        :raises ConfigError: if the environment holds a wrong value.
        """
        own = self.conf.settings()
        if self._settings is None or self._settings[0] is not own:
            self._settings = own, resolve([environment_layer(os.environ), *self.conf.layers()]).settings
        return self._settings[1]

    def _sender(self) -> "Sender":
        import asyncio

        from hybridpool.client.sender import Sender

        loop = asyncio.get_running_loop()
        sender = self._senders.get(loop)
        if sender is None:
            sender = self._senders[loop] = Sender(self.settings(), self.open_broker)
        return sender

    def _background(self) -> "Portal":
        from hybridpool.client.portal import Portal

        # A fork does not carry threads over, so what another process made is of no use here.
        if self._portal is None or self._portal.pid != os.getpid():
            self._portal = Portal()
            self._portal.at_close(self.aclose)
        return self._portal

    def _open_broker(self, announce: "Listener") -> "Broker":
        from hybridpool.brokers.open import open_broker

        settings = self.settings()
        return open_broker(
            settings.broker_url,
            announce,
            heartbeat=settings.broker_heartbeat,
            connect_timeout=settings.broker_connection_timeout,
            name=f"{self.name} (sender)",
        )

    def _request(
        self, name: str, args: Sequence[object], kwargs: Mapping[str, object] | None, plain: dict[str, Any]
    ) -> Request:
        for option in plain:
            if option not in CALL_OPTIONS:
                near = nearest(option, CALL_OPTIONS)
                raise TypeError(f"{option!r} is no option of a call" + (f"; did you mean {near!r}?" if near else ""))
        options, settings = CallOptions(**plain), self.settings()
        known, running = self.tasks.get(name), current_task()
        declared = known.declared if known else TaskOptions(name=name)
        ignore = next(
            value
            for value in (options.ignore_result, declared.ignore_result, settings.task_ignore_result)
            if value is not None
        )
        return Request(
            task=name,
            id=options.task_id or str(uuid.uuid4()),
            queue=options.queue or declared.queue or settings.task_default_queue,
            args=args,
            kwargs=kwargs or {},
            expires=options.expires,
            priority=options.priority,
            headers=options.headers,
            ignore_result=ignore,
            root_id=running.root_id if running else None,
            parent_id=running.id if running else None,
        )

    # ---- what the zygote and the children ask (child.load.Program) ---------------------------------------

    def child_tasks(self) -> Mapping[str, Callable[..., Any]]:
        """The functions by task name."""
        return {name: task.function for name, task in self.tasks.items()}

    def child_hooks(self, moment: str) -> Sequence[Callable[[], object]]:
        """The hooks of one moment, in the order of their registration."""
        return self._hooks.get(moment, ())

    def further_imports(self) -> Sequence[str]:
        """The setting `imports`."""
        return self.conf.settings().imports

    def manifest(self) -> bytes:
        """Settings and tasks, as JSON, for the parent."""
        tasks = tasks_to_plain({name: task.declared for name, task in self.tasks.items()})
        return msgspec.json.encode({"app": self.name, "settings": self.conf.export(), "tasks": tasks})

    def __repr__(self) -> str:
        return f"<App {self.name}>"


def _through_parent(request: Request, running: Running) -> "Handle[Any]":
    """Inside a task: the parent publishes; nobody here can wait for the result."""
    import datetime as dt

    from hybridpool.client.handle import Handle
    from hybridpool.message import pack
    from hybridpool.protocol.request import to_message

    running.enqueue(pack(to_message(request, dt.datetime.now(dt.UTC))))
    return Handle(request.task, request.id, None, "it was sent from inside a task")
