"""The broker port: what the rest of the house may ask of a message broker.

Promises every adapter keeps (tests/contract/test_broker.py):

- `publish` returns only when the broker has taken responsibility for the message.
- A delivery is settled with `ack` or `requeue`, once. Both are synchronous and cheap: the answers of one loop tick
  leave together, contiguous acks as one. `flush` waits until what was settled so far has been written.
- A delivery of an older channel is settled in silence: the broker has taken it back already and delivers it again.
- After a lost connection the adapter comes back by itself, for ever, with declared queues and consumers as they were;
  it calls what `on_disconnect` was given, and tells listeners through its `announce` callback
  (`events.BrokerConnected`, `events.BrokerLost`, `events.BrokerConnectFailed`).
- Nothing above this room ever sees an exception of the client library: only `errors.BrokerError` and its kinds.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from hybridpool._message import Delivery, Outgoing, QueueSpec
from hybridpool.errors import BrokerError

#: called on the loop for each message that comes in; must not block and must not raise
Deliver = Callable[[Delivery], None]


class Broker(AbstractAsyncContextManager["Broker"], Protocol):
    """A connection that heals itself. Entering starts connecting; leaving closes it, and unsettled messages go back."""

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
        :raises BrokerUnavailable: if there is none in time; the message carries the last cause.
        """

    async def declare(self, queue: QueueSpec) -> None:
        """Make the queue exist now, and after a reconnect if it is consumed, or as soon as something is sent to it.

        One that exists with other arguments is used as it is, and `events.QueueDiffers` is announced.

        :raises BrokerError: if the broker refuses for another reason.
        """

    async def publish(self, message: Outgoing) -> None:
        """Hand a message over and wait for the broker's confirmation.

        One with a `delay` is held by the broker for so many seconds before its queue has it.

        :raises BrokerUnavailable: if there is no connection, or it is lost before the confirmation came; `QueueFull` if
            a queue takes no more for now.
        :raises BrokerRefused: if the broker refuses it, and would do so again: `AccessRefused`, `MessageTooLarge`,
            `CannotEncode`, or `QueueNotFound` if it is `mandatory` and no queue takes it. Others that are under way at
            the same time are not affected.
        """

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[BrokerError | None]:
        """Hand messages over, in their order, and wait for all confirmations; as `publish` in all else.

        :returns: for each message what went wrong with it; None: the broker has it.
        """
        ...

    async def consume(
        self, queue: str, prefetch: int, deliver: Deliver, *, keeps: int | None = None, alone_above: int | None = None
    ) -> None:
        """Start consuming; on a queue already consumed, change its prefetch.

        :param prefetch: how many unsettled messages of this queue may be here at once; 0: no limit.
        :param keeps: bytes; a larger body is dropped as it comes in, and `Delivery.missing` is its size.
        :param alone_above: bytes; a larger message comes alone: while it is not settled, nothing more is read for some
            seconds.
        :raises BrokerError: if the queue does not exist or the broker refuses.
        """

    async def cancel(self, queue: str) -> None:
        """Stop consuming, now and after reconnects. What was delivered may still be settled."""

    def ack(self, delivery: Delivery) -> None:
        """Say that the message is done with."""

    def requeue(self, delivery: Delivery) -> None:
        """Give the message back to its queue."""

    async def flush(self) -> None:
        """Wait until every `ack` and `requeue` so far has left this process."""

    async def answers_read(self) -> None:
        """Wait until the broker has read every `ack` and `requeue` so far: none of these messages can come again.

        :raises BrokerUnavailable: if there is no connection, or it is lost meanwhile; nobody knows then.
        """

    async def delete(self, queue: str) -> None:
        """Delete the queue with what is in it; one that does not exist is fine. Without a connection: does nothing."""

    async def depth(self, queue: str) -> int:
        """Tell how many messages are ready in the queue.

        :raises BrokerError: if the queue does not exist.
        """
        ...
