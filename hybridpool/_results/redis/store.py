"""The worker's side: results are written in batches, and wait here while Redis does not take them.

A message is acknowledged only when its result is stored, so a worker whose Redis is away runs as many tasks as its
prefetch allows, and then waits too.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import attrs

from hybridpool import events
from hybridpool._brokers.base import Broker
from hybridpool._config.redis_url import RedisUrl
from hybridpool._message import Delivery, QueueSpec
from hybridpool._results.redis.chords import ChordCounter
from hybridpool._results.redis.client import is_passing_text, raise_if_cancelled
from hybridpool._results.redis.link import RedisLink, pause
from hybridpool._results.redis.scripts import RESULT_PREFIX, STORE
from hybridpool.errors import BrokerError, BrokerRefused, MessageTooLarge

#: results, and bytes of them, that are written at once; a larger one is written alone
MAX_BATCH_RESULTS: Final = 256
MAX_BATCH_BYTES: Final = 256 * 1024


@attrs.define(eq=False)
class _Write:
    key: str
    meta: bytes
    done: asyncio.Future[None]


class RedisStore:
    """The worker's side."""

    def __init__(
        self,
        url: RedisUrl,
        expires: float | None,
        broker: Broker,
        announce: Callable[[events.Event], None],
        *,
        connect_timeout: float,
        queue_of: Callable[[str], QueueSpec],
    ) -> None:
        """:param expires: seconds after which Redis drops a result.

        :param broker: publishes the bodies of chords.
        :param connect_timeout: seconds.
        :param queue_of: gives the queue of a task: for bodies of chords.
        """
        self._seconds = 0 if expires is None else max(1, math.ceil(expires))
        self._link = RedisLink(url, announce, connect_timeout)
        self._chords = ChordCounter(self._link, broker, self._keep, self._seconds, queue_of)
        self._waiting: deque[_Write] = deque()
        self._news = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and begin to write; that Redis cannot be reached is said, and is no error.

        :raises ConfigError: if a file that the URL names cannot be used.
        :raises BrokerError: if Redis refuses this user, or has no such database.
        """
        await self._link.open()
        self._writer = asyncio.create_task(self._write_all(), name="hybridpool-results")

    async def close(self) -> None:
        """Close the connections; what waits is given up, and said."""
        if self._writer is not None:
            self._writer.cancel()
            with suppress(asyncio.CancelledError):
                await self._writer
        await self._link.close()

    def wanted(self, delivery: Delivery) -> bool:  # noqa: ARG002  # the port's
        """Say yes: any client may read it."""
        return True

    def counts(self, delivery: Delivery) -> bool:
        """Tell whether the message is a part of a chord that is counted here."""
        return self._chords.of(delivery) is not None

    async def store(self, delivery: Delivery, task_id: str, meta: bytes) -> None:
        """Keep the result, and count it if it is a part of a chord; waits while Redis takes nothing.

        :raises MessageTooLarge: if the result is larger than a value of Redis may be.
        :raises BrokerError: if it is refused, or the body of its chord cannot be published.
        """
        if delivery.headers.get("ignore_result") is not True:
            await self._keep(task_id, meta)
        if delivery.headers.get("group") is not None:
            await self._chords.count(delivery, task_id, meta)

    async def _keep(self, task_id: str, meta: bytes) -> None:
        if len(meta) > self._link.max_bytes:
            raise MessageTooLarge(
                f"a result of {len(meta)} bytes is larger than Redis takes ({self._link.max_bytes}, proto-max-bulk-len)"
            )
        write = _Write(RESULT_PREFIX + task_id, meta, asyncio.get_running_loop().create_future())
        self._waiting.append(write)
        self._news.set()
        await write.done

    async def _write_all(self) -> None:
        failures = 0
        while True:
            raise_if_cancelled()
            await self._news.wait()
            batch = self._take_batch()
            if not batch:
                self._news.clear()
                continue
            try:
                refusals = await self._write(batch)
            except BrokerError as error:
                for write in batch:
                    _end(write, error)
                continue
            except BaseException:
                self._waiting.extendleft(reversed(batch))
                raise
            again = [write for write, refusal in zip(batch, refusals, strict=True) if is_passing_text(refusal)]
            for write, refusal in zip(batch, refusals, strict=True):
                if not is_passing_text(refusal):
                    _end(write, BrokerRefused(f"{self._link.url.masked}: {refusal}") if refusal else None)
            if not again:
                failures = 0
                self._link.well()
                continue
            self._waiting.extendleft(reversed(again))
            failures += 1
            self._link.in_trouble(next(filter(is_passing_text, refusals)))
            await asyncio.sleep(pause(failures))

    def _take_batch(self) -> list[_Write]:
        batch: list[_Write] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH_RESULTS:
            if self._waiting[0].done.done():
                # nothing waits for it any more: the worker ends
                self._waiting.popleft()
                continue
            size += len(self._waiting[0].meta)
            if batch and size > MAX_BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _write(self, batch: list[_Write]) -> list[str]:
        metas = [write.meta for write in batch]
        answers = await self._link.run(STORE, [write.key for write in batch], [str(self._seconds), *metas])
        return [answer.decode(errors="replace") for answer in answers]


def _end(write: _Write, error: BrokerError | None) -> None:
    if write.done.done():
        return
    if error is None:
        write.done.set_result(None)
    else:
        write.done.set_exception(error)
