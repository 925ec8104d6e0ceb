"""The broker port for RabbitMQ. `_brokers.base` says what each call means; here is only what is special."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio

from hybridpool._brokers.base import Deliver
from hybridpool._brokers.rabbitmq.connection import ConnectTarget
from hybridpool._brokers.rabbitmq.consume import Subscription
from hybridpool._brokers.rabbitmq.session import Session, run_to_end
from hybridpool._brokers.rabbitmq.supervisor import Supervisor
from hybridpool._brokers.url import parse_all
from hybridpool._message import Delivery, ExchangeType, Outgoing, QueueSpec
from hybridpool._policy.ledger import Answer
from hybridpool.errors import BrokerError, BrokerUnavailable
from hybridpool.events import Event

#: seconds; more than closing takes
_CANCEL_AGAIN_S = 2.5


class RabbitBroker:
    """A pair of connections to RabbitMQ that is restored after a loss: publishing never blocks acknowledgements.

    While there is no connection, `declare`, `declare_exchange`, `consume` and `cancel` are remembered and return; they
    are done on the next connection. `publish` and `depth` raise. Once a broker has been reached, a refusal (a
    changed password) is retried like a loss.
    """

    def __init__(
        self,
        url: str,
        announce: Callable[[Event], None],
        *,
        heartbeat: int = 60,
        connect_timeout: float = 4.0,
        name: str = "",
    ) -> None:
        """Prepare a connection; entering starts it.

        :param url: one, or several with `;` between them, which are tried in turn.
        :param announce: is called with `BrokerConnected`, `BrokerLost`, `BrokerConnectFailed`, `QueueDiffers`,
            `PublishingBlocked` and `PublishingResumed`.
        :param heartbeat: seconds.
        :param connect_timeout: seconds for one attempt.
        :param name: the connections' name, as the broker shows it.
        :raises ConfigError: if the URL cannot be used.
        """
        target = ConnectTarget(urls=parse_all(url), heartbeat=heartbeat, timeout=connect_timeout, name=name)
        self._supervisor = Supervisor(target, announce)
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._supervisor.run(), name="rabbitmq supervisor")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        running, self._running = self._running, None
        self._supervisor.is_ending = True
        with anyio.CancelScope(shield=True):  # closing is bounded in time by itself
            while running is not None and not running.done():
                # Repeated, because the client library may swallow a cancellation that comes while it closes.
                running.cancel()
                await asyncio.wait([running], timeout=_CANCEL_AGAIN_S)

    def on_disconnect(self, call: Callable[[], None]) -> None:
        """Set the one callback for a connection that is lost, and for each failed attempt to make another."""
        self._supervisor.on_disconnect = call

    async def connected(self, timeout: float | None) -> None:
        """Wait until there is a connection.

        :raises BrokerUnavailable: if there is none in time.
        :raises BrokerError: if there never was one and the broker refuses the login: wrong password, no access.
        """
        await self._supervisor.connected(timeout)

    async def declare(self, queue: QueueSpec) -> None:
        """Make the queue exist now, and after a reconnect if it is consumed, or as soon as something is sent to it.

        :raises BrokerError: if the broker refuses for another reason than other arguments.
        """
        await run_to_end(self._supervisor.declarations.declare(queue))

    async def declare_exchange(self, exchange: str, type: ExchangeType = "topic", *, durable: bool = True) -> None:
        """Make the exchange exist now, and after a reconnect.

        :raises BrokerError: if the broker refuses for another reason than another type or durability.
        """
        await run_to_end(self._supervisor.declarations.declare_exchange(exchange, type, durable=durable))

    async def consume(
        self, queue: str, prefetch: int, deliver: Deliver, *, keeps: int | None = None, alone_above: int | None = None
    ) -> None:
        """Start consuming; on a queue already consumed, change its prefetch.

        What was delivered before a change is not counted against the new prefetch.

        :raises QueueNotFound: if the queue does not exist.
        :raises BrokerError: if the broker refuses for another reason.
        """
        subscription = Subscription(
            queue=queue, prefetch=prefetch, deliver=deliver, keeps=keeps, alone_above=alone_above
        )
        await run_to_end(self._supervisor.declarations.consume(subscription))

    async def cancel(self, queue: str) -> None:
        """Stop consuming, now and after reconnects."""
        await run_to_end(self._supervisor.declarations.cancel(queue))

    async def delete(self, queue: str) -> None:
        """Delete the queue with what is in it, and do not declare or consume it again.

        :raises BrokerError: if the broker refuses, because it belongs to another connection or user.
        """
        await run_to_end(self._supervisor.declarations.delete(queue))

    async def publish(self, message: Outgoing) -> None:
        """Hand a message over and wait for the broker's confirmation.

        :raises BrokerUnavailable: if there is no connection, or it is lost before the confirmation came.
        :raises BrokerError: if the broker refuses the message, or it is mandatory and no queue takes it.
        """
        declarations = self._supervisor.declarations
        if declarations.stale:
            await declarations.freshen(message)
        await self._session().publish(message)

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[BrokerError | None]:
        """Hand messages over and wait for all confirmations; returns what went wrong with each.

        :raises BrokerUnavailable: if there is no connection, or it is lost before the last confirmation came.
        """
        declarations = self._supervisor.declarations
        failed: list[BrokerError | None] = [None] * len(messages)
        if declarations.stale:
            for at, message in enumerate(messages):
                try:
                    await declarations.freshen(message)
                except BrokerUnavailable:
                    raise
                except BrokerError as error:
                    failed[at] = error
        sent = await self._session().publish_many([message for at, message in enumerate(messages) if not failed[at]])
        told = iter(sent)
        return [error or next(told) for error in failed] if any(failed) else sent

    async def requeues_in_place(self, queue: QueueSpec) -> bool:
        """Tell whether the queue takes a requeued message back to the place where it was: a classic one does.

        :raises BrokerUnavailable: if there is no connection.
        """
        session = self._session()
        return await run_to_end(session.is_classic(queue))

    async def depth(self, queue: str) -> int:
        """Tell how many messages are ready in the queue.

        :raises BrokerUnavailable: if there is no connection.
        :raises QueueNotFound: if the queue does not exist.
        """
        session = self._session()
        return await run_to_end(session.depth(queue))

    async def purge(self, queue: str) -> int:
        """Delete the messages that are ready in the queue.

        :raises BrokerUnavailable: if there is no connection.
        :raises QueueNotFound: if the queue does not exist.
        """
        session = self._session()
        return await run_to_end(session.purge(queue))

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge the message; no effect if its channel is closed."""
        session = self._supervisor.current
        if session is not None and session.number == delivery.channel:
            session.acks.settle(delivery.tag, Answer.ACK)

    def requeue(self, delivery: Delivery) -> None:
        """Return the message to its queue; no effect if its channel is closed."""
        session = self._supervisor.current
        if session is not None and session.number == delivery.channel:
            session.acks.settle(delivery.tag, Answer.REQUEUE)

    def reject(self, delivery: Delivery) -> None:
        """Drop or dead-letter the message; no effect if its channel is closed."""
        session = self._supervisor.current
        if session is not None and session.number == delivery.channel:
            session.acks.settle(delivery.tag, Answer.REJECT)

    async def flush(self) -> None:
        """Wait until every `ack`, `requeue` and `reject` so far is written; returns at once without a connection."""
        session = self._supervisor.current
        if session is not None:
            with suppress(BrokerUnavailable), session.guard("flush"):
                await session.acks.flush()

    async def answers_read(self) -> None:
        """Make a request on the consuming channel: the broker reads its frames in their order.

        :raises BrokerUnavailable: if there is no connection, or it is lost meanwhile.
        """
        session = self._session()
        await run_to_end(session.answers_read())

    def _session(self) -> Session:
        session = self._supervisor.declarations.session
        if session is None:
            raise self._supervisor.unavailable()
        return session
