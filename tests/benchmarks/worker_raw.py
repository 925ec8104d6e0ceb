"""What a client can do at best: take messages and acknowledge them, with nothing in between.

    python -m tests.benchmarks.worker_raw aio-pika|aiormq EACH     acknowledge every EACH-th, and all before it

Run by the benchmark of workers, with its environment.
"""

import asyncio
import os
import signal
import sys
from typing import Any

import aio_pika
import aiormq
import uvloop

from tests.benchmarks import worker_work as work

PREFETCH = 500


async def with_aio_pika(each: int) -> None:
    """`Queue.consume`."""
    connection = await aio_pika.connect(os.environ[work.BROKER])
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(PREFETCH)
        queue = await channel.declare_queue(os.environ[work.QUEUE], durable=True)
        taken = 0

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            nonlocal taken
            work.count()
            taken += 1
            if taken % each == 0:
                await message.ack(multiple=each > 1)

        await queue.consume(take)
        await _told_to_stop()


async def with_aiormq(each: int) -> None:
    """A callback of the bare channel."""
    connection = await aiormq.connect(os.environ[work.BROKER])
    channel = await connection.channel()
    await channel.basic_qos(prefetch_count=PREFETCH)
    taken = 0

    async def take(message: Any) -> None:
        nonlocal taken
        work.count()
        taken += 1
        if taken % each == 0:
            await channel.basic_ack(message.delivery_tag, multiple=each > 1, wait=False)

    await channel.basic_consume(os.environ[work.QUEUE], take)
    await _told_to_stop()
    await connection.close()


async def _told_to_stop() -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()


if __name__ == "__main__":
    uvloop.run({"aio-pika": with_aio_pika, "aiormq": with_aiormq}[sys.argv[1]](int(sys.argv[2])))
