"""The broker port: what the rest of hybridpool may ask of a message broker.

Promises that every adapter keeps (tests/contract/test_broker.py):

- `publish` returns only when the broker has taken responsibility for the message.
- A delivery is settled with `ack`, `requeue` or `reject`, once. All three are synchronous and cheap: what is settled in
  one loop tick leaves together, contiguous acks as one. `flush` waits until what was settled so far has been written.
- Settling a delivery of an older channel has no effect and is not an error: the broker has already requeued the message
  and delivers it again.
- After a lost connection the adapter reconnects by itself, for ever, and restores declared exchanges, queues and
  consumers; it calls what `on_disconnect` was given, and tells listeners through its `announce` callback
  (`events.BrokerConnected`, `events.BrokerLost`, `events.BrokerConnectFailed`).
- No exception of the client library leaves an adapter: only `errors.BrokerError` and its kinds. A queue that does not
  exist is `errors.QueueNotFound`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from hybridpool._message import Delivery, ExchangeType, Outgoing, QueueSpec
from hybridpool.errors import BrokerError

#: called on the loop for each message that is delivered; must not block and must not raise
Deliver = Callable[[Delivery], None]


class Broker(AbstractAsyncContextManager["Broker"], Protocol):
    """A connection that is restored after a loss.

    Entering starts connecting; leaving closes it, and the broker requeues unsettled messages.
    """

    async def __aenter__(self) -> Self: ...

    def on_disconnect(self, call: Callable[[], None]) -> None:
        """Set the one callback for a connection that is lost.

        It is called once the connection is lost, and again after each attempt to make another that fails: such an
        attempt may have brought messages before it failed. The broker has every unsettled message back then, and
        nothing of the next connection has come yet.
        """

    async def connected(self, timeout: float | None) -> None:
        """Wait until there is a connection.

        :param timeout: seconds; None waits for ever.
        :raises BrokerUnavailable: if there is none in time; the message holds the last cause.
        """

    async def declare(self, queue: QueueSpec) -> None:
        """Make the queue exist, with its bindings.

        It is declared now, and after a reconnect at once if it is consumed, or before the next message is sent to it. A
        queue that exists with other arguments is used as it is, and `events.QueueDiffers` is announced. Bindings that
        exist and are not in the declaration stay.

        :raises BrokerError: if the broker refuses for another reason.
        """

    async def declare_exchange(self, exchange: str, type: ExchangeType = "topic", *, durable: bool = True) -> None:
        """Make the exchange exist now, and after a reconnect; queues are bound by their declaration.

        One that exists with another type or durability is used as it is.

        :param durable: whether it survives a restart of the broker.
        :raises BrokerError: if the broker refuses.
        """

    async def publish(self, message: Outgoing) -> None:
        """Send a message and wait for the broker's confirmation.

        One with a `delay` is held by the broker for so many seconds before it is in its queue.

        :raises BrokerUnavailable: if there is no connection, or it is lost before the confirmation came; `QueueFull` if
            a queue takes no more messages for now.
        :raises BrokerRefused: if the broker refuses it, and would do so again: `AccessRefused`, `MessageTooLarge`,
            `CannotEncode`, or `QueueNotFound` if its exchange does not exist, or it is `mandatory` and no queue takes
            it. Other messages that are sent at the same time are not affected.
        """

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[BrokerError | None]:
        """Send messages, in their order, and wait for all confirmations; otherwise as `publish`.

        :returns: for each message its error; None: the broker has confirmed it.
        """
        ...

    async def consume(
        self, queue: str, prefetch: int, deliver: Deliver, *, keeps: int | None = None, alone_above: int | None = None
    ) -> None:
        """Start consuming; on a queue that is consumed already, change its prefetch.

        :param prefetch: how many messages of this queue may be unsettled at once; 0: any number.
        :param keeps: bytes; a larger body is dropped as it comes in, and `Delivery.missing` is its size.
        :param alone_above: bytes; a larger message comes alone: nothing more is read until it is settled, or some
            seconds have passed.
        :raises QueueNotFound: if the queue does not exist.
        :raises BrokerError: if the broker refuses for another reason.
        """

    async def cancel(self, queue: str) -> None:
        """Stop consuming, now and after reconnects. What was delivered may still be settled."""

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge the message: the broker deletes it."""

    def requeue(self, delivery: Delivery) -> None:
        """Return the message to its queue, which delivers it again."""

    def reject(self, delivery: Delivery) -> None:
        """Refuse the message without requeue: its queue dead-letters it if declared so; otherwise it is deleted."""

    async def flush(self) -> None:
        """Wait until every `ack`, `requeue` and `reject` so far has left this process."""

    async def answers_read(self) -> None:
        """Wait until the broker has read every `ack`, `requeue` and `reject` so far.

        None of these messages can be redelivered after that for a lost connection.

        :raises BrokerUnavailable: if there is no connection, or it is lost meanwhile; what the broker has read is not
            known then.
        """

    async def requeues_in_place(self, queue: QueueSpec) -> bool:
        """Tell whether the queue takes a requeued message back to the place where it was; if not known, it does not.

        :raises BrokerUnavailable: if there is no connection.
        """
        ...

    async def delete(self, queue: str) -> None:
        """Delete the queue with its messages, and do not declare or consume it again.

        A queue that does not exist is not an error. Without a connection nothing is deleted.
        """

    async def purge(self, queue: str) -> int:
        """Delete the messages that are ready in the queue; return how many.

        :raises QueueNotFound: if the queue does not exist.
        :raises BrokerError: if the broker refuses.
        """
        ...

    async def depth(self, queue: str) -> int:
        """Tell how many messages are ready in the queue.

        :raises QueueNotFound: if the queue does not exist.
        """
        ...
