"""One connection of one event loop: publishes calls with confirm, and listens for their results."""

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable, Coroutine, Sequence

from hybridpool import events
from hybridpool._brokers.base import Broker
from hybridpool._client.asynclib import declare_asyncio
from hybridpool._client.result_handle import Handle
from hybridpool._config import Settings
from hybridpool._message import Outgoing
from hybridpool._policy import backoff
from hybridpool._policy.lamport_clock import LamportClock
from hybridpool._protocol import remote_control
from hybridpool._protocol.events import sent_event
from hybridpool._protocol.queues import task_queue
from hybridpool._protocol.task_message import Request, to_message
from hybridpool._results.base import ResultReader
from hybridpool._results.factory import result_reader
from hybridpool.errors import BrokerError, BrokerUnavailable, QueueNotFound

log = logging.getLogger("hybridpool.client")
#: messages that `send_many` publishes at once
_MAX_BATCH_MESSAGES = 1000

#: queues remembered as declared; fewer than the broker connection remembers
_MAX_DECLARED_QUEUES = 500


class ClientConnection:
    """Sends tasks. Use it on the loop that made it."""

    def __init__(self, settings: Settings, open_broker: Callable[[Callable[[events.Event], None]], Broker]) -> None:
        self._settings = settings
        self._broker = open_broker(_log_event)
        self._reader: ResultReader | None = result_reader(settings, self._broker)
        self._prepared: dict[str, asyncio.Future[None]] = {}
        #: queues that are declared
        self._declared: set[str] = set()
        #: the result reader listens
        self._is_listening = False
        self._closing = asyncio.Event()
        self._clock = LamportClock()
        self._broker_task = asyncio.create_task(self._run(), name="hybridpool-sender")

    async def send(self, request: Request) -> Handle[object]:
        """Publish a call and wait until the broker has confirmed it.

        :raises BrokerUnavailable: if there is no broker within broker_connection_timeout.
        :raises BrokerError: if the broker refuses.
        :raises CannotSend: if an argument has no JSON form.
        """
        handle, message = self.expect(request)
        was_declared_again = False
        for attempt in range(1, backoff.ATTEMPTS + 1):
            await self._broker.connected(self._settings.broker_connection_timeout)
            try:
                await self._make_ready(message)
                await self._broker.publish(message)
            except QueueNotFound:
                if was_declared_again:
                    raise
                was_declared_again = True
                self._forget_queue(message.routing_key)
            except BrokerUnavailable:
                if attempt == backoff.ATTEMPTS:
                    raise
                await asyncio.sleep(backoff.pause(attempt))
            else:
                break
        if self._settings.task_send_sent_event:
            await self._tell_sent((message,))
        return handle

    async def send_many(self, requests: Sequence[Request]) -> list[Handle[object]]:
        """Publish calls, a portion at a time, and wait until the broker has confirmed them all.

        :raises BrokerError: if one of them is not confirmed; a note says how many are.
        :raises CannotSend: if an argument has no JSON form; nothing is sent then.
        """
        expected = [self.expect(request) for request in requests]
        for start in range(0, len(expected), _MAX_BATCH_MESSAGES):
            part = [message for _, message in expected[start : start + _MAX_BATCH_MESSAGES]]
            await self.post(part, start, len(expected))
        return [handle for handle, _ in expected]

    async def post(self, messages: Sequence[Outgoing], before: int = 0, total: int = 0) -> None:
        """Publish messages; those that cannot reach the broker are tried again.

        :param before: how many are confirmed already, of how many in all, for the error.
        :raises BrokerError: if one of them is not confirmed.
        """
        left, was_declared_again = list(messages), False
        for attempt in range(1, backoff.ATTEMPTS + 1):
            await self._broker.connected(self._settings.broker_connection_timeout)
            try:
                for message in left:
                    await self._make_ready(message)
                failures = await self._broker.publish_many(left)
            except BrokerUnavailable as error:
                failures = [error] * len(left)
            failed = [(message, error) for message, error in zip(left, failures, strict=True) if error is not None]
            if not failed:
                if self._settings.task_send_sent_event:
                    await self._tell_sent(messages)
                return
            final = next((error for _, error in failed if not isinstance(error, BrokerUnavailable)), failed[0][1])
            left = [message for message, _ in failed]
            if isinstance(final, QueueNotFound) and not was_declared_again:
                was_declared_again = True
                for message in left:
                    self._forget_queue(message.routing_key)
                continue
            if attempt == backoff.ATTEMPTS or not isinstance(final, BrokerUnavailable):
                final.add_note(f"{before + len(messages) - len(left)} of {total or len(messages)} calls were confirmed")
                raise final
            await asyncio.sleep(backoff.pause(attempt))

    def expect(self, request: Request) -> tuple[Handle[object], Outgoing]:
        """Return the handle that waits for a call's result, and the call's message."""
        reader = None if request.ignore_result else self._reader
        claim: object = None
        if reader is not None:
            request.reply_to = reader.reply_to
            claim = reader.expect(request.id)
        why = "the task ignores its result" if request.ignore_result else "result_backend is not set (try rpc://)"
        handle: Handle[object] = Handle(request.task, request.id, reader, why, claim, self.revoke)
        return handle, to_message(request, dt.datetime.now(dt.UTC))

    async def revoke(self, ids: Sequence[str], terminate: bool) -> None:
        """Tell all workers not to run tasks.

        :raises BrokerUnavailable: if there is no broker within broker_connection_timeout.
        """
        await self._broker.connected(self._settings.broker_connection_timeout)
        await self._broker.publish(remote_control.revoke(ids, terminate=terminate))

    def close_soon(self) -> None:
        """Start closing the connection, without waiting for that."""
        self._closing.set()

    async def close(self) -> None:
        """Close the connection."""
        self._closing.set()
        await asyncio.wait((self._broker_task,))

    async def _run(self) -> None:
        declare_asyncio()
        async with self._broker:
            await self._closing.wait()
            if self._reader is not None:
                await self._reader.close()

    async def _tell_sent(self, messages: Sequence[Outgoing]) -> None:
        """Tell monitors of calls that the broker has; if that fails they are sent all the same."""
        exchange, now = self._settings.event_exchange, time.time()
        try:
            await self._once("events", lambda: self._broker.declare_exchange(exchange))
            await self._broker.publish_many([sent_event(message, self._clock, exchange, now) for message in messages])
        except BrokerError as error:
            log.debug("no task-sent was sent: %s", error)

    async def _make_ready(self, message: Outgoing) -> None:
        """Declare the queue and open the reader, once each, however many calls come at the same time."""
        queue = message.routing_key
        if queue not in self._declared:
            await self._once(f"queue {queue}", lambda: self._broker.declare(task_queue(queue, self._settings)))
            if len(self._declared) >= _MAX_DECLARED_QUEUES:
                self._declared.clear()
            self._declared.add(queue)
            self._prepared.pop(f"queue {queue}", None)
        reader = self._reader
        if reader is not None and message.reply_to is not None and not self._is_listening:
            await self._once("reader", reader.open)
            self._is_listening = True

    def _forget_queue(self, queue: str) -> None:
        """Declare the queue with the next message: it was deleted since."""
        self._declared.discard(queue)
        self._prepared.pop(f"queue {queue}", None)

    async def _once(self, what: str, do: Callable[[], Coroutine[object, object, None]]) -> None:
        """Run a step unless it is done or under way; a step that failed is run again."""
        under_way = self._prepared.get(what)
        if under_way is None or (under_way.done() and (under_way.cancelled() or under_way.exception() is not None)):
            under_way = self._prepared[what] = asyncio.ensure_future(do())
        await asyncio.shield(under_way)


def _log_event(event: events.Event) -> None:
    match event:
        case events.BrokerConnectFailed(url, reason, _, next_url) if next_url:
            log.warning("no connection to %s: %s; trying %s now", url, reason, next_url)
        case events.BrokerLost(url, reason, retry_in) | events.BrokerConnectFailed(url, reason, retry_in):
            log.warning("no connection to %s: %s; trying again in %.1f s", url, reason, retry_in)
        case _:
            log.debug("%s", event)
