"""Which queues are consumed, and how much of each is here at once: it follows the pool's size while the worker runs."""

import anyio

from hybridpool import events
from hybridpool._brokers.base import Broker, Deliver
from hybridpool._config import PoolRange, Settings
from hybridpool._message import QUORUM
from hybridpool._policy.prefetch import prefetch
from hybridpool._protocol.queues import task_queue
from hybridpool.errors import BrokerUnavailable


class QueueConsumers:
    """Keeps the consumers as they should be."""

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
        self._crowded: set[str] = set()
        #: set when tasks can come
        self.ready = anyio.Event()

    def resize(self, size: int) -> None:
        """Hold what so many children need."""
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
            self._crowded.add(queue)
            self._resized.set()

    async def run(self, deliver: Deliver) -> None:
        """Consume for ever, as soon as there is a broker."""
        while True:
            await self._broker.connected(None)
            try:
                for queue in self._settings.queues:
                    await self._broker.declare(task_queue(queue, self._settings, is_target=self._may_be_target))
                size = None
                while True:
                    self._resized = anyio.Event()
                    crowded, self._crowded = self._crowded, set()
                    changed = self._settings.queues if size != self._size else crowded
                    size = self._size
                    for queue in changed:
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
