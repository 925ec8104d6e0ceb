"""What the broker is told of messages, and what of that it may not have heard.

When a connection is lost, the broker has everything back that is not acknowledged. What is at work goes on, and what is
delivered again is known again: the run that goes on is its run, and what is done is not done twice.

Acknowledgements are not confirmed. So now and then the broker is asked something on the same channel: when it answers,
it has read every acknowledgement before the question, and none of those messages can come again.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import attrs

from hybridpool import events
from hybridpool.brokers.base import Broker
from hybridpool.errors import BrokerError
from hybridpool.message import Delivery, Head
from hybridpool.policy.comeback import Comebacks, Excuses, Key, head_key
from hybridpool.policy.settlement import Terms

#: seconds after an acknowledgement until the broker is asked whether it has read it
ASK_AFTER_S: Final = 0.5
#: messages that wait here for the broker to take something, beyond those that a consumer's prefetch allows; more of
#: them keep their places, and in the end the worker takes nothing more from their queue
MAX_HELD: Final = 256
#: bytes of their bodies, likewise
MAX_HELD_BYTES: Final = 256 * 1024 * 1024
#: headers that the broker changes from one delivery of a message to the next (quorum queues)
_COUNTED_BY_BROKER: Final = frozenset({"x-delivery-count", "x-acquired-count"})


@attrs.define(eq=False)
class Received:
    """A message with its head read and its terms known: what is settled in the end."""

    delivery: Delivery
    head: Head
    terms: Terms
    #: it was acknowledged before it started
    acknowledged: bool = False
    #: seconds until its next attempt, once that is decided
    wait: float = 0.0
    #: how its body is to be read, if that is not said by its content type alone
    reading: str | None = None
    #: times that it only waited here, in a row, when the connection was lost
    excused: int = 0


class Seen(NamedTuple):
    """A message as it came, before it is known whether it is settled."""

    delivery: Delivery
    head: Head


class Answering:
    """Answers messages."""

    def __init__(self, broker: Broker, bus: events.Bus, make_room: Callable[[str], None] = lambda _: None) -> None:
        """:param make_room: called with a queue of which one more message is held for long, and keeps a place."""
        self._broker = broker
        self._bus = bus
        self._make_room = make_room
        self.comebacks = Comebacks[Received | Seen, Received](_key_of)
        #: run, and not settled yet
        self.unsettled: set[Received] = set()
        self._held: set[Received] = set()
        self._is_full_said = False
        self._excuses = Excuses()
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._is_closed = False

    def acknowledge(self, received: Received, *, comes_again: bool = False) -> None:
        """Tell the broker that the message is done with.

        :param comes_again: it was published again as it was, and must not be taken for what is done.
        """
        if comes_again:
            self.comebacks.forget(received)
        else:
            self.comebacks.answered(received)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(ASK_AFTER_S, self._ask)
        self._broker.ack(received.delivery)

    def give_back(self, received: Received) -> None:
        """Let the broker deliver the message again, as if it had never been here."""
        self.comebacks.forget(received)
        self._broker.requeue(received.delivery)

    def hold(self, received: Received) -> None:
        """Note that a message waits here for long, and let another one be taken in its place."""
        if received.acknowledged or received in self._held:
            return
        self._held.add(received)
        self._replace(received)

    def release(self, received: Received) -> None:
        """Note that a message waits no more."""
        self._held.discard(received)
        if not self._held:
            self._is_full_said = False

    def _replace(self, held: Received) -> None:
        size = sum(len(one.delivery.body) for one in self._held)
        if len(self._held) <= MAX_HELD and size <= MAX_HELD_BYTES:
            self._make_room(held.delivery.queue)
        elif not self._is_full_said:
            self._is_full_said = True
            self._bus.emit(events.TooManyHeld(held.delivery.queue, len(self._held)))

    def close(self) -> None:
        """Ask the broker nothing more; what is asked now ends by itself."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _ask(self) -> None:
        if not self._is_closed:
            self._asking = asyncio.ensure_future(self._learn())

    async def _learn(self) -> None:
        """Forget what the broker has certainly heard."""
        self.comebacks.ask()
        try:
            await self._broker.answers_read()
        except BrokerError:
            pass  # the connection is lost, and what was asked about is expected to come again
        else:
            self.comebacks.heard()
        finally:
            self._timer = None
            if self.comebacks.is_unsure and not self._is_closed:
                self._timer = asyncio.get_running_loop().call_later(ASK_AFTER_S, self._ask)

    def lost(self, at_work: Iterable[Received], waiting: Iterable[Received] = ()) -> None:
        """Note that the connection went, and with it every message that is not acknowledged.

        :param at_work: those that are being run; they go on.
        :param waiting: those that are not begun; they are the broker's again.
        """
        waiting = list(waiting)
        for held in waiting:
            self._excuses.add(_key_of(held), held.excused + 1, time.monotonic())
        in_hand = ((held, held) for held in (*at_work, *self.unsettled) if not held.acknowledged)
        self.comebacks.lost(in_hand, time.monotonic(), waiting=waiting)

    def arrived(self, delivery: Delivery, head: Head) -> None:
        """Note a message that was never delivered before: what has its id and is done must not be taken for it."""
        self.comebacks.renewed(Seen(delivery, head))

    def excused(self, delivery: Delivery, head: Head) -> int:
        """Tell how often in a row a redelivered message came back because it waited here when the connection went."""
        return self._excuses.claim(_key_of(Seen(delivery, head)), time.monotonic())

    def recognises(self, delivery: Delivery, head: Head) -> bool:
        """Tell whether a redelivered message was run here already, or still is; then it is seen to."""
        seen = Seen(delivery, head)
        expected, held = self.comebacks.claim(seen, time.monotonic())
        if not expected:
            return False
        self._bus.emit(events.TaskCameBack(head.name, head.id, held is None))
        if held is None or held.acknowledged:
            self.comebacks.answered(seen)
            self._broker.ack(delivery)
        else:
            held.delivery = delivery
            if held in self._held:
                self._replace(held)
        return True


def _key_of(message: Received | Seen) -> Key:
    """Return what tells messages of one task id from each other: all that they hold but what the broker counts.

    Another message with this id may be anywhere: given back by another worker's lost connection, it comes as one that
    is redelivered, too. Hashes, so that no body is kept for its key: 64 bits with a secret of this process.
    """
    delivery = message.delivery
    headers = [one for one in delivery.headers.items() if one[0] not in _COUNTED_BY_BROKER]
    return (
        *head_key(message.head),
        delivery.queue,
        delivery.reply_to,
        delivery.correlation_id,
        hash(delivery.body),
        hash(repr(headers)),
    )
