"""The app of the fault table for taskiq, with its broker for RabbitMQ."""

import asyncio
import importlib
import os
from collections.abc import Sequence

from tests.benchmarks import faults_work as work

# not by name: the tools that check this file do not have it
taskiq_aio_pika = importlib.import_module("taskiq_aio_pika")

QUEUE = os.environ[work.QUEUE]
broker = taskiq_aio_pika.AioPikaBroker(
    os.environ[work.BROKER],
    # else what is sent for one worker would also go to the queues of those before it
    exchange=taskiq_aio_pika.Exchange(name=QUEUE),
    task_queues=[taskiq_aio_pika.Queue(name=QUEUE)],
    dead_letter_queue=taskiq_aio_pika.Queue(name=f"{QUEUE}.dead"),
)
# not as a decorator, which would hide the function from its process pool
number = broker.task(task_name="number")(work.work)


def send(calls: Sequence[tuple[str, str]]) -> None:
    """Send all calls in their order; return when the broker has them."""

    async def send_all() -> None:
        await broker.startup()
        for call in calls:
            await number.kiq(*call)
        await broker.shutdown()

    asyncio.run(send_all())
