"""The benchmark's tasks behind one subscriber of FastStream, which has no tasks: the first argument names it."""

import asyncio
import importlib
import os
from typing import Any

from tests.benchmarks import lanes_work
from tests.benchmarks import worker_work as work

# not by name: the tools that check this file do not have it
faststream: Any = importlib.import_module("faststream")
rabbit: Any = importlib.import_module("faststream.rabbit")

work.begin()
QUEUE = rabbit.RabbitQueue(os.environ[work.QUEUE], durable=True)
_PREFETCH = os.environ.get(work.PREFETCH)
broker = rabbit.RabbitBroker(
    os.environ[work.BROKER],
    default_channel=rabbit.Channel(prefetch_count=int(_PREFETCH)) if _PREFETCH else None,
)
app = faststream.FastStream(broker)


@broker.subscriber(QUEUE)
async def run(call: list[Any]) -> None:
    """Run one on the loop, a millisecond's work too: its threads would share one lock."""
    name, *args = call
    if name in lanes_work.COROUTINES:
        await lanes_work.COROUTINES[name](*args)
    else:
        getattr(work, name)(*args)


def send(task: str, *args: object) -> None:
    """Send one message, to a queue that is there."""

    async def sent() -> None:
        # not a start, which would consume
        await broker.connect()
        await broker.declare_queue(QUEUE)
        await broker.publish([task, *args], queue=QUEUE)
        await broker.stop()

    asyncio.run(sent())
