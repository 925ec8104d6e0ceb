"""rpc://: each result is a message to the queue that the client named in `reply_to` (Celery, `celery.backends.rpc`).

Only the client that sent a task can read its result. The reply queue outlives a lost connection, so that an answer
that comes meanwhile is not lost, and deletes itself when its client does not come back.
"""

import asyncio
import uuid
import weakref
from typing import Final

from hybridpool._brokers.base import Broker
from hybridpool._message import Delivery, Outgoing, QueueSpec
from hybridpool._protocol.result_message import is_final
from hybridpool.errors import ResultError, ResultTimeout

#: milliseconds a reply queue waits for its client to come back
_REPLY_QUEUE_LASTS: Final = 5 * 60 * 1000


class RpcStore:
    """The worker's side."""

    def __init__(self, broker: Broker, expires: float | None) -> None:
        """:param expires: seconds after which the broker drops an answer that its client did not take."""
        self._broker = broker
        self._expiration = None if expires is None else int(expires * 1000)

    async def open(self) -> None:
        """Do nothing: the broker's connection is the worker's."""

    async def close(self) -> None:
        """Do nothing."""

    def wanted(self, delivery: Delivery) -> bool:
        """Tell whether the sender named a queue for the answer."""
        return bool(delivery.reply_to)

    def counts(self, delivery: Delivery) -> bool:  # noqa: ARG002  # the port's
        """Say no: nothing is kept between two results."""
        return False

    async def store(self, delivery: Delivery, task_id: str, meta: bytes) -> None:
        """Send the answer; that its client has gone is not an error."""
        if delivery.reply_to:
            await self._broker.publish(
                Outgoing(
                    body=meta,
                    routing_key=delivery.reply_to,
                    correlation_id=task_id,
                    persistent=False,
                    expiration=self._expiration,
                )
            )


class RpcReader:
    """The client's side."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.reply_to: str | None = str(uuid.uuid4())
        #: weak: an answer is kept as long as the claim that `expect` returned, so unclaimed answers do not pile up
        self._answers: weakref.WeakValueDictionary[str, asyncio.Future[bytes]] = weakref.WeakValueDictionary()
        self._opened = False

    async def open(self) -> None:
        """Declare the reply queue and listen to it."""
        if self._opened or self.reply_to is None:
            return
        await self._broker.declare(QueueSpec(name=self.reply_to, expires=_REPLY_QUEUE_LASTS))
        await self._broker.consume(self.reply_to, 0, self._take)
        self._opened = True

    def expect(self, task_id: str) -> object:
        """Return a claim on the answer, which is kept for as long as the claim is."""
        answer = self._answers[task_id] = asyncio.get_running_loop().create_future()
        return answer

    async def wait(self, task_id: str, timeout: float | None) -> bytes:
        """Wait for the answer; it can be asked for again.

        :raises ResultTimeout: if it does not come in time.
        :raises ResultError: if this client did not send the task.
        """
        answer = self._answers.get(task_id)
        if answer is None:
            raise ResultError(f"task {task_id} was not sent by this client, or its result was given up")
        try:
            return await asyncio.wait_for(asyncio.shield(answer), timeout)
        except TimeoutError:
            raise ResultTimeout(f"no result of task {task_id} within {timeout:g} s; it may still be running") from None

    def forget(self, task_id: str) -> None:
        """Give the answer up."""
        self._answers.pop(task_id, None)

    async def close(self) -> None:
        """Delete the reply queue."""
        if self._opened and self.reply_to is not None:
            await self._broker.delete(self.reply_to)
        for answer in list(self._answers.values()):
            if not answer.done():
                answer.set_exception(ResultError("the app was closed before the result came"))
                answer.exception()  # retrieved, so that asyncio does not log it if no client waits any more

    def _take(self, delivery: Delivery) -> None:
        self._broker.ack(delivery)
        answer = self._answers.get(delivery.correlation_id or "")
        if answer is not None and not answer.done() and is_final(delivery.body):
            answer.set_result(delivery.body)
