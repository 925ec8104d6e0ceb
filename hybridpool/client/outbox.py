"""Where an app's calls leave: over this loop's connection, over the background one, or through a child's parent.

Imports asyncio and the broker's side only when something is sent, so that defining tasks stays light.
"""

import datetime as dt
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from hybridpool.child.context import Running, current_task
from hybridpool.client.calls import CALL_OPTIONS, CallOptions, Task
from hybridpool.config import Conf, Settings, celery_names, environment_layer, resolve
from hybridpool.config.nearest import hint
from hybridpool.protocol.request import Request, to_message
from hybridpool.task import TaskOptions

if TYPE_CHECKING:
    import asyncio

    from hybridpool.brokers.base import Broker
    from hybridpool.client.handle import Handle, SyncHandle
    from hybridpool.client.loose import Loose
    from hybridpool.client.portal import Portal
    from hybridpool.client.sender import Sender
    from hybridpool.events import Listener
    from hybridpool.message import Outgoing

#: opens a broker connection, given who hears of its state
Opener: TypeAlias = "Callable[[Listener], Broker]"
#: another way out than broker_url, and the settings that hold on it
Road: TypeAlias = tuple[Opener, Settings]
_NO_OPTIONS = CallOptions()


class Outbox:
    """Sends the calls of one app."""

    def __init__(self, app: str, conf: Conf, tasks: Mapping[str, Task[..., Any]]) -> None:
        self._app = app
        self._conf = conf
        self._tasks = tasks
        #: what connections are opened with, and the settings that hold there; None: broker_url, conf and environment
        self.road: Road | None = None
        self._senders: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Sender] = weakref.WeakKeyDictionary()
        self._portal: Portal | None = None
        self._portal_lock = threading.Lock()
        #: the line of calls that nobody waits for, and the portal that it belongs to
        self._loose: tuple[Portal, Loose] | None = None
        #: the state of conf they follow from, and the settings
        self._settings: tuple[int, Settings] | None = None

    async def send(
        self, name: str, args: Sequence[object], kwargs: Mapping[str, object] | None, options: dict[str, Any]
    ) -> "Handle[Any]":
        """Send over this loop's connection; see `App.send`."""
        request, running = self._request(name, args, kwargs, options), current_task()
        if running is not None:
            return _through_parent(request, running)
        return await self._sender().send(request)

    async def send_many(
        self, name: str, calls: Iterable[Sequence[object]], options: dict[str, Any]
    ) -> "list[Handle[Any]]":
        """Send calls over this loop's connection; see `App.send_many`."""
        requests, running = [self._request(name, args, None, options) for args in calls], current_task()
        if running is not None:
            return [_through_parent(request, running) for request in requests]
        return await self._sender().send_many(requests)

    def send_from_sync(
        self, name: str, args: Sequence[object], kwargs: Mapping[str, object] | None, options: dict[str, Any]
    ) -> "SyncHandle[Any]":
        """Send over the background connection; see `App.send_task`."""
        from hybridpool.client.handle import Handle, SyncHandle

        request, running = self._request(name, args, kwargs, options), current_task()
        if running is not None:
            return SyncHandle(_through_parent(request, running), None)

        if not request.is_confirmed:
            self._in_the_background(request)
            why = "it was sent without confirmation, and its result is not kept"
            return SyncHandle(Handle(name, request.id, None, why), self._background)

        async def on_portal() -> "Handle[Any]":
            return await self._sender().send(request)

        return SyncHandle(self._background().call(on_portal), self._background)

    async def close_here(self) -> None:
        """Close this loop's connection."""
        import asyncio

        sender = self._senders.pop(asyncio.get_running_loop(), None)
        if sender is not None:
            await sender.close()

    def close_background(self) -> None:
        """Close the background connection and its loop."""
        portal, self._portal = self._portal, None
        if portal is not None:
            portal.close()

    def settings(self) -> Settings:
        """Give the settings that hold for sending: the environment over `conf`.

        :raises ConfigError: if the environment holds a wrong value.
        """
        if self.road is not None:
            return self.road[1]
        revision = self._conf.revision()
        if self._settings is None or self._settings[0] != revision:
            layers = [environment_layer(os.environ), *self._conf.layers()]
            # Who sends needs no count of CPUs, and counting reads files.
            self._settings = revision, resolve(layers, cpus=lambda: 1).settings
        return self._settings[1]

    def _in_the_background(self, request: Request) -> None:
        """Send a call that nobody waits for."""
        from hybridpool.client.loose import Loose

        portal = self._background()
        if self._loose is None or self._loose[0] is not portal:

            async def post(messages: "Sequence[Outgoing]") -> None:
                await self._sender().post(messages)

            loose = Loose(portal, post, self.settings().broker_connection_timeout)
            portal.at_close(loose.finish, first=True)
            self._loose = portal, loose
        self._loose[1].put(to_message(request, dt.datetime.now(dt.UTC)))

    def _sender(self) -> "Sender":
        import asyncio

        from hybridpool.client.sender import Sender

        loop = asyncio.get_running_loop()
        sender = self._senders.get(loop)
        if sender is None:
            sender = self._senders[loop] = Sender(self.settings(), self.road[0] if self.road else self._open_broker)
        return sender

    def _background(self) -> "Portal":
        from hybridpool.client.portal import Portal

        with self._portal_lock:
            # A fork does not carry threads over, so what another process made is of no use here.
            if self._portal is None or self._portal.pid != os.getpid():
                self._portal = Portal()
                self._portal.at_close(self.close_here)
            return self._portal

    def _open_broker(self, announce: "Listener") -> "Broker":
        from hybridpool.brokers.open import open_broker

        settings = self.settings()
        return open_broker(
            settings.broker_url,
            announce,
            heartbeat=settings.broker_heartbeat,
            connect_timeout=settings.broker_connection_timeout,
            name=f"{self._app} (sender)",
        )

    def _request(
        self, name: str, args: Sequence[object], kwargs: Mapping[str, object] | None, plain: dict[str, Any]
    ) -> Request:
        options, settings = _options(plain), self.settings()
        known, running = self._tasks.get(name), current_task()
        declared = known.declared if known else TaskOptions(name=name)
        wishes = (options.ignore_result, declared.ignore_result, settings.task_ignore_result)
        ignores = next(wish for wish in wishes if wish is not None)
        confirm = settings.broker_confirm_publish if options.confirm is None else options.confirm
        return Request(
            task=name,
            id=options.task_id or str(uuid.uuid4()),
            # Inside a task the parent knows the default: it may have been told another on its command line.
            queue=options.queue or declared.queue or ("" if running else settings.task_default_queue),
            args=args,
            kwargs=kwargs or {},
            expires=options.expires,
            eta=_eta(options),
            priority=options.priority,
            headers=options.headers,
            time_limit=options.time_limit,
            soft_time_limit=options.soft_time_limit,
            ignore_result=ignores,
            # one whose result is kept waits for the broker anyway; inside a task the parent confirms
            is_confirmed=running is not None or confirm or (not ignores and settings.result_backend is not None),
            root_id=(running.root_id or running.id) if running else None,
            parent_id=running.id if running else None,
        )


def _options(plain: dict[str, Any]) -> CallOptions:
    """:raises TypeError: if there is no such option."""
    if not plain:
        return _NO_OPTIONS
    for option in plain:
        if option not in CALL_OPTIONS:
            meant = hint(option, CALL_OPTIONS, celery_names.CALL_OPTIONS, quoted=True)
            raise TypeError(f"{option!r} is no option of a call{meant}")
    return CallOptions(**plain)


def _eta(options: CallOptions) -> dt.datetime | None:
    """Return the moment before which a call must not start.

    :raises TypeError: if both a countdown and a moment are given.
    """
    if options.countdown is not None and options.eta is not None:
        raise TypeError("a call has a countdown or an eta, not both")
    if options.eta is not None:
        return options.eta if options.eta.tzinfo else options.eta.replace(tzinfo=dt.UTC)
    return None if not options.countdown else dt.datetime.now(dt.UTC) + dt.timedelta(seconds=options.countdown)


def _through_parent(request: Request, running: Running) -> "Handle[Any]":
    """Inside a task: the parent publishes; nobody here can wait for the result."""
    from hybridpool.client.handle import Handle
    from hybridpool.message import pack

    running.enqueue(pack(to_message(request, dt.datetime.now(dt.UTC))))
    return Handle(request.task, request.id, None, "it was sent from inside a task")
