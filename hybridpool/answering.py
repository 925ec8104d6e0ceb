"""What the broker is told of messages, and what of that it may not have heard.

When a connection is lost, the broker has everything back that is not acknowledged. What is at work goes on, and what is
delivered again is known again: the run that goes on is its run, and what is done is not done twice.
"""

import time
from collections.abc import Iterable

import attrs

from hybridpool import events
from hybridpool.brokers.base import Broker
from hybridpool.message import Delivery, Head
from hybridpool.policy.comeback import Comebacks
from hybridpool.policy.settlement import Terms


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


class Answering:
    """Answers messages."""

    def __init__(self, broker: Broker, bus: events.Bus) -> None:
        self._broker = broker
        self._bus = bus
        self.comebacks = Comebacks[Received]()
        #: run, and not settled yet
        self.unsettled: set[Received] = set()

    def acknowledge(self, received: Received) -> None:
        """Tell the broker that the message is done with."""
        self.comebacks.answered(received.head)
        self._broker.ack(received.delivery)

    def give_back(self, received: Received) -> None:
        """Let the broker deliver the message again, as if it had never been here."""
        self.comebacks.forget(received.head)
        self._broker.requeue(received.delivery)

    def lost(self, at_work: Iterable[Received]) -> None:
        """Note that the connection went, and with it every message that is not acknowledged.

        :param at_work: those that are being run; they go on.
        """
        in_hand = [(held.head, held) for held in (*at_work, *self.unsettled) if not held.acknowledged]
        self.comebacks.lost(in_hand, time.monotonic())

    def recognises(self, delivery: Delivery, head: Head) -> bool:
        """Tell whether a redelivered message was run here already, or still is; then it is seen to."""
        expected, held = self.comebacks.claim(head, time.monotonic())
        if not expected:
            return False
        self._bus.emit(events.TaskCameBack(head.name, head.id, held is None))
        if held is None or held.acknowledged:
            self.comebacks.answered(head)
            self._broker.ack(delivery)
        else:
            held.delivery = delivery
        return True
