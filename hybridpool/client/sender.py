"""One connection of one event loop: publishes calls with confirm, and listens for their results."""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Coroutine, Sequence

import attrs

from hybridpool import events
from hybridpool.brokers.base import Broker
from hybridpool.client.handle import Handle
from hybridpool.config import Settings
from hybridpool.errors import BrokerUnavailable
from hybridpool.protocol import control
from hybridpool.protocol.queues import task_queue
from hybridpool.protocol.request import Request, to_message
from hybridpool.results.base import ResultReader
from hybridpool.results.rpc import RpcReader

log = logging.getLogger("hybridpool.client")
#: attempts to publish one message over connections that break
_ATTEMPTS = 3


class Sender:
    """Sends tasks. It belongs to the loop that made it."""

    def __init__(self, settings: Settings, open_broker: Callable[[Callable[[events.Fact], None]], Broker]) -> None:
        self._settings = settings
        self._broker = open_broker(_announce)
        self._reader: ResultReader | None = RpcReader(self._broker) if settings.result_backend else None
        self._prepared: dict[str, asyncio.Future[None]] = {}
        self._closing = asyncio.Event()
        self._host = asyncio.create_task(self._live(), name="hybridpool-sender")

    async def send(self, request: Request) -> Handle[object]:
        """Publish a call and wait until the broker has confirmed it.

        :raises BrokerUnavailable: if there is no broker within broker_connection_timeout.
        :raises BrokerError: if the broker refuses.
        :raises TypeError: if an argument has no JSON form.
        """
        reader = None if request.ignore_result else self._reader
        claim: object = None
        now = dt.datetime.now(dt.UTC)
        message = to_message(request if reader is None else attrs.evolve(request, reply_to=reader.reply_to), now)
        for attempt in range(1, _ATTEMPTS + 1):
            await self._broker.connected(self._settings.broker_connection_timeout)
            try:
                await self._make_ready(request.queue, reader)
                if reader is not None:
                    claim = reader.expect(request.id)
                await self._broker.publish(message)
            except BrokerUnavailable:
                if attempt == _ATTEMPTS:
                    raise
            else:
                break
        why = "the task ignores its result" if request.ignore_result else "result_backend is not set (try rpc://)"
        return Handle(request.task, request.id, reader, why, claim, self.revoke)

    async def revoke(self, ids: Sequence[str], terminate: bool) -> None:
        """Tell all workers not to run tasks.

        :raises BrokerUnavailable: if there is no broker within broker_connection_timeout.
        """
        await self._broker.connected(self._settings.broker_connection_timeout)
        await self._broker.publish(control.revoke(ids, terminate=terminate))

    async def close(self) -> None:
        """Close the connection."""
        self._closing.set()
        await asyncio.wait((self._host,))

    async def _live(self) -> None:
        async with self._broker:
            await self._closing.wait()
            if self._reader is not None:
                await self._reader.close()

    async def _make_ready(self, queue: str, reader: ResultReader | None) -> None:
        """Declare the queue and open the reader, once each, however many calls come at the same time."""
        spec = task_queue(queue, self._settings)
        await self._once(f"queue {queue}", lambda: self._broker.declare(spec))
        if reader is not None:
            await self._once("reader", reader.open)

    async def _once(self, what: str, do: Callable[[], Coroutine[object, object, None]]) -> None:
        """Do it unless it is done or under way; what failed is done again."""
        under_way = self._prepared.get(what)
        if under_way is None or (under_way.done() and (under_way.cancelled() or under_way.exception() is not None)):
            under_way = self._prepared[what] = asyncio.ensure_future(do())
        await asyncio.shield(under_way)


def _announce(fact: events.Fact) -> None:
    match fact:
        case events.BrokerLost(url, reason, _, next_url) if next_url:
            log.warning("no connection to %s: %s; trying %s now", url, reason, next_url)
        case events.BrokerLost(url, reason, retry_in):
            log.warning("no connection to %s: %s; trying again in %.1f s", url, reason, retry_in)
        case _:
            log.debug("%s", fact)
