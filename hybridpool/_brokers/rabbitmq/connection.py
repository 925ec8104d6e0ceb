"""AMQP connections: opened within a time, closed within a time, whatever state the broker is in.

They come in pairs: one to consume and to ask over, one to publish over. While memory or disk is short, RabbitMQ reads
nothing more from a connection that publishes, and acknowledgements on it would wait like the messages.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aio_pika
import anyio
import attrs
from aio_pika.abc import ConnectionParameter
from aiormq.channel import Channel
from aiormq.connection import Connection, TransportFactory
from aiormq.exceptions import AMQPConnectionError, ConnectionNotAllowed, InvalidFrameError
from anyio.to_thread import run_sync
from pamqp import commands
from yarl import URL

from hybridpool._brokers.rabbitmq import tls
from hybridpool._brokers.rabbitmq.amqp.frame_filter import FrameFilter
from hybridpool._brokers.rabbitmq.errors import CUT, reason
from hybridpool._brokers.url import BrokerUrl

#: seconds for each step of closing: acks written, channel closed, connection closed, socket cut. Their sum is the most
#: that closing may take with a broker that does not answer
STEP = 0.45
#: bytes, where the broker sets no limit: what RabbitMQ has as its own
DEFAULT_FRAME = 131072


@attrs.frozen(kw_only=True)
class ConnectTarget:
    """Where the broker is and how to talk to it."""

    #: tried in turn
    urls: tuple[BrokerUrl, ...]
    #: seconds
    heartbeat: int
    #: seconds for one attempt
    timeout: float
    #: of the connections, as the broker shows it
    name: str

    @property
    def masked(self) -> str:
        """All of them, for people and logs."""
        return ";".join(url.masked for url in self.urls)


class FilteredTransport(TransportFactory):
    """Opens the socket for the client library, with a tap on it."""

    def __init__(self) -> None:
        self.tap = FrameFilter(asyncio.get_running_loop())

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider = kwargs.pop("ssl_context_provider", None)
        secure = await provider.get_context() if url.scheme == "amqps" and provider is not None else None
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(
                lambda: self.tap, url.host or "", url.port or 0, ssl=secure, **kwargs
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return self.tap.stream, self.tap.attach(transport)


class AioPikaConnection(aio_pika.Connection):
    """aio-pika's plain connection, which hands our transport on to its lower layer."""

    PARAMETERS = (
        *aio_pika.Connection.PARAMETERS,
        ConnectionParameter(name="transport_factory", parser=lambda given: given, is_kwarg=True),
    )


class AmqpConnection:
    """An open connection."""

    def __init__(self, wire: AioPikaConnection, tap: FrameFilter) -> None:
        self._wire = wire
        self.tap = tap
        assert wire.transport is not None
        #: set when the client library has dealt with the end of the connection, in a task of its own
        self._dealt_with = wire.transport.close_callback.finished
        amqp = wire.transport.connection
        assert isinstance(amqp, Connection)
        self._amqp = amqp
        #: done when the connection is closed, by whichever side; its exception says why
        self.closing: asyncio.Future[object] = self._amqp.closing

    @classmethod
    async def open(cls, url: BrokerUrl, *, heartbeat: int, name: str) -> "AmqpConnection":
        """Connect and log in, for as long as that takes; see `open_pair`.

        :raises Unusable: if a certificate of ours cannot be used.
        :raises AMQPError: if the broker refuses.
        :raises OSError: if there is no broker.
        """
        silence()
        context = await run_sync(tls.context, url) if url.scheme == "amqps" else None
        transport = FilteredTransport()
        wire = AioPikaConnection(_address(url, heartbeat, name), ssl_context=context, transport_factory=transport)
        try:
            await wire.connect()
        except BaseException as error:
            transport.tap.cut()
            with anyio.CancelScope(shield=True):
                await wire.close()  # at once: there is nothing to close, but its finalizer would start a task otherwise
            clearer = _clearer(error, url)
            if clearer is not None:
                raise clearer from error
            raise
        return cls(wire, transport.tap)

    async def channel(self, *, confirms: bool) -> Channel:
        """Open a channel."""
        channel = await self._amqp.channel(publisher_confirms=confirms)
        assert isinstance(channel, Channel)
        return channel

    def on_blocked(self, hear: Callable[[str | None], None]) -> None:
        """Hear the broker's reason when it reads nothing more from this connection, and None when it reads again.

        aiormq keeps that to itself. Its reader calls two private methods, which are replaced on this one connection;
        what they did is to note it for a writer that has not begun.
        """

        async def blocked(frame: commands.Connection.Blocked) -> None:
            hear(frame.reason or "no reason given")

        async def unblocked(_: commands.Connection.Unblocked) -> None:
            hear(None)

        setattr(self._amqp, "_Connection__handle_connection_blocked", blocked)  # noqa: B010  it is not declared
        setattr(self._amqp, "_Connection__handle_connection_unblocked", unblocked)  # noqa: B010

    @property
    def largest(self) -> int:
        """Bytes that a frame may have, as agreed with the broker."""
        return self._amqp.connection_tune.frame_max or DEFAULT_FRAME

    @property
    def silence(self) -> str | None:
        """Why the client library gave the connection up, if it was because nothing came in for too long."""
        amqp = self._amqp
        if not amqp.heartbeat_timeout or not amqp.is_connection_was_stuck:
            return None
        return (
            f"nothing heard for {(amqp.heartbeat_timeout + 1) * amqp.HEARTBEAT_GRACE_MULTIPLIER} s, no heartbeat either"
        )

    async def close(self, grace: float) -> None:
        """Say goodbye, or cut the connection if the broker does not answer.

        :param grace: seconds for the goodbye.
        """
        with anyio.move_on_after(grace), suppress(Exception):
            await self._wire.close()
        self.tap.cut()
        # `wait` raises nothing of the future's; a cancellation that came here is the caller's, and must not be lost.
        with anyio.move_on_after(grace):
            await asyncio.wait([self._amqp.closing])
        with suppress(Exception):
            await self._wire.close()
        # Its task begins only when `closing` is done. If the loop ended before that task, as `asyncio.run` does after
        # the last of the program's own, Python would report a task destroyed on a closed loop.
        with anyio.move_on_after(grace):
            await self._dealt_with.wait()


async def open_pair(reach: ConnectTarget, url: BrokerUrl) -> tuple[AmqpConnection, AmqpConnection]:
    """Open a connection to consume over and one to publish over.

    :raises TimeoutError: if both together take longer than `reach.timeout`.
    :raises Exception: as `AmqpConnection.open`.
    """
    with anyio.fail_after(reach.timeout):
        consuming = await AmqpConnection.open(url, heartbeat=reach.heartbeat, name=reach.name)
        try:
            name = f"{reach.name} (publishing)" if reach.name else ""
            return consuming, await AmqpConnection.open(url, heartbeat=reach.heartbeat, name=name)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await consuming.close(STEP)
            raise


def _clearer(error: BaseException, url: BrokerUrl) -> Exception | None:
    """Return an error that says more, for what the broker only hints at."""
    if isinstance(error, InvalidFrameError) and "Connection.Close" in str(error):
        # what it answers in place of opening the virtual host; aiormq 7.2 loses its words
        return ConnectionNotAllowed(f"virtual host {url.vhost!r} does not exist, or user {url.user!r} may not use it")
    if url.scheme == "amqps" and "certfile" not in dict(url.query) and reason(error) == CUT:
        # it says so, and hangs up: whether its word comes through is chance with TLS 1.3
        return AMQPConnectionError(f"{CUT}; does the broker want a client certificate (certfile)?")
    return None


def _address(url: BrokerUrl, heartbeat: int, name: str) -> URL:
    given = {"heartbeat": str(heartbeat), **({"name": name} if name else {}), **dict(url.query)}
    return URL.build(
        scheme=url.scheme,
        host=url.host,
        port=url.port,
        user=url.user,
        password=url.password,
        path=f"/{url.vhost}",
        query=given,
    )


def silence() -> None:
    """Keep the client library's loggers quiet, unless somebody has set their level on purpose.

    They print a traceback for each lost connection, cancelled task and refused login: what we announce in one line
    (`events.BrokerLost`). Set in this one place, at the first connection and not at import.
    """
    for name in ("aiormq", "aio_pika"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)
