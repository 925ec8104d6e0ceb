"""What hybridpool relies on in aiormq, aio-pika and pamqp beyond their documentation: one test per dependency.

The tests need no RabbitMQ: `StandIn` answers as a broker does. `nox -s aiormq` runs this file with the oldest and the
newest versions that pyproject.toml allows.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import aio_pika.log
import aiormq.connection
import anyio
import pamqp.frame
import pytest
from aiormq import exceptions
from pamqp import commands
from pamqp.common import FieldTable
from yarl import URL

from hybridpool._brokers.rabbitmq import aiormq_compat as compat
from hybridpool._brokers.rabbitmq.amqp import codec
from hybridpool._brokers.rabbitmq.amqp.frame_filter import BlockedReceiver
from tests.contract.inbox import Collected

pytestmark = [pytest.mark.anyio, pytest.mark.contract]

#: seconds; a test that waits longer for anything has failed
PATIENCE = 30.0
#: names that pamqp's own checks refuse, and RabbitMQ takes
ODD_NAME = "täsk queue: *!"
LONG_NAME = "n" * 256

CAPABILITIES: FieldTable = {"publisher_confirms": True, "consumer_cancel_notify": True, "connection.blocked": True}


@contextmanager
def relies_on(what: str) -> Iterator[None]:
    """Say in the failure which dependency has changed, and in which versions."""
    try:
        yield
    except Exception as error:
        found = ", ".join(f"{name} {version(name)}" for name in ("aiormq", "aio-pika", "pamqp"))
        raise AssertionError(
            f"{what}: this does not hold with {found}; "
            f"adapt hybridpool/_brokers/rabbitmq/aiormq_compat.py ({type(error).__name__}: {error})"
        ) from error


class StandIn:
    """Answers one client as RabbitMQ does, and sends what a test wants."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.connections = 0
        self.max_frame_bytes = 131072
        #: by name of a request: sent in place of the usual answer; None: the connection is cut
        self.instead: dict[str, bytes | None] = {}
        self.port = 0
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the client leaves."""
        self.connections += 1
        self._writer = writer
        try:
            assert await reader.readexactly(8) == b"AMQP\x00\x00\x09\x01"
            start = commands.Connection.Start(0, 9, {"capabilities": CAPABILITIES}, "PLAIN", "en_US")
            writer.write(pamqp.frame.marshal(start, 0))
            while True:
                head = await reader.readexactly(codec.HEAD.size)
                size = codec.HEAD.unpack(head)[2]
                _, channel, frame = pamqp.frame.unmarshal(head + await reader.readexactly(size + 1))
                self.asked.append(frame)
                if frame.name in self.instead:
                    instead = self.instead[frame.name]
                    if instead is None:
                        break
                    writer.write(instead)
                elif (answer := self.answer(frame)) is not None:
                    writer.write(pamqp.frame.marshal(answer, channel))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, RuntimeError):
            pass  # the client is gone; uvloop says the last for a closed transport
        finally:
            writer.close()

    def answer(self, frame: Any) -> Any:
        """Return what a broker answers; None: nothing."""
        match frame.name:
            case "Connection.StartOk":
                return commands.Connection.Tune(2047, self.max_frame_bytes, 60)
            case "Basic.Consume":
                return commands.Basic.ConsumeOk(frame.consumer_tag)
            case "Basic.Cancel":
                return commands.Basic.CancelOk(frame.consumer_tag)
            case "Channel.Flow":
                return commands.Channel.FlowOk(frame.active)
            case "Queue.Declare":
                return commands.Queue.DeclareOk("", 3, 0)
            case "Queue.Delete":
                return commands.Queue.DeleteOk(0)
            case name if not name.endswith("Ok"):
                group, _, request = name.partition(".")
                kind = getattr(getattr(commands, group, None), f"{request}Ok", None)
                return None if kind is None else kind()
        return None

    def send(self, channel: int, frame: Any) -> None:
        """Send a frame to the client that connected last."""
        assert self._writer is not None
        self._writer.write(pamqp.frame.marshal(frame, channel))

    def cut(self) -> None:
        """End the connection without a word."""
        assert self._writer is not None
        self._writer.transport.abort()


@pytest.fixture
async def broker() -> AsyncIterator[StandIn]:
    """A stand-in that listens."""
    found = StandIn()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    server.close()


Connect = Callable[..., Any]


@pytest.fixture
async def connect(broker: StandIn) -> AsyncIterator[Connect]:
    """Return what connects to the stand-in; closed at the end."""
    clients: list[compat.ClientConnection] = []
    compat.silence_loggers()

    async def open_one(heartbeat: int = 60) -> compat.ClientConnection:
        transport = compat.FilteredTransport()
        url = URL(f"amqp://guest:guest@127.0.0.1:{broker.port}/?heartbeat={heartbeat}")
        client = compat.ClientConnection(url, transport_factory=transport)
        clients.append(client)
        await client.connect()
        return client

    yield open_one
    for client in clients:
        await client.close()


async def over(connect: Connect, *, confirms: bool = False) -> compat.AmqpChannel:
    """Open a channel on a new connection."""
    return await compat.open_channel(compat.aiormq_connection(await connect()), confirms=confirms)


async def ended(closing: asyncio.Future[object]) -> BaseException | None:
    """Wait for the end of a channel or connection; return its exception."""
    with anyio.fail_after(PATIENCE):
        await asyncio.wait([closing])
    return None if closing.cancelled() else closing.exception()


async def test_the_transport_is_ours(broker: StandIn, connect: Connect) -> None:
    """All of a connection's bytes go through the frame filter."""
    with relies_on("FilteredTransport: `aio_pika.Connection.PARAMETERS` hands `transport_factory` on to aiormq"):
        client = await connect()
        assert broker.connections == 1
        factory = client.kwargs["transport_factory"]
        assert isinstance(factory, compat.FilteredTransport)
        before = len(broker.asked)
        heard = [frame.name for frame in broker.asked[:before]]
        assert heard[0] == "Connection.StartOk"
        factory.frames.abort()
        error = await ended(compat.connection_closing(compat.aiormq_connection(client)))
        assert error is not None


async def test_no_broker() -> None:
    """A refused connection is the error that aiormq documents."""
    with relies_on("FilteredTransport: aiormq passes on what `create` raises"):
        client = compat.ClientConnection(URL("amqp://127.0.0.1:1/"), transport_factory=compat.FilteredTransport())
        with pytest.raises(exceptions.AMQPConnectionError):
            await client.connect()
        await client.close()


async def test_close_handled(connect: Connect) -> None:
    """aio-pika's task for the end of a connection can be waited for."""
    with relies_on("close_handled: `transport.close_callback.finished` is set after the end, by aio-pika's own task"):
        client = await connect()
        handled = compat.close_handled(client)
        assert not handled.is_set()
        await client.close()
        with anyio.fail_after(PATIENCE):
            await handled.wait()


async def test_connection_closing(broker: StandIn, connect: Connect) -> None:
    """The end of a connection comes with the broker's reason."""
    with relies_on("connection_closing: `Connection.closing` is done at the end, with the broker's reason"):
        closing = compat.connection_closing(compat.aiormq_connection(await connect()))
        assert not closing.done()
        broker.send(0, commands.Connection.Close(320, "CONNECTION_FORCED - by the operator", 0, 0))
        error = await ended(closing)
        assert isinstance(error, exceptions.ConnectionClosed)
        assert "by the operator" in str(error)


@pytest.mark.parametrize(("agreed", "expected"), [(131072, 131072), (65536, 65536)])
async def test_max_frame_bytes(broker: StandIn, connect: Connect, agreed: int, expected: int) -> None:
    """The size of a frame is the one that the broker has set."""
    broker.max_frame_bytes = agreed
    with relies_on("max_frame_bytes: `Connection.connection_tune.frame_max`"):
        assert compat.max_frame_bytes(compat.aiormq_connection(await connect()), 4096) == expected


async def test_seconds_silent(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that aiormq gives up for missing heartbeats is known from one that was closed."""
    with relies_on("seconds_silent: the patience is (heartbeat + 1) * HEARTBEAT_GRACE_MULTIPLIER"):
        never = compat.aiormq_connection(await connect(heartbeat=0))
        assert compat.seconds_silent(never) is None
        monkeypatch.setattr(aiormq.connection.Connection, "HEARTBEAT_GRACE_MULTIPLIER", 0.25)
        connection = compat.aiormq_connection(await connect(heartbeat=1))
        assert compat.seconds_silent(connection) is None
        await ended(compat.connection_closing(connection))
        assert compat.seconds_silent(connection) == 0.5


async def test_heartbeats_for_what_is_taken_out(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the filter keeps everything for itself, its heartbeats keep aiormq from giving the connection up."""
    with relies_on("FrameFilter: any frame counts as a sign of life, a heartbeat among them"):
        # a patience of 1.5 s, where the filter feeds a heartbeat each second
        monkeypatch.setattr(aiormq.connection.Connection, "HEARTBEAT_GRACE_MULTIPLIER", 0.75)
        client = await connect(heartbeat=1)
        closing = compat.connection_closing(compat.aiormq_connection(client))
        client.kwargs["transport_factory"].frames.pause_reading()
        await asyncio.wait([closing], timeout=3.5)
        assert not closing.done()


async def test_blocked(broker: StandIn, connect: Connect) -> None:
    """Aiormq asks the broker for `connection.blocked`, and goes on without those frames, which the filter takes out."""
    with relies_on("BlockedReceiver: aiormq announces the capability `connection.blocked`"):
        client, heard = await connect(), Collected[str | None]()
        assert broker.asked[0].client_properties["capabilities"]["connection.blocked"]
        client.kwargs["transport_factory"].frames.watch(0, BlockedReceiver(heard))
        broker.send(0, commands.Connection.Blocked("low on memory"))
        broker.send(0, commands.Connection.Unblocked())
        assert await heard.take(2) == ["low on memory", None]
        await compat.open_channel(compat.aiormq_connection(client), confirms=True)


async def test_open_channel(broker: StandIn, connect: Connect) -> None:
    """A channel has a number, and confirms only if that is asked for."""
    with relies_on(
        "open_channel: `Connection.channel(publisher_confirms=)` returns aiormq's own Channel, with a number"
    ):
        assert (await over(connect)).number > 0
        assert "Confirm.Select" not in [frame.name for frame in broker.asked]
        await over(connect, confirms=True)
        assert "Confirm.Select" in [frame.name for frame in broker.asked]


async def test_channel_closing(broker: StandIn, connect: Connect) -> None:
    """The end of a channel comes with the broker's reason, as the exception of its code."""
    with relies_on("AmqpChannel.closing: done at the channel's end, with an exception by the reply code"):
        for code, kind in (
            (403, exceptions.ChannelAccessRefused),
            (404, exceptions.ChannelNotFoundEntity),
            (405, exceptions.ChannelLockedResource),
            (406, exceptions.ChannelPreconditionFailed),
        ):
            channel = await over(connect)
            closing = channel.closing
            assert not closing.done()
            broker.send(channel.number, commands.Channel.Close(code, f"CODE {code}", 0, 0))
            error = await ended(closing)
            assert type(error) is kind
            assert isinstance(error, exceptions.ChannelClosed)
            assert error.args[-1] == f"CODE {code}"


async def test_odd_names(broker: StandIn, connect: Connect) -> None:
    """Names that pamqp refuses reach the broker; what is too long does not, and costs only an error."""
    with relies_on("AmqpChannel: a command of pamqp checks names in `validate` alone"):
        channel = await over(connect)
        await channel.queue_declare(ODD_NAME, durable=True, arguments={"x-expires": 1000})
        await channel.exchange_declare(ODD_NAME, exchange_type="topic", durable=True)
        await channel.queue_bind(ODD_NAME, ODD_NAME, "key")
        await channel.exchange_bind(ODD_NAME, ODD_NAME, "key")
        await channel.consume(ODD_NAME, "tag", 1)
        await channel.queue_delete(ODD_NAME)
        asked = {frame.name: frame for frame in broker.asked}
        assert asked["Queue.Declare"].queue == ODD_NAME
        assert asked["Queue.Declare"].arguments == {"x-expires": 1000}
        assert asked["Exchange.Declare"].exchange_type == "topic"
        assert asked["Queue.Bind"].exchange == asked["Exchange.Bind"].source == ODD_NAME
        assert asked["Basic.Consume"].queue == asked["Queue.Delete"].queue == ODD_NAME
        with pytest.raises((ValueError, TypeError)):
            await channel.queue_declare(LONG_NAME)


async def test_options_of_declarations(broker: StandIn, connect: Connect) -> None:
    """Each option of a queue and of an exchange reaches the broker, and none that was not asked for."""
    with relies_on("AmqpChannel: the fields of `Queue.Declare`, `Exchange.Declare` and `Exchange.Bind`"):
        channel, options = await over(connect), ("passive", "durable", "exclusive", "auto_delete")
        for asked in options:
            await channel.queue_declare("celery", **{asked: True})  # type: ignore[arg-type]  # none of them is `arguments`
            assert [option for option in options if getattr(broker.asked[-1], option)] == [asked]
        for durable in (True, False):
            await channel.exchange_declare("orders", exchange_type="topic", durable=durable)
            assert bool(broker.asked[-1].durable) is durable
        await channel.exchange_bind("to", "from", "key")
        assert (broker.asked[-1].destination, broker.asked[-1].source) == ("to", "from")


async def test_depth(connect: Connect) -> None:
    """A declaration returns the number of messages."""
    with relies_on("AmqpChannel.queue_declare: `Channel.rpc` returns the answer, with `message_count`"):
        assert await (await over(connect)).queue_declare("celery", passive=True) == 3


async def test_consumers(broker: StandIn, connect: Connect) -> None:
    """A consumer that the broker ends is told by its tag; one that we end is not."""
    with relies_on("AmqpChannel.on_consumer_cancelled: `on_consumer_cancel_callbacks` gets the broker's basic.cancel"):
        channel, heard = await over(connect), Collected[str]()
        channel.on_consumer_cancelled(heard)
        await channel.consume("celery", "first", 7)
        await channel.consume("celery", "second", 7)
        qos = next(frame for frame in broker.asked if frame.name == "Basic.Qos")
        assert (qos.prefetch_count, qos.global_) == (7, False)
        await channel.cancel("first")
        broker.send(channel.number, commands.Basic.Cancel("second", True))
        assert await heard.take(1) == ["second"]


async def test_round_trip(broker: StandIn, connect: Connect) -> None:
    """A request that changes nothing waits for the broker."""
    with relies_on("AmqpChannel.round_trip: `Channel.flow(active=True)` is a request with an answer"):
        await (await over(connect)).round_trip()
        assert broker.asked[-1].name == "Channel.Flow"
        assert broker.asked[-1].active


async def test_close_twice(connect: Connect) -> None:
    """Closing a closed channel does nothing."""
    with relies_on("AmqpChannel.close: returns for a closed channel"):
        channel = await over(connect)
        await channel.close()
        await channel.close()


async def test_a_closed_connection(connect: Connect) -> None:
    """What aiormq raises on a closed connection counts as a lost one, and its text is not for a log."""
    with relies_on("CONNECTION_LOST, has_object_names: the errors of a channel on a closed connection"):
        client = await connect()
        connection = compat.aiormq_connection(client)
        channel = await compat.open_channel(connection, confirms=False)
        await client.close()
        for use in (compat.open_channel(connection, confirms=False), channel.queue_declare("celery")):
            with pytest.raises(compat.CONNECTION_LOST) as caught:
                await use
            assert compat.has_object_names(caught.value)
    assert not compat.has_object_names(exceptions.AMQPConnectionError("gone"))


async def test_a_stream_that_ends(broker: StandIn, connect: Connect) -> None:
    """A connection that is cut is known as cut: at login, and later."""
    with relies_on("is_stream_end: the error for a stream that ends, by type or by its first words"):
        client = await connect()
        closing = compat.connection_closing(compat.aiormq_connection(client))
        broker.cut()
        later = await ended(closing)
        assert compat.is_stream_end(later) or isinstance(later, ConnectionError), repr(later)
        broker.instead = {"Connection.StartOk": None}
        with pytest.raises(Exception) as caught:  # noqa: PT011  which one it is differs
            await connect()
        assert compat.is_stream_end(caught.value), repr(caught.value)
    assert not compat.is_stream_end(None)
    assert not compat.is_stream_end(exceptions.AMQPConnectionError("refused"))


async def test_closed_at_open(broker: StandIn, connect: Connect) -> None:
    """A virtual host that may not be used is known from other failures."""
    with relies_on("is_closed_at_open: `InvalidFrameError` names the frame `Connection.Close`"):
        close = commands.Connection.Close(530, "NOT_ALLOWED - vhost none not found", 10, 40)
        broker.instead = {"Connection.Open": pamqp.frame.marshal(close, 0)}
        with pytest.raises(exceptions.AMQPError) as caught:
            await connect()
        assert compat.is_closed_at_open(caught.value), repr(caught.value)
    assert not compat.is_closed_at_open(exceptions.AMQPConnectionError("gone"))
    assert not compat.is_closed_at_open(exceptions.InvalidFrameError("Basic.Ack"))


def test_refused_delivery_text() -> None:
    """A refused message has the broker's words, if it said any."""
    with relies_on("refused_delivery_text: `DeliveryError.frame`"):
        returned = exceptions.DeliveryError(None, commands.Basic.Return(312, "NO_ROUTE", "", "celery"))
        assert compat.refused_delivery_text(returned) == "NO_ROUTE"
        assert compat.refused_delivery_text(exceptions.DeliveryError(None, commands.Basic.Nack(1))) is None


def test_silence_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client libraries log under their own names, and are quiet unless their level is set on purpose."""
    with relies_on("silence_loggers: the loggers are named `aiormq…` and `aio_pika…`"):
        names = (aiormq.connection.log.name, aio_pika.log.get_logger("aio_pika.connection").name)
        assert [name.partition(".")[0] for name in names] == ["aiormq", "aio_pika"]
        for name in ("aiormq", "aio_pika"):
            monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
        monkeypatch.setattr(logging.getLogger("aio_pika"), "level", logging.WARNING)
        compat.silence_loggers()
        assert logging.getLogger("aiormq").level == logging.CRITICAL
        assert logging.getLogger("aio_pika").level == logging.WARNING
