"""The client library's exceptions, and what becomes of them."""

import asyncio
import errno
import os

import pytest
from aiormq import exceptions

from hybridpool._brokers.rabbitmq.amqp.frame_filter import FrameFilter
from hybridpool._brokers.rabbitmq.errors import CUT, MAX_REASON_CHARS, Unusable, is_refusal, translated
from hybridpool.errors import (
    AccessRefused,
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    CannotEncode,
    MessageTooLarge,
    QueueFull,
    QueueNotFound,
)

pytestmark = pytest.mark.anyio


class Full(asyncio.Transport):
    """A connection whose network takes nothing more."""

    is_lost = False

    def is_closing(self) -> bool:
        """Tell whether it is lost."""
        return self.is_lost


async def test_a_network_that_swallows_everything() -> None:
    """A publisher that waits to write gets BrokerUnavailable, whatever the kernel calls the loss."""
    frames = FrameFilter(asyncio.get_running_loop())
    transport = Full()
    frames.connection_made(transport)
    frames.attach(transport)
    frames.pause_writing()

    async def write() -> None:
        with translated("publish"):
            await frames.drain()

    writing = asyncio.create_task(write())
    await asyncio.sleep(0)
    transport.is_lost = True
    frames.connection_lost(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
    with pytest.raises(BrokerUnavailable, match="publish: "):
        await writing


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ConnectionResetError(errno.ECONNRESET, "reset"), BrokerUnavailable, "publish: reset"),
        (TimeoutError(), BrokerUnavailable, "publish: no answer in time"),
        (exceptions.AMQPConnectionError("Server connection reset: [Errno 104]"), BrokerUnavailable, f"publish: {CUT}"),
        (exceptions.ChannelInvalidStateError("<Channel at 0x7f> of amqp://u:secret@h"), BrokerUnavailable, "closed"),
        (RuntimeError("<Connection at 0x7f> of amqp://u:secret@h"), BrokerUnavailable, "publish: closed"),
        (ValueError("routing key\n  is too long"), CannotEncode, "publish: routing key is too long"),
        (TypeError("x" * 500), CannotEncode, f"publish: {'x' * (MAX_REASON_CHARS - 1)}…"),
        (exceptions.ChannelAccessRefused("ACCESS_REFUSED"), AccessRefused, "publish: ACCESS_REFUSED"),
        (exceptions.ChannelNotFoundEntity("NOT_FOUND"), QueueNotFound, "publish: NOT_FOUND"),
        (exceptions.ChannelPreconditionFailed("body 9 larger than 8"), MessageTooLarge, "larger than 8"),
        (exceptions.ChannelPreconditionFailed("inequivalent arg"), BrokerRefused, "inequivalent arg"),
        (exceptions.ChannelLockedResource("RESOURCE_LOCKED"), BrokerError, "publish: RESOURCE_LOCKED"),
        (QueueFull("of ours"), QueueFull, "of ours"),
    ],
)
async def test_kinds_and_texts(error: Exception, kind: type[BrokerError], text: str) -> None:
    """Each error becomes the kind that says what can be done, with one short line and no address."""
    with pytest.raises(BrokerError) as caught, translated("publish"):
        raise error
    assert type(caught.value) is kind
    assert str(caught.value).endswith(text)
    assert "secret" not in str(caught.value)


async def test_only_a_cancelled_task_is_cancelled() -> None:
    """A future that the client library cancels is a lost connection; a task that is cancelled stays so."""
    waits: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def publish() -> None:
        with translated("publish"):
            await waits

    task = asyncio.create_task(publish())
    await asyncio.sleep(0)
    waits.cancel()
    with pytest.raises(BrokerUnavailable, match="publish: closed"):
        await task
    waits = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(publish())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize(
    ("error", "is_final"),
    [
        (exceptions.ConnectionClosed(403, "ACCESS_REFUSED"), True),
        (exceptions.ConnectionClosed(530, "NOT_ALLOWED"), True),
        (exceptions.ConnectionClosed(320, "CONNECTION_FORCED"), False),
        (exceptions.AuthenticationError("wrong password"), True),
        (Unusable("no certificate"), True),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), False),
    ],
)
def test_refusals(error: Exception, is_final: bool) -> None:
    """A wrong password, virtual host or certificate stays wrong; a broker that is away may come back."""
    assert is_refusal(error) is is_final


async def test_a_connection_reset() -> None:
    """A connection reset or timeout becomes BrokerUnavailable."""
    for error in (ConnectionResetError(errno.ECONNRESET, "reset"), TimeoutError(errno.ETIMEDOUT, "timed out")):
        with pytest.raises(BrokerUnavailable), translated("publish"):
            raise error
