"""Consumes the worker's queues; the prefetch of each follows the number of children while the worker runs."""

import anyio

from hybridpool import events
from hybridpool._brokers.base import Broker, Deliver
from hybridpool._config import PoolRange, Settings
from hybridpool._message import QUORUM
from hybridpool._policy.prefetch import prefetch
from hybridpool._protocol.queues import task_queue
from hybridpool.errors import BrokerUnavailable


class QueueConsumers:
    """Starts the consumers, and keeps their prefetch as the number of children needs it."""

    def __init__(self, broker: Broker, settings: Settings, sizes: PoolRange, bus: events.Bus) -> None:
        self._broker = broker
        self._settings = settings
        self._sizes = sizes
        self._bus = bus
        self._weights = dict(settings.worker_queue_weights or ())
        self._size = sizes.start
        self._resized = anyio.Event()
        #: by queue: messages held for long since its consumer was started, and queues that need another consumer
        self._held_long: dict[str, int] = {}
        self._to_replace: set[str] = set()
        #: set when tasks can come
        self.ready = anyio.Event()

    def resize(self, size: int) -> None:
        """Set the number of children that the prefetch is for."""
        self._size = size
        self._resized.set()

    def replace_place(self, queue: str) -> None:
        """Note that a message of the queue is held here for long, and keeps a place in the prefetch that others need.

        A consumer's prefetch counts the messages that this consumer brought. So when half of it is held, the consumer
        is replaced by another one, which has the whole prefetch again.
        """
        held = self._held_long[queue] = self._held_long.get(queue, 0) + 1
        if held >= max(1, self._held(queue) // 2):
            self._held_long[queue] = 0
            self._to_replace.add(queue)
            self._resized.set()

    async def run(self, deliver: Deliver) -> None:
        """Consume until cancelled, as soon as there is a connection."""
        while True:
            await self._broker.connected(None)
            try:
                for queue in self._settings.queues:
                    await self._broker.declare(task_queue(queue, self._settings, is_target=self._may_be_target))
                size = None
                while True:
                    self._resized = anyio.Event()
                    to_replace, self._to_replace = self._to_replace, set()
                    changed = self._settings.queues if size != self._size else to_replace
                    size = self._size
                    for queue in changed:
                        held = self._held(queue)
                        most = self._settings.worker_max_message_size
                        await self._broker.consume(queue, held, deliver, alone_above=most)
                        self._bus.emit(events.ConsumingStarted(queue, held))
                    self.ready.set()
                    await self._resized.wait()
            except BrokerUnavailable:
                # The connection was lost in between; the adapter makes another, and this starts again.
                continue

    async def cancel(self) -> None:
        """Stop consuming."""
        for queue in self._settings.queues:
            await self._broker.cancel(queue)

    @property
    def _may_be_target(self) -> bool:
        # Celery's clients delay through the broker if queues are quorum queues, otherwise in the queue itself.
        return self._settings.task_default_queue_type == QUORUM

    def _held(self, queue: str) -> int:
        """Messages of a queue to hold; 0: no limit.

        Messages that wait here are run in the order in which they came, and each one that is settled lets the broker
        deliver one more of its queue. So queues that are never empty are served in the ratio of their prefetches.
        """
        return prefetch(
            size=self._size,
            ceiling=self._sizes.ceiling,
            multiplier=self._settings.worker_prefetch_multiplier,
            disabled=self._settings.worker_disable_prefetch,
        ) * self._weights.get(queue, 1)
