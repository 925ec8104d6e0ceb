"""One queue's ready messages, in the order in which they were published, requeued ones included."""

import asyncio
import heapq
from itertools import count

import attrs

from hybridpool._message import Delivery, Outgoing, QueueSpec


@attrs.define(order=True)
class Stored:
    """A message that is in a queue, or delivered and not settled."""

    #: position in the queue: higher priorities first, then the order of publishing, also after a requeue
    position: tuple[int, int]
    message: Outgoing = attrs.field(order=False)
    #: on the loop's clock, in seconds
    expires_at: float | None = attrs.field(order=False)
    redelivered: bool = attrs.field(default=False, order=False)

    def delivery(self, *, queue: str, tag: int, channel: int) -> Delivery:
        """Return the message as a consumer gets it."""
        message = self.message
        return Delivery(
            queue=queue,
            tag=tag,
            channel=channel,
            redelivered=self.redelivered,
            headers=dict(message.headers),
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
            priority=message.priority,
            exchange=message.exchange,
            routing_key=message.routing_key,
            body=message.body,
        )


class MemoryQueue:
    """The messages of one queue that are ready."""

    def __init__(self, spec: QueueSpec, owner: object | None) -> None:
        """Make an empty queue.

        :param owner: the only connection that may use it, if the queue is private; otherwise None.
        """
        self.spec = spec
        self.owner = owner
        self._ready: list[Stored] = []
        self._numbers = count()

    def purge(self) -> int:
        """Delete the messages that are ready; return how many."""
        count = len(self)
        self._ready = []
        return count

    def __len__(self) -> int:
        now = asyncio.get_running_loop().time()
        self._ready = [stored for stored in self._ready if stored.expires_at is None or stored.expires_at > now]
        heapq.heapify(self._ready)
        return len(self._ready)

    @property
    def is_full(self) -> bool:
        """Whether it takes no more messages."""
        return self.spec.max_length is not None and len(self) >= self.spec.max_length

    def put(self, message: Outgoing) -> None:
        """Add a new message at the end."""
        expires_at = None
        if message.expiration is not None:
            expires_at = asyncio.get_running_loop().time() + message.expiration / 1000
        position = -min(message.priority or 0, self.spec.max_priority or 0), next(self._numbers)
        heapq.heappush(self._ready, Stored(position, message, expires_at))

    def requeue(self, stored: Stored) -> None:
        """Return a message to its old position."""
        stored.redelivered = True
        heapq.heappush(self._ready, stored)

    def take(self) -> Stored | None:
        """Return the oldest message that has not expired."""
        now = asyncio.get_running_loop().time()
        while self._ready:
            stored = heapq.heappop(self._ready)
            if stored.expires_at is None or stored.expires_at > now:
                return stored
        return None
