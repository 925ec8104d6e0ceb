"""Dead-letter queues at hand: read without taking anything out, then send back or delete what is chosen.

Reading is consuming without an answer, since AMQP has no other way to look. So while a queue is looked into nobody else
can, and what is not chosen is given back at the end; if this process dies, the broker does that by itself. A letter is
sent back before it is taken out, so that a crash in between may repeat it and never loses it.
"""

import datetime as dt
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

import anyio
import attrs

from hybridpool._brokers.base import Broker
from hybridpool._message import Delivery
from hybridpool._protocol.dead_letter import again, dead_queue, revived
from hybridpool._protocol.dead_letter_view import StoredDeadLetter, read_letter
from hybridpool.errors import BrokerUnavailable, QueueNotFound

Result = TypeVar("Result")
#: seconds for each thing that is asked of the broker
_ANSWER = 20.0
#: seconds without a letter after which the rest is somebody else's: they were counted, and are gone
_SILENCE = 5.0
#: seconds to read one queue
_READING = 60.0

#: A quorum queue drops what it has delivered 20 times (RabbitMQ 4's default), and each look is a delivery: what has
#: been delivered this often is written anew, which sets the count back.
_DELIVERIES = 10

#: says of which letters the body is needed; to hold them all might not fit into memory
WantsBody: TypeAlias = Callable[[StoredDeadLetter], bool]


@attrs.frozen
class Found:
    """A letter at hand: what it says, and what settles it."""

    letter: StoredDeadLetter
    delivery: Delivery


class DeadLetters:
    """Letters at hand, in the order of their queues. Those that are not settled go back."""

    def __init__(self, broker: Broker, wants_body: WantsBody) -> None:
        self.found: list[Found] = []
        #: letters that were counted but did not come: another looks at them, or they were too many
        self.missed = 0
        self._broker = broker
        self._wants_body = wants_body
        self._open: dict[tuple[int, int], Delivery] = {}

    async def collect(self, queue: str) -> None:
        """Read what is ready in the dead-letter queue now; what comes meanwhile is not waited for.

        :param queue: the one whose letters they are.
        :raises BrokerError: if the broker refuses.
        """
        dead = dead_queue(queue)
        ready = await self._depth(dead)
        if not ready:
            return
        reading = _Reading(ready, self._wants_body)
        try:
            await _in_time(self._broker.consume(dead, 0, reading.take), f"{dead} cannot be read")
            await reading.done()
        finally:
            # before anything is given back, or it would come here again
            with anyio.CancelScope(shield=True):
                await _in_time(self._broker.cancel(dead), f"{dead} is still consumed")
        self._open |= {_key(delivery): delivery for delivery in reading.open}
        self.found += reading.found
        self.missed += ready - len(reading.found)

    async def send_back(self, found: Found, to: str | None) -> str:
        """Publish the message as it was, wait for the confirmation, and take the letter out; returns the queue.

        :param to: another queue than the one it came from.
        :raises BrokerError: if no queue takes it; the letter stays.
        """
        queue = to or found.letter.queue
        message = revived(found.delivery, queue, dt.datetime.now(dt.UTC))
        await _in_time(self._broker.publish(message), f"{found.letter.id} stays in {found.letter.dead}")
        self.drop(found)
        return queue

    def drop(self, found: Found) -> None:
        """Take the letter out."""
        self._open.pop(_key(found.delivery), None)
        self._broker.ack(found.delivery)

    async def give_back(self) -> None:
        """Give back what is not settled."""
        try:
            for key, delivery in tuple(self._open.items()):
                if _is_worn(delivery):
                    await _in_time(self._broker.publish(again(delivery, delivery.queue)), "its copy is not confirmed")
                    self._broker.ack(self._open.pop(key))
        finally:
            for delivery in self._open.values():
                self._broker.requeue(delivery)
            self._open.clear()

    async def _depth(self, dead: str) -> int:
        try:
            return await _in_time(self._broker.depth(dead), f"{dead} cannot be counted")
        except QueueNotFound:
            # a queue is declared with its first letter
            return 0


class _Reading:
    """Takes letters in until as many are here as were counted."""

    def __init__(self, wanted: int, wants_body: WantsBody) -> None:
        self.found: list[Found] = []
        self.open: list[Delivery] = []
        self._wanted = wanted
        self._wants_body = wants_body
        self._news = anyio.Event()

    def take(self, delivery: Delivery) -> None:
        """Take one in; called by the broker, so it must not raise."""
        if self.open and self.open[-1].channel != delivery.channel:
            # The connection was lost and came back, and so does all that was here.
            self.open.clear()
            self.found.clear()
        letter = read_letter(delivery)
        kept = delivery if _is_worn(delivery) or self._wants_body(letter) else attrs.evolve(delivery, body=b"")
        self.open.append(kept)
        if len(self.found) < self._wanted:
            self.found.append(Found(letter, kept))
        self._news.set()

    async def done(self) -> None:
        """Wait until all are here, or no more come."""
        with anyio.move_on_after(_READING):
            while len(self.found) < self._wanted:
                self._news = anyio.Event()
                with anyio.move_on_after(_SILENCE) as silence:
                    await self._news.wait()
                if silence.cancelled_caught:
                    return


@asynccontextmanager
async def dead_letters(broker: Broker, queues: Iterable[str], wants_body: WantsBody) -> AsyncGenerator[DeadLetters]:
    """Give the letters of these queues; on the way out those that are not settled go back.

    :raises BrokerError: if the broker refuses.
    """
    letters = DeadLetters(broker, wants_body)
    try:
        for queue in dict.fromkeys(queues):
            await letters.collect(queue)
        yield letters
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_ANSWER):
            await letters.give_back()
            await broker.flush()


def _is_worn(delivery: Delivery) -> bool:
    count = delivery.headers.get("x-delivery-count")
    return isinstance(count, int) and count >= _DELIVERIES


def _key(delivery: Delivery) -> tuple[int, int]:
    return delivery.channel, delivery.tag


async def _in_time(step: Coroutine[object, object, Result], otherwise: str) -> Result:
    """Do one thing; a broker that takes a message and does not confirm it must not hold us for ever.

    :param otherwise: what holds if it does not answer.
    :raises BrokerUnavailable: if it does not answer.
    """
    with anyio.move_on_after(_ANSWER):
        return await step
    raise BrokerUnavailable(f"the broker does not answer within {_ANSWER:g} s; {otherwise}")
