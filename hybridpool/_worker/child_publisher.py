"""Publishes what tasks send: the parent does it for its children, so no child holds a connection to the broker."""

import asyncio
from collections.abc import Callable
from typing import Final

import attrs
from anyio.abc import TaskGroup

from hybridpool._brokers.base import Broker
from hybridpool._config import Settings
from hybridpool._ipc.frames import Enqueue, EnqueueAnswer
from hybridpool._message import Outgoing, unpack
from hybridpool._policy import backoff
from hybridpool._protocol.queues import task_queue
from hybridpool.errors import BrokerUnavailable, HybridpoolError, QueueNotFound

#: queues that are known to be declared; fewer than the broker's adapter remembers
MAX_DECLARED: Final = 500


class ChildPublisher:
    """Publishes for children."""

    def __init__(self, broker: Broker, tasks: TaskGroup, settings: Settings) -> None:
        self._broker = broker
        self._tasks = tasks
        self._settings = settings
        self._declared: set[str] = set()

    def publish(self, frame: Enqueue, answer: Callable[[EnqueueAnswer], None]) -> None:
        """Publish a message, and answer once the broker has confirmed it, or with the error."""
        self._tasks.start_soon(self._publish, frame, answer)

    async def _publish(self, frame: Enqueue, answer: Callable[[EnqueueAnswer], None]) -> None:
        try:
            await self._deliver(unpack(frame.message))
        except HybridpoolError as error:
            answer(EnqueueAnswer(frame.ticket, str(error), type(error).__name__))
        except Exception as error:  # noqa: BLE001  # the worker goes on, whatever a task's code has made of the message
            answer(EnqueueAnswer(frame.ticket, f"not published: {type(error).__name__}: {error}"))
        else:
            answer(EnqueueAnswer(frame.ticket, None))

    async def _deliver(self, message: Outgoing) -> None:
        """Publish, over connections that break: with as many attempts as a client makes (`_client.connection`).

        :raises BrokerError: if the broker refuses, or there is none within broker_connection_timeout.
        """
        if not message.exchange and not message.routing_key:
            message = attrs.evolve(message, routing_key=self._settings.task_default_queue)
        is_made_again = bool(message.exchange)
        for attempt in range(1, backoff.ATTEMPTS + 1):
            await self._broker.connected(self._settings.broker_connection_timeout)
            try:
                await self._declare(message)
                await self._broker.publish(message)
            except QueueNotFound:
                if is_made_again:
                    raise
                # deleted since it was declared
                is_made_again = True
                self._declared.discard(message.routing_key)
            except BrokerUnavailable:
                if attempt == backoff.ATTEMPTS:
                    raise
                await asyncio.sleep(backoff.pause(attempt))
            else:
                return

    async def _declare(self, message: Outgoing) -> None:
        if not message.exchange and message.routing_key not in self._declared:
            await self._broker.declare(task_queue(message.routing_key, self._settings))
            if len(self._declared) >= MAX_DECLARED:
                self._declared.clear()
            self._declared.add(message.routing_key)
