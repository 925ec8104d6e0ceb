"""The client library's exceptions, and what becomes of them."""

import asyncio
import errno
import os

import pytest

from hybridpool._brokers.rabbitmq.amqp.frame_filter import FrameFilter
from hybridpool._brokers.rabbitmq.errors import translated
from hybridpool.errors import BrokerUnavailable

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


async def test_a_connection_reset() -> None:
    """A connection reset or timeout becomes BrokerUnavailable."""
    for error in (ConnectionResetError(errno.ECONNRESET, "reset"), TimeoutError(errno.ETIMEDOUT, "timed out")):
        with pytest.raises(BrokerUnavailable), translated("publish"):
            raise error
