"""Sends an app's calls: over this loop's connection, over the background connection, or, in a child, by its parent.

Imports asyncio and the broker's side only when something is sent, so that defining tasks stays light.
"""

# Not used here: its first import raises an error while the interpreter exits, and calls that are sent then need it.
import concurrent.futures.thread  # noqa: F401  # pyright: ignore[reportUnusedImport]
import datetime as dt
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from hybridpool._client.call_checks import check_arguments, check_target, read_call_options
from hybridpool._client.call_options import CallOptions
from hybridpool._client.tasks import BaseTask, signature_of
from hybridpool._config import Conf, Settings, environment_layer, resolve
from hybridpool._protocol.task_message import Request, to_message
from hybridpool._task import TaskOptions
from hybridpool._task_context import RunningTask, current_sender, post_to_parent, send_to_parent
from hybridpool.errors import BrokerError, CannotSend, HybridpoolError

if TYPE_CHECKING:
    import asyncio

    from hybridpool._brokers.base import Broker
    from hybridpool._client.connection import ClientConnection
    from hybridpool._client.fire_and_forget import FireAndForget
    from hybridpool._client.result_handle import Handle, SyncHandle
    from hybridpool._client.sync_portal import Portal
    from hybridpool._message import Outgoing
    from hybridpool.events import Listener

#: opens a broker connection, given a listener to its events
Opener: TypeAlias = "Callable[[Listener], Broker]"
#: replaces the broker of broker_url, together with the settings that apply to it
TransportOverride: TypeAlias = tuple[Opener, Settings]
_NO_OPTIONS = CallOptions()


class CallPublisher:
    """Sends the calls of one app."""

    def __init__(self, app: str, conf: Conf, tasks: Mapping[str, BaseTask[..., Any]]) -> None:
        self._app = app
        self._conf = conf
        self._tasks = tasks
        #: the last one applies; none: broker_url of conf and environment applies
        self._overrides: list[TransportOverride] = []
        #: by loop: the override that a connection was made with, and the connection
        self._connections: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[TransportOverride | None, ClientConnection]
        ] = weakref.WeakKeyDictionary()
        self._portal: Portal | None = None
        self._portal_lock = threading.Lock()
        #: the process in which the lock was made
        self._lock_pid = os.getpid()
        #: the queue of unconfirmed calls, and the portal that it belongs to
        self._fire_and_forget: tuple[Portal, FireAndForget] | None = None
        #: the revision of conf, and the settings that follow from it
        self._settings: tuple[int, Settings] | None = None

    async def send(
        self, name: str, args: Sequence[object], kwargs: Mapping[str, object] | None, options: dict[str, Any]
    ) -> "Handle[Any]":
        """Send over this loop's connection; see `App.send`."""
        request, running = self._request(name, args, kwargs, options), current_sender()
        if running is not None:
            return await _post_through_parent(request, running)
        return await self._connection().send(request)

    async def send_many(
        self, name: str, calls: Iterable[Sequence[object]], options: dict[str, Any]
    ) -> "list[Handle[Any]]":
        """Send calls over this loop's connection; see `App.send_many`."""
        requests, running = [self._request(name, args, None, options) for args in calls], current_sender()
        if len(requests) > 1 and options.get("task_id") is not None:
            raise CannotSend(f"{name}: task_id={options['task_id']!r} is the id of one call, not of {len(requests)}")
        if running is not None:
            return await _all_through_parent(requests, running)
        return await self._connection().send_many(requests)

    def send_from_sync(
        self, name: str, args: Sequence[object], kwargs: Mapping[str, object] | None, options: dict[str, Any]
    ) -> "SyncHandle[Any]":
        """Send over the background connection; see `App.send_task`."""
        from hybridpool._client.result_handle import Handle, SyncHandle

        request, running = self._request(name, args, kwargs, options), current_sender()
        if running is not None:
            return SyncHandle(_through_parent(request, running), None)

        if not request.is_confirmed:
            self._send_unconfirmed(request)
            why = "it was sent without confirmation, and its result is not kept"
            return SyncHandle(Handle(name, request.id, None, why), self._background)

        async def on_portal() -> "Handle[Any]":
            return await self._connection().send(request)

        return SyncHandle(self._background().call(on_portal), self._background)

    @property
    def transport_override(self) -> TransportOverride | None:
        """The opener and settings of connections; None: broker_url of conf and environment applies."""
        return self._overrides[-1] if self._overrides else None

    @transport_override.setter
    def transport_override(self, transport_override: TransportOverride | None) -> None:
        self._overrides = [] if transport_override is None else [transport_override]

    @contextmanager
    def override_transport(self, transport_override: TransportOverride) -> Generator[None]:
        """Override the transport while the block lasts; blocks may overlap, and end in any order."""
        self._overrides.append(transport_override)
        try:
            yield
        finally:
            self._overrides = [other for other in self._overrides if other is not transport_override]

    async def close_here(self) -> None:
        """Close this loop's connection."""
        import asyncio

        _, connection = self._connections.pop(asyncio.get_running_loop(), (None, None))
        if connection is not None:
            await connection.close()

    def close_background(self) -> None:
        """Close the background connection and its loop."""
        portal, self._portal = self._portal, None
        if portal is not None:
            portal.close()

    def settings(self) -> Settings:
        """Return the settings for sending: the environment over `conf`.

        :raises ConfigError: if the environment holds a wrong value.
        """
        if self._overrides:
            return self._overrides[-1][1]
        revision = self._conf.revision()
        if self._settings is None or self._settings[0] != revision:
            layers = [environment_layer(os.environ), *self._conf.layers()]
            # A sender does not need the number of CPUs, and counting them reads files.
            self._settings = revision, resolve(layers, cpus=lambda: 1).settings
        return self._settings[1]

    def _send_unconfirmed(self, request: Request) -> None:
        """Queue a call that is sent without confirmation."""
        from hybridpool._client.fire_and_forget import FireAndForget

        portal = self._background()
        if self._fire_and_forget is None or self._fire_and_forget[0] is not portal:

            async def post(messages: "Sequence[Outgoing]") -> None:
                await self._connection().post(messages)

            fire_and_forget = FireAndForget(portal, post, self.settings().broker_connection_timeout)
            portal.at_close(fire_and_forget.finish, first=True)
            self._fire_and_forget = portal, fire_and_forget
        self._fire_and_forget[1].put(to_message(request, dt.datetime.now(dt.UTC)))

    def _connection(self) -> "ClientConnection":
        from hybridpool._client.asynclib import running_loop
        from hybridpool._client.connection import ClientConnection

        loop, transport_override = running_loop("an App's async calls", HybridpoolError), self.transport_override
        before, connection = self._connections.get(loop, (None, None))
        if connection is not None and before is transport_override:
            return connection
        if connection is not None:
            connection.close_soon()
        connection = ClientConnection(
            self.settings(), transport_override[0] if transport_override else self._open_broker
        )
        self._connections[loop] = transport_override, connection
        return connection

    def _background(self) -> "Portal":
        from hybridpool._client.sync_portal import Portal

        if self._lock_pid != os.getpid():
            # A thread that held the lock during the fork does not exist in this process, so it would never release it.
            self._portal_lock, self._lock_pid = threading.Lock(), os.getpid()
        with self._portal_lock:
            # A fork has no other threads, so a portal of another process is not used. A portal that was closed at exit
            # is replaced, for calls that are sent later still.
            if self._portal is None or not self._portal.is_open:
                self._portal = Portal()
                self._portal.at_close(self.close_here)
            return self._portal

    def _open_broker(self, announce: "Listener") -> "Broker":
        from hybridpool._brokers.factory import open_broker

        settings = self.settings()
        return open_broker(
            settings.broker_url,
            announce,
            heartbeat=settings.broker_heartbeat,
            connect_timeout=settings.broker_connection_timeout,
            name=f"{self._app} (sender)",
        )

    def _request(
        self, name: str, args: Sequence[object], kwargs: Mapping[str, object] | None, given: dict[str, Any]
    ) -> Request:
        options, settings = read_call_options(given) if given else _NO_OPTIONS, self.settings()
        check_arguments(name, args, kwargs)
        known, running = self._tasks.get(name), current_sender()
        if known is not None:
            signature_of(known).check(name, args, kwargs or {})
        declared = known.declared if known else TaskOptions(name=name)
        choices = (options.ignore_result, declared.ignore_result, settings.task_ignore_result)
        ignores = next(ignore for ignore in choices if ignore is not None)
        confirm = settings.broker_confirm_publish if options.confirm is None else options.confirm
        # Inside a task the parent fills in the default queue, which its command line may have changed.
        queue = options.queue or declared.queue or ("" if running else settings.task_default_queue)
        eta = _eta(options)
        check_target(name, queue, is_delayed=eta is not None)
        return Request(
            task=name,
            id=options.task_id or str(uuid.uuid4()),
            queue=queue,
            args=args,
            kwargs=kwargs or {},
            expires=options.expires,
            eta=eta,
            priority=options.priority,
            headers=options.headers,
            time_limit=options.time_limit,
            soft_time_limit=options.soft_time_limit,
            ignore_result=ignores,
            # a call whose result is kept is always confirmed; inside a task the parent confirms
            is_confirmed=running is not None or confirm or (not ignores and settings.result_backend is not None),
            root_id=(running.root_id or running.id or None) if running else None,
            parent_id=(running.id or None) if running else None,
        )


def _eta(options: CallOptions) -> dt.datetime | None:
    """Return the moment before which a call must not start."""
    if options.eta is not None:
        return options.eta if options.eta.tzinfo else options.eta.replace(tzinfo=dt.UTC)
    return None if not options.countdown else dt.datetime.now(dt.UTC) + dt.timedelta(seconds=options.countdown)


def _through_parent(request: Request, running: RunningTask) -> "Handle[Any]":
    """Inside a task: the parent publishes; the task cannot wait for the result."""
    from hybridpool._client.result_handle import Handle
    from hybridpool._message import pack

    send_to_parent(running, pack(to_message(request, dt.datetime.now(dt.UTC))))
    return Handle(request.task, request.id, None, "it was sent from inside a task")


async def _post_through_parent(request: Request, running: RunningTask) -> "Handle[Any]":
    """As `_through_parent`, from a coroutine."""
    from hybridpool._client.result_handle import Handle
    from hybridpool._message import pack

    await post_to_parent(running, pack(to_message(request, dt.datetime.now(dt.UTC))))
    return Handle(request.task, request.id, None, "it was sent from inside a task")


async def _all_through_parent(requests: Sequence[Request], running: RunningTask) -> "list[Handle[Any]]":
    """Have the parent publish calls, one after the other; as outside a task, a note says how many are confirmed."""
    handles: list[Handle[Any]] = []
    for request in requests:
        try:
            handles.append(await _post_through_parent(request, running))
        except BrokerError as error:
            error.add_note(f"{len(handles)} of {len(requests)} calls were confirmed")
            raise
    return handles
