"""The benchmark's tasks as dramatiq's actors."""

import importlib
import os
from typing import Any

from tests.benchmarks import worker_work as work

# not by name: the tools that check this file do not have it
dramatiq: Any = importlib.import_module("dramatiq")

work.begin()
# the default vhost as pika spells it
_URL = os.environ[work.BROKER].removesuffix("//") + "/%2f"
broker = importlib.import_module("dramatiq.brokers.rabbitmq").RabbitmqBroker(url=_URL)
dramatiq.set_broker(broker)
actors = {
    name: dramatiq.actor(getattr(work, name), actor_name=name, queue_name=os.environ[work.QUEUE]) for name in work.TASKS
}


def send(task: str, *args: object) -> None:
    """Send one call."""
    actors[task].send(*args)
    broker.close()
