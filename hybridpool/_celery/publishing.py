"""A transport of kombu's that publishes through the parent, so that children need no connection to the broker.

The app publishes as always: its `Producer` makes a message, and gives it to a channel. Ours hands it to the parent as
it is: body, address, and the properties as py-amqp encodes them. The parent publishes it over its own connection, and
answers when the broker has confirmed it.

    in a task, main thread          the message is handed over, and the task goes on. Before a success is recorded, and
                                    before the outcome is reported, the child waits for all answers (`Sender.confirm`)
    in other threads, outside of    the answer is waited for at once, on a socket of its own
    tasks; and if it is `mandatory`
    declarations                    the parent makes them, once for all of its children; the answer is waited for
    all else: consuming, deleting,  over a connection of the child's own, by py-amqp, which is opened for that. So it is
    headers exchanges, transactions for what is declared for one connection alone

What the broker does not take raises `kombu.exceptions.OperationalError`.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from kombu import transport
from kombu.exceptions import OperationalError
from kombu.transport import base, pyamqp

from hybridpool._child.program import Sender
from hybridpool._ipc.frames import Declare, Enqueue, EnqueueAnswer, EnqueueRaw
from hybridpool.errors import HybridpoolError

#: schemes of brokers' URLs, and those that the app's URL for publishing gets in their places
_SCHEMES: Final = {"amqp": "hybridpool", "pyamqp": "hybridpool", "amqps": "hybridpools"}
#: exchange types that the parent declares
_TYPES: Final = ("direct", "fanout", "topic")
# kombu has no types.
_PlainTransport: Any = pyamqp.Transport
_TlsTransport: Any = pyamqp.SSLTransport
_StdChannel: Any = base.StdChannel
_AmqpChannel: Any = pyamqp.Channel


class Outlet:
    """What an app publishes through: made in the zygote, and each child puts its own sender here."""

    sender: Sender


def install(app: Any, outlet: Outlet) -> None:
    """Have an app publish through the parent, unless it publishes to another broker than it consumes from."""
    conf = app.conf
    given = conf.broker_write_url
    if given != conf.broker_read_url:
        return
    urls = given.split(";") if isinstance(given, str) else given
    urls = urls or [app.connection_for_read().as_uri(include_password=True)]
    found = [_through_parent(url) for url in urls]
    if None in found:
        return
    for scheme, kind in (("hybridpool", _PlainTransport), ("hybridpools", _TlsTransport)):
        # kombu looks a class up here, by the URL's scheme.
        made = type("Transport", (_ThroughParent, kind), {"outlet": outlet})
        transport.TRANSPORT_ALIASES[scheme] = lambda made=made: made  # type: ignore[assignment]
    conf.broker_write_url = found[0] if len(found) == 1 else found


def failure(errors: Sequence[EnqueueAnswer]) -> OperationalError:
    """Return what is raised for messages that were not published."""
    others = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return OperationalError(f"{errors[0].error}{others}")


def _through_parent(url: object) -> str | None:
    scheme, separator, rest = str(url).partition("://")
    return f"{_SCHEMES[scheme]}://{rest}" if separator and scheme in _SCHEMES else None


class _ThroughParent:
    """Mixed into a transport of py-amqp's: its connections are opened only for what the parent does not do."""

    outlet: Outlet

    def establish_connection(self) -> "_Connection":
        """Return a connection that is not opened yet."""
        above: Any = super()
        client: Any = getattr(self, "client")  # noqa: B009  of the class that this is mixed into
        return _Connection(client, self.outlet.sender, above.establish_connection)

    def drain_events(self, connection: "_Connection", **options: Any) -> Any:
        """Wait for what comes over the connection of this child's own."""
        return connection.real.drain_events(**options)

    def verify_connection(self, connection: "_Connection") -> bool:
        """Tell whether it can be used."""
        return connection.connected


class _Connection:
    """A connection of the kind that kombu wants; the real one is opened when it is needed."""

    def __init__(self, client: Any, sender: Sender, opens: Any) -> None:
        #: kombu's; None once it is closed
        self.client = client
        self.sender = sender
        #: queues that the parent has declared. Others may belong to the real connection alone, and are bound there
        self.queues: set[str] = set()
        self._opens = opens
        self._real: Any = None

    @property
    def real(self) -> Any:
        """The connection of this child's own, by py-amqp."""
        if self._real is None:
            self._real = self._opens()
        return self._real

    @property
    def connected(self) -> bool:
        """It can be used: what goes through the parent always can."""
        return self.client is not None and (self._real is None or bool(self._real.connected))

    def channel(self, *_: Any) -> "_Channel":
        """Return a channel."""
        return _Channel(self)

    def close(self) -> None:
        """Close the real one, if there is one."""
        self.client = None
        if self._real is not None:
            self._real.client = None
            self._real.close()

    def collect(self) -> None:
        """Let go of the real one in a process that was forked."""
        self.client = None
        if self._real is not None:
            self._real.collect()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.real, name)


class _Declared(NamedTuple):
    """The broker's answer to the declaration of a queue; the parent does not count what is in it."""

    queue: str
    message_count: int = 0
    consumer_count: int = 0


class _Channel(_StdChannel):  # type: ignore[misc]  # kombu has no types
    """A channel that publishes and declares through the parent, and does all else by a real one."""

    #: as py-amqp encodes messages and arguments
    prepare_message = _AmqpChannel.prepare_message
    prepare_queue_arguments = _AmqpChannel.prepare_queue_arguments

    def __init__(self, connection: _Connection) -> None:
        #: None once it is closed, as kombu expects it
        self.connection: _Connection | None = connection
        #: called with what no queue took, if it is `mandatory`
        self.events: defaultdict[str, set[Any]] = defaultdict(set)
        self._real: Any = None
        self._is_transactional = False

    @property
    def real(self) -> Any:
        """The channel of this child's own connection, by py-amqp."""
        if self._real is None:
            if self.connection is None:
                raise OperationalError("the channel is closed")
            self._real = self.connection.real.channel()
            for name, calls in self.events.items():
                self._real.events[name].update(calls)
        return self._real

    # ---- through the parent ------------------------------------------------------------------------------

    def basic_publish(
        self,
        message: Any,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        immediate: bool = False,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
    ) -> None:
        """Have the parent publish a message.

        :raises OperationalError: if that is known to have failed.
        """
        if self._is_transactional or immediate:
            self.real.basic_publish(message, exchange, routing_key, mandatory, immediate, timeout, confirm_timeout)
            return
        body = message.body
        if isinstance(body, str):
            body = body.encode(message.properties.setdefault("content_encoding", "utf-8"))
        frame = EnqueueRaw(
            0, bytes(body), exchange or "", routing_key or "", message._serialize_properties(), bool(mandatory)
        )
        if not mandatory:
            self._hand_over(frame)
            return
        try:
            self._hand_over(frame)
        except OperationalError as error:
            if not self.events["basic_return"]:
                raise
            for call in self.events["basic_return"]:
                call(error, exchange, routing_key, message)

    def exchange_declare(
        self,
        exchange: str,
        type: str,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = True,
        nowait: bool = False,
        arguments: Any = None,
        **options: Any,
    ) -> Any:
        """Make an exchange exist."""
        if passive or auto_delete or arguments or options or type not in _TYPES:
            return self.real.exchange_declare(
                exchange, type, passive, durable, auto_delete, nowait, arguments, **options
            )
        self._hand_over(Declare(0, b"", exchange=exchange, exchange_type=type, durable=bool(durable)))
        return None

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = True,
        nowait: bool = False,
        arguments: Any = None,
        **options: Any,
    ) -> Any:
        """Make a queue exist."""
        if not queue or passive or not durable or exclusive or auto_delete or options:
            return self.real.queue_declare(
                queue, passive, durable, exclusive, auto_delete, nowait, arguments, **options
            )
        self._hand_over(Declare(0, b"", queue=queue, arguments=msgspec.msgpack.encode(dict(arguments or {}))))
        if self.connection is not None:
            self.connection.queues.add(queue)
        return _Declared(queue)

    def queue_bind(
        self,
        queue: str,
        exchange: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: Any = None,
        **options: Any,
    ) -> Any:
        """Bind a queue to an exchange."""
        if arguments or options or self.connection is None or queue not in self.connection.queues:
            return self.real.queue_bind(queue, exchange, routing_key, nowait, arguments, **options)
        self._hand_over(Declare(0, b"", queue=queue, exchange=exchange, routing_key=routing_key or ""))
        return None

    def _hand_over(self, frame: Enqueue) -> None:
        """:raises OperationalError: if the parent says so, or cannot be asked."""
        if self.connection is None:
            raise OperationalError("the channel is closed")
        sender = self.connection.sender
        try:
            if isinstance(frame, EnqueueRaw) and not frame.mandatory:
                sender.post(frame)
            else:
                sender.ask(frame)
        except HybridpoolError as error:
            raise OperationalError(str(error)) from error

    # ---- over a connection of its own --------------------------------------------------------------------

    def tx_select(self) -> Any:
        """Begin transactions: what is published belongs to them from now on."""
        self._is_transactional = True
        return self.real.tx_select()

    def close(self, *_: Any, **__: Any) -> None:
        """Close the real channel, if there is one."""
        self.connection = None
        if self._real is not None:
            self._real.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.real, name)
