"""Access to dead-letter queues: reads messages without removing them, then sends back or deletes chosen ones.

Reading is consuming without acknowledgement, since AMQP has no other way to look. So while a queue is read, no other
program can read it. Messages that are not chosen are requeued at the end; if this process dies, the broker requeues
them. A message is sent back before it is removed, so a crash in between may duplicate it and never loses it.
"""

import datetime as dt
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

import anyio
import attrs

from hybridpool._brokers.base import Broker
from hybridpool._message import Delivery
from hybridpool._protocol.dead_letter import copy_message, dead_queue, restore_message
from hybridpool._protocol.dead_letter_view import StoredDeadLetter, read_dead_letter
from hybridpool.errors import BrokerUnavailable, QueueNotFound

Result = TypeVar("Result")
#: seconds for each operation of the broker
_BROKER_TIMEOUT_S = 20.0
#: seconds without a message after which the rest, which was counted, is taken as consumed by another program
_MAX_GAP_S = 5.0
#: seconds to read one queue
_READ_TIMEOUT_S = 60.0

#: A quorum queue drops a message after 20 deliveries (RabbitMQ 4's default), and each reading is a delivery: a message
#: that was delivered this often is published again, which resets the count.
_MAX_DELIVERIES = 10

#: whether the body of a message is needed; all bodies together might not fit into memory
WantsBody: TypeAlias = Callable[[StoredDeadLetter], bool]


@attrs.frozen
class Found:
    """A dead letter that was read, and its unsettled delivery."""

    letter: StoredDeadLetter
    delivery: Delivery


class DeadLetters:
    """The dead letters that were read, in the order of their queues. Those that are not settled are requeued."""

    def __init__(self, broker: Broker, wants_body: WantsBody) -> None:
        self.found: list[Found] = []
        #: dead letters that were counted but not received: another program reads them, or there were too many
        self.missed = 0
        self._broker = broker
        self._wants_body = wants_body
        self._open: dict[tuple[int, int], Delivery] = {}

    async def collect(self, queue: str) -> None:
        """Read the messages that are in the dead-letter queue now.

        :param queue: the queue that they came from.
        :raises BrokerError: if the broker refuses.
        """
        dead = dead_queue(queue)
        ready = await self._depth(dead)
        if not ready:
            return
        reading = _Reading(ready, self._wants_body)
        try:
            await _with_timeout(self._broker.consume(dead, 0, reading.take), f"{dead} cannot be read")
            await reading.done()
        finally:
            # before messages are requeued, or they would be delivered here again
            with anyio.CancelScope(shield=True):
                await _with_timeout(self._broker.cancel(dead), f"{dead} is still consumed")
        self._open |= {_key(delivery): delivery for delivery in reading.open}
        self.found += reading.found
        self.missed += ready - len(reading.found)

    async def send_back(self, found: Found, to: str | None) -> str:
        """Publish the original message, wait for the confirmation, and remove the dead letter; return the queue.

        :param to: the queue; None: the one it came from.
        :raises BrokerError: if no queue takes it; the dead letter stays.
        """
        queue = to or found.letter.queue
        message = restore_message(found.delivery, queue, dt.datetime.now(dt.UTC))
        await _with_timeout(self._broker.publish(message), f"{found.letter.id} stays in {found.letter.dead}")
        self.drop(found)
        return queue

    def drop(self, found: Found) -> None:
        """Remove the dead letter."""
        self._open.pop(_key(found.delivery), None)
        self._broker.ack(found.delivery)

    async def give_back(self) -> None:
        """Requeue the messages that are not settled."""
        try:
            for key, delivery in tuple(self._open.items()):
                if _is_often_delivered(delivery):
                    await _with_timeout(
                        self._broker.publish(copy_message(delivery, delivery.queue)), "its copy is not confirmed"
                    )
                    self._broker.ack(self._open.pop(key))
        finally:
            for delivery in self._open.values():
                self._broker.requeue(delivery)
            self._open.clear()

    async def _depth(self, dead: str) -> int:
        try:
            return await _with_timeout(self._broker.depth(dead), f"{dead} cannot be counted")
        except QueueNotFound:
            # a queue is declared with its first message
            return 0


class _Reading:
    """Receives messages until as many have arrived as were counted."""

    def __init__(self, wanted: int, wants_body: WantsBody) -> None:
        self.found: list[Found] = []
        self.open: list[Delivery] = []
        self._wanted = wanted
        self._wants_body = wants_body
        self._arrived = anyio.Event()

    def take(self, delivery: Delivery) -> None:
        """Receive a message; called by the broker, so it must not raise."""
        if self.open and self.open[-1].channel != delivery.channel:
            # The connection was lost and restored: the broker delivers all messages again.
            self.open.clear()
            self.found.clear()
        letter = read_dead_letter(delivery)
        kept = (
            delivery if _is_often_delivered(delivery) or self._wants_body(letter) else attrs.evolve(delivery, body=b"")
        )
        self.open.append(kept)
        if len(self.found) < self._wanted:
            self.found.append(Found(letter, kept))
        self._arrived.set()

    async def done(self) -> None:
        """Wait until all have arrived, or no more do."""
        with anyio.move_on_after(_READ_TIMEOUT_S):
            while len(self.found) < self._wanted:
                self._arrived = anyio.Event()
                with anyio.move_on_after(_MAX_GAP_S) as gap:
                    await self._arrived.wait()
                if gap.cancelled_caught:
                    return


@asynccontextmanager
async def dead_letters(broker: Broker, queues: Iterable[str], wants_body: WantsBody) -> AsyncGenerator[DeadLetters]:
    """Read the dead letters of these queues; on exit those that are not settled are requeued.

    :raises BrokerError: if the broker refuses.
    """
    letters = DeadLetters(broker, wants_body)
    try:
        for queue in dict.fromkeys(queues):
            await letters.collect(queue)
        yield letters
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_BROKER_TIMEOUT_S):
            await letters.give_back()
            await broker.flush()


def _is_often_delivered(delivery: Delivery) -> bool:
    count = delivery.headers.get("x-delivery-count")
    return isinstance(count, int) and count >= _MAX_DELIVERIES


def _key(delivery: Delivery) -> tuple[int, int]:
    return delivery.channel, delivery.tag


async def _with_timeout(step: Coroutine[object, object, Result], otherwise: str) -> Result:
    """Run an operation of the broker with a timeout, as a broker may never confirm a message.

    :param otherwise: the consequence of a timeout, for the error.
    :raises BrokerUnavailable: if it does not answer.
    """
    with anyio.move_on_after(_BROKER_TIMEOUT_S):
        return await step
    raise BrokerUnavailable(f"the broker does not answer within {_BROKER_TIMEOUT_S:g} s; {otherwise}")
