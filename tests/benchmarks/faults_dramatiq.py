"""The app of the fault table for dramatiq."""

import importlib
import os
from collections.abc import Sequence

from tests.benchmarks import faults_work as work

# not by name: the tools that check this file do not have them
dramatiq = importlib.import_module("dramatiq")
rabbitmq = importlib.import_module("dramatiq.brokers.rabbitmq")

# its driver reads the second slash as a vhost without a name
broker = rabbitmq.RabbitmqBroker(url=os.environ[work.BROKER].removesuffix("/"))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=os.environ[work.QUEUE])
def number(name: str, gate: str) -> None:
    """Do a numbered piece of work."""
    work.work(name, gate)


def send(calls: Sequence[tuple[str, str]]) -> None:
    """Send all calls in their order."""
    for call in calls:
        number.send(*call)
    broker.close()
