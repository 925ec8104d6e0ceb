"""Acknowledges messages, and recognises those that come again because the broker may not have read the acknowledgement.

When a connection is lost, the broker requeues every message that is not acknowledged. Running tasks go on; when their
messages are delivered again, they are recognised: the run that goes on is theirs, and a task that has ended is not run
again.

RabbitMQ does not confirm acknowledgements. So now and then the worker makes a request on the same channel: once the
broker has answered it, the broker has read every acknowledgement before it, and none of those messages can come again.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from hybridpool import events
from hybridpool._brokers.base import Broker
from hybridpool._message import Delivery, Head
from hybridpool._policy.redelivery import Excuses, ExpectedRedeliveries, Key, head_key
from hybridpool._worker.received import Received, Seen, task_ref
from hybridpool.errors import BrokerError

#: seconds after an acknowledgement until the request that tells whether the broker has read it
ASK_AFTER_S: Final = 0.5
#: acknowledged messages, and bytes of their bodies, at which it is asked at once. Until it answers they are kept; with
#: all those of half a second the memory of each new message would be one that no cache holds, a sixth of the rate
ASK_AT_MESSAGES: Final = 256
ASK_AT_BYTES: Final = 8 * 1024 * 1024
#: share of the measured round trip that the latest one makes
ROUND_TRIP_WEIGHT: Final = 0.25
#: messages that may be held here, beyond the prefetch, until the broker takes what follows from them; further ones keep
#: their places in the prefetch, and in the end the worker takes nothing more from their queue
MAX_HELD: Final = 256
#: bytes of their bodies, likewise
MAX_HELD_BYTES: Final = 256 * 1024 * 1024
#: headers that the broker changes from one delivery of a message to the next (quorum queues)
_COUNTED_BY_BROKER: Final = frozenset({"x-delivery-count", "x-acquired-count"})


class RedeliveryTracker:
    """Acknowledges messages, and recognises those that the broker delivers again although they were run here."""

    def __init__(
        self,
        broker: Broker,
        bus: events.Bus,
        replace_place: Callable[[str], object] = lambda _: None,
        restore_place: Callable[[str, object], None] = lambda *_: None,
    ) -> None:
        """Acknowledge messages.

        :param replace_place: called with a queue when another of its messages keeps its place in the prefetch; what it
            returns is given to `restore_place`, with the queue, when that message does not wait any more.
        """
        self._broker = broker
        self._bus = bus
        self._replace_place = replace_place
        self._restore_place = restore_place
        self.redeliveries = ExpectedRedeliveries[Received | Seen, Received](_key_of, lambda message: message.head.id)
        #: run, and not settled yet
        self.unsettled: set[Received] = set()
        #: messages that wait for long, and what `replace_place` returned for each
        self._held: dict[Received, object] = {}
        self._is_full_said = False
        self._excuses = Excuses()
        self._timer: asyncio.TimerHandle | None = None
        self._fresh_bytes = 0
        self._asking: asyncio.Task[None] | None = None
        self._is_closed = False
        #: seconds from an acknowledgement to the broker's next answer, the latest ones counting most; 0: not known
        self.round_trip = 0.0

    def acknowledge(self, received: Received, *, comes_again: bool = False) -> None:
        """Acknowledge a message.

        :param comes_again: it was published again unchanged: that one has the same key, and has to be run.
        """
        if comes_again:
            self.redeliveries.forget(received)
        else:
            self.redeliveries.answered(received)
            self._fresh_bytes += len(received.delivery.body)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(ASK_AFTER_S, self._ask)
            elif (
                len(self.redeliveries.fresh) >= ASK_AT_MESSAGES or self._fresh_bytes >= ASK_AT_BYTES
            ) and not self._is_asking:
                self._timer.cancel()
                self._ask()
        self._broker.ack(received.delivery)

    def refuse(self, received: Received) -> None:
        """Reject a message: its queue dead-letters it if declared so, and otherwise it is gone."""
        self.redeliveries.answered(received)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ASK_AFTER_S, self._ask)
        self._broker.reject(received.delivery)

    def give_back(self, received: Received) -> None:
        """Requeue a message; when it comes again, it is run."""
        self.redeliveries.forget(received)
        self._broker.requeue(received.delivery)

    def forget(self, received: Received) -> None:
        """Do not expect a message any more; when it comes again, it is run."""
        self.redeliveries.forget(received)

    def hold(self, received: Received) -> None:
        """Note that a message waits here for long, and have another one taken in its place."""
        if received.acknowledged or received in self._held:
            return
        self._held[received] = None
        self._replace(received)

    def release(self, received: Received) -> None:
        """Note that a message does not wait any more."""
        place = self._held.pop(received, None)
        if place is not None:
            self._restore_place(received.delivery.queue, place)
        if not self._held:
            self._is_full_said = False

    def _replace(self, held: Received) -> None:
        size = sum(len(one.delivery.body) for one in self._held)
        if len(self._held) <= MAX_HELD and size <= MAX_HELD_BYTES:
            self._held[held] = self._replace_place(held.delivery.queue)
        elif not self._is_full_said:
            self._is_full_said = True
            self._bus.emit(events.TooManyHeld(held.delivery.queue, len(self._held)))

    def close(self) -> None:
        """Make no more requests; one that is under way ends by itself."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    @property
    def _is_asking(self) -> bool:
        return self._asking is not None and not self._asking.done()

    def _ask(self) -> None:
        if not self._is_closed:
            self._fresh_bytes = 0
            self._asking = asyncio.ensure_future(self._learn())

    async def _learn(self) -> None:
        """Forget the acknowledgements that the broker has read."""
        self.redeliveries.ask()
        asked_at = time.monotonic()
        try:
            await self._broker.answers_read()
        except BrokerError:
            pass  # the connection is lost: `lost` expects these messages to come again
        else:
            self.redeliveries.heard()
            took = time.monotonic() - asked_at
            self.round_trip += (took - self.round_trip) * (ROUND_TRIP_WEIGHT if self.round_trip else 1.0)
        finally:
            self._timer = None
            if self.redeliveries.is_unsure and not self._is_closed:
                self._timer = asyncio.get_running_loop().call_later(ASK_AFTER_S, self._ask)

    def lost(self, at_work: Iterable[Received], waiting: Iterable[Received] = ()) -> None:
        """Note that the connection was lost: the broker has every message again that is not acknowledged.

        :param at_work: messages whose tasks run; they go on.
        :param waiting: messages that have not begun; they are run when they come again.
        """
        waiting = list(waiting)
        for held in waiting:
            self._excuses.add(_key_of(held), held.excused + 1, time.monotonic())
        in_hand = ((held, held) for held in (*at_work, *self.unsettled) if not held.acknowledged)
        self.redeliveries.lost(in_hand, time.monotonic(), waiting=waiting)

    def arrived(self, delivery: Delivery, head: Head) -> None:
        """Note a first delivery: an earlier message of the same id that is done must not be mistaken for it."""
        self.redeliveries.renewed(Seen(delivery, head))

    def excused(self, delivery: Delivery, head: Head) -> int:
        """Return how many times in a row a message came back because the connection was lost while it waited here."""
        return self._excuses.claim(_key_of(Seen(delivery, head)), time.monotonic())

    def recognises(self, delivery: Delivery, head: Head) -> bool:
        """Tell whether a redelivered message was run here, or still is; then it is acknowledged, now or in the end."""
        seen = Seen(delivery, head)
        expected, held = self.redeliveries.claim(seen, time.monotonic())
        if not expected:
            return False
        self._bus.emit(events.TaskRedelivered(task_ref(seen), held is None))
        if held is None or held.acknowledged:
            self.redeliveries.answered(seen)
            self._broker.ack(delivery)
        else:
            held.delivery, held.is_void = delivery, False
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
