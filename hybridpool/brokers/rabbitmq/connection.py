"""One AMQP connection: opened within a time, closed within a time, whatever state the broker is in."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

import aio_pika
import anyio
from aio_pika.abc import ConnectionParameter
from aiormq.channel import Channel
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import ConnectionNotAllowed, InvalidFrameError
from yarl import URL

from hybridpool.brokers.url import BrokerUrl


class RememberingTransport(TransportFactory):
    """Opens the socket as the client library would, and keeps hold of it, so that it can be cut."""

    def __init__(self, scheme: str) -> None:
        self._inner = TLSTransportFactory() if scheme == "amqps" else TCPTransportFactory()
        self._transport: asyncio.WriteTransport | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self._inner.create(url, **kwargs)
        self._transport = writer.transport
        return reader, writer

    def cut(self) -> None:
        """Close the socket at once; what is not written yet is dropped."""
        if self._transport is not None:
            self._transport.abort()


class Wire(aio_pika.Connection):
    """aio-pika's plain connection, which hands our transport on to its lower layer."""

    PARAMETERS = (
        *aio_pika.Connection.PARAMETERS,
        ConnectionParameter(name="transport_factory", parser=lambda given: given, is_kwarg=True),
    )


class Line:
    """An open connection."""

    def __init__(self, wire: Wire, transport: RememberingTransport) -> None:
        self._wire = wire
        self._transport = transport
        assert wire.transport is not None
        self._amqp = wire.transport.connection
        #: done when the connection is closed, by whichever side; its exception says why
        self.closing: asyncio.Future[object] = self._amqp.closing

    @classmethod
    async def open(cls, url: BrokerUrl, *, heartbeat: int, timeout: float, name: str) -> "Line":
        """Connect and log in.

        :param timeout: seconds for all of it.
        :raises TimeoutError: if it takes longer.
        :raises AMQPError: if the broker refuses.
        :raises OSError: if there is no broker.
        """
        silence()
        transport = RememberingTransport(url.scheme)
        wire = Wire(_address(url, heartbeat, name), transport_factory=transport)
        try:
            with anyio.fail_after(timeout):
                await wire.connect()
        except BaseException as error:
            transport.cut()
            with anyio.CancelScope(shield=True):
                await wire.close()  # at once: there is nothing to close, but its finalizer would start a task otherwise
            if isinstance(error, InvalidFrameError) and "Connection.Close" in str(error):
                # what a broker answers in place of opening the virtual host; aiormq 7.2 loses its words
                why = f"virtual host {url.vhost!r} does not exist, or user {url.user!r} may not use it"
                raise ConnectionNotAllowed(why) from error
            raise
        return cls(wire, transport)

    async def channel(self, *, confirms: bool) -> Channel:
        """Open a channel.

        The client library's own buffer of 10 frames is lifted (0: no limit): with it, reader and channel take turns
        every third message, which costs a third of the whole way in. Prefetch is what bounds the memory.
        """
        channel = await self._amqp.channel(publisher_confirms=confirms, frame_buffer_size=0, on_return_raises=True)
        assert isinstance(channel, Channel)
        return channel

    async def close(self, grace: float) -> None:
        """Say goodbye, or cut the connection if the broker does not answer.

        :param grace: seconds for the goodbye.
        """
        with anyio.move_on_after(grace), suppress(Exception):
            await self._wire.close()
        self._transport.cut()
        # `wait` raises nothing of the future's; a cancellation that came here is the caller's, and must not be lost.
        with anyio.move_on_after(grace):
            await asyncio.wait([self._amqp.closing])
        with suppress(Exception):
            await self._wire.close()


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
