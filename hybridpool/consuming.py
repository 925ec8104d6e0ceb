"""Which queues are consumed, and how much of each is here at once: it follows the pool's size while the worker runs."""

import anyio

from hybridpool import events
from hybridpool.brokers.base import Broker, Deliver
from hybridpool.config import PoolRange, Settings
from hybridpool.errors import BrokerUnavailable
from hybridpool.message import QUORUM
from hybridpool.policy.prefetch import prefetch
from hybridpool.protocol.queues import task_queue


class Consuming:
    """Keeps the consumers as they should be."""

    def __init__(self, broker: Broker, settings: Settings, sizes: PoolRange, bus: events.Bus) -> None:
        self._broker = broker
        self._settings = settings
        self._sizes = sizes
        self._bus = bus
        self._weights = dict(settings.worker_queue_weights or ())
        self._size = sizes.start
        self._resized = anyio.Event()
        #: set when tasks can come
        self.ready = anyio.Event()

    def resize(self, size: int) -> None:
        """Hold what so many children need."""
        self._size = size
        self._resized.set()

    async def run(self, deliver: Deliver) -> None:
        """Consume for ever, as soon as there is a broker."""
        while True:
            await self._broker.connected(None)
            try:
                for queue in self._settings.queues:
                    await self._broker.declare(task_queue(queue, self._settings, is_target=self._may_be_target))
                while True:
                    self._resized = anyio.Event()
                    for queue in self._settings.queues:
                        held = self._held(queue)
                        most = self._settings.worker_max_message_size
                        await self._broker.consume(queue, held, deliver, alone_above=most)
                        self._bus.emit(events.ConsumingStarted(queue, held))
                    self.ready.set()
                    await self._resized.wait()
            except BrokerUnavailable:
                # Lost in the middle of this; the adapter reconnects, and we begin again.
                continue

    async def cancel(self) -> None:
        """Consume no more."""
        for queue in self._settings.queues:
            await self._broker.cancel(queue)

    @property
    def _may_be_target(self) -> bool:
        # Celery's clients send delays through the broker where queues are quorum queues, and else to the queue itself.
        return self._settings.task_default_queue_type == QUORUM

    def _held(self, queue: str) -> int:
        """Messages of a queue to hold; 0: no limit.

        What waits here is run in the order in which it came, and each message that is done makes room for one more of
        its queue. So queues that are never empty have their turns in the ratio of what is held of them.
        """
        return prefetch(
            size=self._size,
            ceiling=self._sizes.ceiling,
            multiplier=self._settings.worker_prefetch_multiplier,
            disabled=self._settings.worker_disable_prefetch,
        ) * self._weights.get(queue, 1)
