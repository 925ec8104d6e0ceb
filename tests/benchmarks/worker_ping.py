"""How soon a worker answers a ping: a Celery client's, and one whose queue for answers is there already."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import kombu
from celery import Celery

from tests.benchmarks.worker_bench import Bench, Trouble
from tests.benchmarks.worker_steady import SPIN, Figures, Sizes
from tests.benchmarks.worker_systems import System

#: seconds after which a ping is lost
ECHO = 1.0
#: tasks that wait at least while pings are sent
BACKLOG = 500

Ask = Callable[[], bool]


def ping(bench: Bench, system: System, sizes: Sizes) -> dict[str, Figures]:
    """A ping answered, ms: by `app.control.ping` of Celery, or with the queue for answers made beforehand.

    Busy: both children have 1 ms tasks waiting. Idle: nothing is done, so that is what the client and the broker take.
    """
    queue = bench.queue()
    template = bench.console.template(system, queue, "spin", SPIN)
    with Celery("client", broker=bench.node.url) as client, bench.worker(system, queue) as worker:
        worker.put(template, 4)
        worker.until_done()

        def keep_busy() -> None:
            if worker.expected - worker.done() < BACKLOG:
                worker.put(template, BACKLOG)

        figures: Figures = {}
        with _ready_client(client) as ready:
            asks: dict[str, Ask] = {"Celery's": lambda: _celery(client), "ready": ready}
            for who, ask in asks.items():
                busy = _times(ask, sizes.pings, keep_busy)
                figures |= {f"{who}: p50": _at(busy, 0.5), f"{who}: p99": _at(busy, 0.99)}
            worker.until_done()
            figures |= {f"{who}, idle": _at(_times(ask, sizes.pings, None), 0.5) for who, ask in asks.items()}
        worker.stop(queue)
    return {system.name: figures}


def _times(ask: Ask, count: int, before_each: Callable[[], None] | None) -> list[float]:
    found: list[float] = []
    for _ in range(count):
        if before_each is not None:
            before_each()
        begun = time.perf_counter()
        if not ask():
            raise Trouble("none: it does not answer")
        found.append(1000 * (time.perf_counter() - begun))
    return sorted(found)


def _at(ordered: list[float], share: float) -> float:
    return ordered[int(len(ordered) * share)]


def _celery(client: Celery) -> bool:
    # The first answer will do: there is but one worker.
    return bool(client.control.ping(timeout=ECHO, limit=1))


@contextmanager
def _ready_client(client: Celery) -> Generator[Ask]:
    """Make the queue for answers; what is given asks, and waits for the answer."""
    transport = client.control.transport
    heard: list[object] = []
    with client.connection_for_write() as connection:
        # Its stubs leave half of it untyped.
        library: Any = kombu
        channel = connection.default_channel
        consumer = library.Consumer(channel, [transport.get_reply_queue()(channel)], accept=["json"], no_ack=True)
        consumer.register_callback(lambda body, _: heard.append(body))
        producer = library.Producer(channel, transport.exchange, serializer="json", auto_declare=False)

        def ask() -> bool:
            heard.clear()
            reply_to = {"exchange": transport.reply_exchange.name, "routing_key": transport.oid}
            order = {
                "method": "ping",
                "arguments": {},
                "destination": None,
                "ticket": str(uuid4()),
                "reply_to": reply_to,
            }
            producer.publish(order, headers={"clock": 1, "expires": time.time() + ECHO})
            while not heard:
                connection.drain_events(timeout=ECHO)
            return True

        with consumer:
            yield ask
