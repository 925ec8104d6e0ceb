"""AMQP connections: opened within a time, closed within a time, whatever state the broker is in.

They come in pairs: one to consume and to declare over, one to publish over. While memory or disk is short, RabbitMQ
reads nothing more from a connection that publishes, and acknowledgements on it would wait like the messages.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import anyio
import attrs
from aiormq.exceptions import AMQPConnectionError, ConnectionNotAllowed
from anyio.to_thread import run_sync
from yarl import URL

from hybridpool._brokers.rabbitmq import aiormq_compat, tls
from hybridpool._brokers.rabbitmq.aiormq_compat import AmqpChannel, ClientConnection, FilteredTransport
from hybridpool._brokers.rabbitmq.amqp.frame_filter import BlockedReceiver, FrameFilter
from hybridpool._brokers.rabbitmq.errors import CUT, reason
from hybridpool._brokers.url import BrokerUrl

#: seconds for each step of closing: acks written, channel closed, connection closed, socket cut. Their sum is the
#: longest that closing takes with a broker that does not answer
CLOSE_STEP_S = 0.45
#: bytes, where the broker sets no limit: RabbitMQ's own default
DEFAULT_MAX_FRAME_BYTES = 131072


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


class AmqpConnection:
    """An open connection."""

    def __init__(self, client: ClientConnection, frames: FrameFilter) -> None:
        """Take over an open connection; `open` is the way to make one."""
        self._client = client
        self.frames = frames
        self._close_handled = aiormq_compat.close_handled(client)
        self._connection = aiormq_compat.aiormq_connection(client)
        #: as agreed with the broker
        self.max_frame_bytes = aiormq_compat.max_frame_bytes(self._connection, DEFAULT_MAX_FRAME_BYTES)
        #: done when the connection is closed, by either side; its exception says why
        self.closing: asyncio.Future[object] = aiormq_compat.connection_closing(self._connection)

    @classmethod
    async def open(cls, url: BrokerUrl, *, heartbeat: int, name: str) -> "AmqpConnection":
        """Connect and log in, for as long as that takes; see `open_pair`.

        :raises Unusable: if a certificate of ours cannot be used.
        :raises AMQPError: if the broker refuses.
        :raises OSError: if there is no broker.
        """
        aiormq_compat.silence_loggers()
        context = await run_sync(tls.context, url) if url.scheme == "amqps" else None
        transport = FilteredTransport()
        client = ClientConnection(_address(url, heartbeat, name), ssl_context=context, transport_factory=transport)
        try:
            await client.connect()
        except BaseException as error:
            transport.frames.abort()
            with anyio.CancelScope(shield=True):
                # returns at once: there is nothing to close, but its finalizer would start a task otherwise
                await client.close()
            clearer = _clearer(error, url)
            if clearer is not None:
                raise clearer from error
            raise
        return cls(client, transport.frames)

    async def channel(self, *, confirms: bool) -> AmqpChannel:
        """Open a channel.

        :param confirms: whether the broker confirms what is published over it.
        """
        return await aiormq_compat.open_channel(self._connection, confirms=confirms)

    def on_blocked(self, listener: Callable[[str | None], None]) -> None:
        """Call the listener with the broker's reason when it reads nothing more from this connection, and with None
        when it reads again.
        """
        self.frames.watch(0, BlockedReceiver(listener))

    @property
    def silence(self) -> str | None:
        """Why the client library gave the connection up, if it was because nothing came in for too long."""
        seconds = aiormq_compat.seconds_silent(self._connection)
        return None if seconds is None else f"nothing heard for {seconds} s, no heartbeat either"

    async def close(self, grace: float) -> None:
        """Close in good order, or cut the connection if the broker does not answer.

        :param grace: seconds for each of three steps.
        """
        with anyio.move_on_after(grace), suppress(Exception):
            await self._client.close()
        self.frames.abort()
        # `wait` raises nothing of the future's; a cancellation that came here is the caller's, and must not be lost.
        with anyio.move_on_after(grace):
            await asyncio.wait([self.closing])
        with suppress(Exception):
            await self._client.close()
        # Its task begins only when `closing` is done. If the loop ended before that task, as `asyncio.run` does after
        # the last of the program's own, Python would report a task destroyed on a closed loop.
        with anyio.move_on_after(grace):
            await self._close_handled.wait()


async def open_pair(target: ConnectTarget, url: BrokerUrl) -> tuple[AmqpConnection, AmqpConnection]:
    """Open a connection to consume over and one to publish over.

    :raises TimeoutError: if both together take longer than `target.timeout`.
    :raises Exception: as `AmqpConnection.open`.
    """
    with anyio.fail_after(target.timeout):
        consuming = await AmqpConnection.open(url, heartbeat=target.heartbeat, name=target.name)
        try:
            name = f"{target.name} (publishing)" if target.name else ""
            return consuming, await AmqpConnection.open(url, heartbeat=target.heartbeat, name=name)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await consuming.close(CLOSE_STEP_S)
            raise


def _clearer(error: BaseException, url: BrokerUrl) -> Exception | None:
    """Return an error that says more, for what the broker only hints at."""
    if aiormq_compat.is_closed_at_open(error):
        return ConnectionNotAllowed(f"virtual host {url.vhost!r} does not exist, or user {url.user!r} may not use it")
    if url.scheme == "amqps" and "certfile" not in dict(url.query) and reason(error) == CUT:
        # The broker sends an alert and hangs up; with TLS 1.3 it is chance whether the alert comes through.
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
