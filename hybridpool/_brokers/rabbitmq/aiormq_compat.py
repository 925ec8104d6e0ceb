"""All that hybridpool uses of aiormq, aio-pika and pamqp beyond their documented interface.

Each function and class here is one such dependency and says what it relies on. For each there is a test in
tests/contract/test_aiormq_compat.py, which `nox -s aiormq` runs with the oldest and the newest versions that
pyproject.toml allows. Other modules import nothing of the three libraries but `aiormq.exceptions`, which is documented
(tests/architecture/test_aiormq_boundary.py).

Nothing here is called once per message: messages and confirmations pass the libraries by (see `amqp.frame_filter`).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import aio_pika
from aio_pika.abc import ConnectionParameter
from aiormq import exceptions
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.connection import Connection, TransportFactory
from pamqp import commands
from pamqp.common import FieldTable
from yarl import URL

from hybridpool._brokers.rabbitmq.amqp.frame_filter import FrameFilter

# ---- opening -------------------------------------------------------------------------------------------------------


class FilteredTransport(TransportFactory):
    """Opens the socket for aiormq, with a `FrameFilter` between the two.

    Relies on: aiormq reads and writes only through the pair that `create` returns; the TLS context comes as
    `ssl_context_provider`, and is not meant where the scheme is not ``amqps``; an `AMQPConnectionError` is what aiormq
    raises when there is no broker.
    """

    def __init__(self) -> None:
        self.frames = FrameFilter(asyncio.get_running_loop())

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect.

        :raises AMQPConnectionError: if there is no broker.
        """
        provider = kwargs.pop("ssl_context_provider", None)
        secure = await provider.get_context() if url.scheme == "amqps" and provider is not None else None
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(
                lambda: self.frames, url.host or "", url.port or 0, ssl=secure, **kwargs
            )
        except OSError as error:
            raise exceptions.AMQPConnectionError(*error.args) from error
        return self.frames.stream, self.frames.attach(transport)


class ClientConnection(aio_pika.Connection):
    """aio-pika's plain connection, which hands a transport factory on to aiormq.

    Relies on: `PARAMETERS` names what the constructor takes, and those with `is_kwarg` are passed to
    `aiormq.connect`, which takes `transport_factory`.
    """

    PARAMETERS = (
        *aio_pika.Connection.PARAMETERS,
        ConnectionParameter(name="transport_factory", parser=lambda given: given, is_kwarg=True),
    )


def aiormq_connection(client: ClientConnection) -> Connection:
    """Return the connection of aiormq below an open one of aio-pika.

    Relies on: `Connection.transport.connection`.
    """
    assert client.transport is not None
    connection = client.transport.connection
    assert isinstance(connection, Connection)
    return connection


def close_handled(client: ClientConnection) -> asyncio.Event:
    """Return what is set when aio-pika has dealt with the end of a connection, in a task of its own.

    Relies on: `Connection.transport.close_callback.finished`. Take it while the connection is open: closing removes
    `transport`.
    """
    assert client.transport is not None
    return client.transport.close_callback.finished


async def open_channel(connection: Connection, *, confirms: bool) -> "AmqpChannel":
    """Open a channel.

    Relies on: `Connection.channel` returns an `aiormq.channel.Channel`.

    :param confirms: whether the broker confirms what is published over it.
    """
    channel = await connection.channel(publisher_confirms=confirms)
    assert isinstance(channel, Channel)
    return AmqpChannel(channel)


# ---- an open connection --------------------------------------------------------------------------------------------


def connection_closing(connection: Connection) -> asyncio.Future[object]:
    """Return a future that is done when the connection is closed, by either side; its exception says why.

    Relies on: `Connection.closing`; the exception counts as retrieved.
    """
    return connection.closing


def max_frame_bytes(connection: Connection, default: int) -> int:
    """Return the bytes that a frame may have, as agreed with the broker.

    Relies on: `Connection.connection_tune`, the broker's own `connection.tune`, whose limits aiormq accepts.

    :param default: where the broker sets no limit.
    """
    return connection.connection_tune.frame_max or default


def seconds_silent(connection: Connection) -> int | None:
    """Return for how many seconds nothing came in, if that is why aiormq gave the connection up; None: it is not.

    Relies on: `heartbeat_timeout` (0: no heartbeats), `is_connection_was_stuck`, `HEARTBEAT_GRACE_MULTIPLIER`, and
    how aiormq computes its patience from them.
    """
    if not connection.heartbeat_timeout or not connection.is_connection_was_stuck:
        return None
    return (connection.heartbeat_timeout + 1) * connection.HEARTBEAT_GRACE_MULTIPLIER


# ---- channels ------------------------------------------------------------------------------------------------------


class _AnyName:
    """Leaves the checking of names to the broker.

    pamqp takes only names of ASCII letters, digits and some signs. The broker takes any 255 bytes, and other clients
    use them. Relies on: a command checks its fields in `validate`, and a name that is too long is a `ValueError` or
    `TypeError` when it is written.
    """

    def validate(self) -> None:
        """Find nothing wrong."""


class _QueueDeclare(_AnyName, commands.Queue.Declare):
    """`queue.declare`."""


class _QueueBind(_AnyName, commands.Queue.Bind):
    """`queue.bind`."""


class _QueuePurge(_AnyName, commands.Queue.Purge):
    """`queue.purge`."""


class _QueueDelete(_AnyName, commands.Queue.Delete):
    """`queue.delete`."""


class _ExchangeDeclare(_AnyName, commands.Exchange.Declare):
    """`exchange.declare`."""


class _ExchangeBind(_AnyName, commands.Exchange.Bind):
    """`exchange.bind`."""


class _BasicConsume(_AnyName, commands.Basic.Consume):
    """`basic.consume`."""


class AmqpChannel:
    """An open channel of aiormq, with the requests that are made over one.

    Relies on: `Channel.number`, `Channel.closing`, `Channel.rpc` with any command of pamqp, `Channel.consumers` and
    `Channel.on_consumer_cancel_callbacks`.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.number: int = channel.number

    @property
    def closing(self) -> asyncio.Future[object]:
        """A future that is done when the channel is closed, by either side; its exception says why."""
        return self._channel.closing

    async def queue_declare(
        self,
        queue: str,
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> int:
        """Make a queue exist, or with `passive` ask whether it does; return how many messages are ready in it."""
        told = await self._channel.rpc(
            _QueueDeclare(
                queue=queue,
                passive=passive,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                arguments=cast(FieldTable | None, arguments),
            )
        )
        return told.message_count or 0

    async def queue_bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        """Let a queue have messages of an exchange."""
        await self._channel.rpc(_QueueBind(queue=queue, exchange=exchange, routing_key=routing_key))

    async def queue_purge(self, queue: str) -> int:
        """Delete the messages of a queue that are ready; return how many."""
        told = await self._channel.rpc(_QueuePurge(queue=queue))
        return told.message_count or 0

    async def queue_delete(self, queue: str) -> None:
        """Delete a queue with what is in it."""
        await self._channel.rpc(_QueueDelete(queue=queue))

    async def exchange_declare(
        self,
        exchange: str,
        *,
        exchange_type: str,
        durable: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        """Make an exchange exist."""
        await self._channel.rpc(
            _ExchangeDeclare(
                exchange=exchange,
                exchange_type=exchange_type,
                durable=durable,
                arguments=cast(FieldTable | None, arguments),
            )
        )

    async def exchange_bind(self, destination: str, source: str, routing_key: str) -> None:
        """Let an exchange have messages of another."""
        await self._channel.rpc(_ExchangeBind(destination=destination, source=source, routing_key=routing_key))

    async def consume(self, queue: str, tag: str, prefetch: int) -> None:
        """Start a consumer, whose messages the frame filter takes out before aiormq sees them.

        Relies on: aiormq looks a consumer up in `Channel.consumers`, so it knows the tag when the broker cancels it.

        :param prefetch: how many of its messages may be unsettled at once; 0: any number.
        """
        await self._channel.basic_qos(prefetch_count=prefetch, global_=False)
        self._channel.consumers[tag] = _never_called
        try:
            await self._channel.rpc(_BasicConsume(queue=queue, consumer_tag=tag))
        except BaseException:
            self._channel.consumers.pop(tag, None)
            raise

    async def cancel(self, tag: str) -> None:
        """End a consumer; once this returns nothing more is delivered to it."""
        await self._channel.basic_cancel(tag)

    def on_consumer_cancelled(self, listener: Callable[[str], None]) -> None:
        """Call the listener with the tag of a consumer that the broker ends.

        Relies on: `on_consumer_cancel_callbacks` gets the frame, and not for what `cancel` ends.
        """

        def cancelled(frame: commands.Basic.Cancel) -> None:
            listener(frame.consumer_tag or "")

        self._channel.on_consumer_cancel_callbacks.add(cancelled)

    async def round_trip(self) -> None:
        """Return when the broker has read what was written on this channel before.

        `channel.flow` is the one request that changes nothing; `basic.qos` would be the next consumer's.
        """
        await self._channel.flow(active=True)

    async def close(self) -> None:
        """Close the channel; one that is closed already stays so."""
        await self._channel.close()


async def _never_called(message: DeliveredMessage) -> None:
    """Fail: aiormq would call this if messages came to it."""
    raise AssertionError(f"{message} came to the client library")


# ---- errors and logs -----------------------------------------------------------------------------------------------

#: everything by which the libraries say that there is no connection, or no longer. RuntimeError is raised for a channel
#: on a closed connection. A TimeoutError, which is an OSError, is the kernel's ETIMEDOUT: the network swallows what we
#: send
CONNECTION_LOST: Final = (
    exceptions.AMQPConnectionError,
    exceptions.ChannelInvalidStateError,
    OSError,
    EOFError,
    RuntimeError,
)
#: how aiormq begins its error for a stream that ends in the middle of a frame
_STREAM_ENDED: Final = ("Server connection unexpectedly closed", "Server connection reset")


def is_stream_end(error: BaseException | None) -> bool:
    """Tell whether the connection was cut without a word.

    Relies on: aiormq's reader raises `StopAsyncIteration` between two frames, and an `AMQPConnectionError` with one of
    two texts inside one; there is no other sign of it.
    """
    text = str(error.args[-1]) if error is not None and error.args else ""
    return isinstance(error, StopAsyncIteration) or text.startswith(_STREAM_ENDED)


def is_closed_at_open(error: BaseException) -> bool:
    """Tell whether the broker closed the connection in place of opening the virtual host.

    Relies on: aiormq raises `InvalidFrameError` for that, with the frame's name and without the broker's reason.
    """
    return isinstance(error, exceptions.InvalidFrameError) and "Connection.Close" in str(error)


def refused_delivery_text(error: exceptions.DeliveryError) -> object:
    """Return why the broker did not take a message; None: it did not say.

    Relies on: `DeliveryError.frame`.
    """
    return getattr(error.frame, "reply_text", None)


def has_object_names(error: BaseException | None) -> bool:
    """Tell whether the text of an error holds a URL and the address of an object, which are not for a log."""
    return isinstance(error, RuntimeError | exceptions.ChannelInvalidStateError)


def silence_loggers() -> None:
    """Keep the libraries' loggers quiet, unless the program has set their level on purpose.

    They print a traceback for each lost connection, cancelled task and refused login: what hybridpool announces in one
    line (`events.BrokerLost`). Called at the first connection and not at import. Relies on: the names of the loggers.
    """
    for name in ("aiormq", "aio_pika"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)
