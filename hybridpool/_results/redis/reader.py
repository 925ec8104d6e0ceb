"""The client's side: results are waited for on one connection, and not asked for again and again.

A result may be stored before its channel is listened to, or after. So a client first listens, and asks for the result
once Redis has confirmed that; it comes by one of the two ways. After a lost connection it does both again, for all.
"""

import asyncio
import logging
import uuid
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from hybridpool._config.redis_url import RedisUrl
from hybridpool._protocol.result_message import is_final
from hybridpool._results.redis.client import (
    ANSWER_S,
    ERRORS,
    check_files,
    make_client,
    raise_if_cancelled,
    translated,
    words,
)
from hybridpool._results.redis.link import pause
from hybridpool._results.redis.scripts import RESULT_PREFIX
from hybridpool.errors import ResultError, ResultTimeout

log = logging.getLogger("hybridpool.client")
#: one listens, one asks
CONNECTIONS: Final = 2
#: seconds without a word from Redis after which it is asked whether it is there; as many again, and it is away: that is
#: when a worker takes it for that, too
SILENCE_S: Final = ANSWER_S / 2
#: results that are asked for, or listened to, in one request
MAX_BATCH: Final = 500


class RedisReader:
    """The client's side."""

    def __init__(self, url: RedisUrl, connect_timeout: float) -> None:
        """:param connect_timeout: seconds."""
        self._url = url
        self._connect_timeout = connect_timeout
        #: Celery's clients name one, whatever their backend; a worker that sends results as messages reaches nobody
        self.reply_to: str | None = str(uuid.uuid4())
        self._client: Any = None  # the library's types are those of its synchronous client too
        #: weak: an answer is kept as long as the claim that `expect` returned
        self._answers: weakref.WeakValueDictionary[str, asyncio.Future[bytes]] = weakref.WeakValueDictionary()
        #: answers that are waited for, and by how many
        self._wanted: dict[str, asyncio.Future[bytes]] = {}
        self._waiters: Counter[str] = Counter()
        #: channels that Redis has confirmed, whose results are to be asked for
        self._confirmed: set[str] = set()
        self._news = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Connect. What is sent is not waited for yet, so nothing is listened to.

        :raises ConfigError: if a file that the URL names cannot be used.
        :raises BrokerError: if Redis cannot be reached, or refuses this user.
        """
        if self._client is not None:
            return
        await check_files(self._url)
        client: Any = make_client(self._url, self._connect_timeout, CONNECTIONS)
        try:
            async with asyncio.timeout(self._connect_timeout + ANSWER_S):
                await client.ping()
        except ERRORS as error:
            await _close(client)
            raise translated(error, self._url) from None
        self._client = client

    def expect(self, task_id: str) -> object:
        """Return a claim on the answer, which is kept for as long as the claim is."""
        answer = self._answers[task_id] = asyncio.get_running_loop().create_future()
        return answer

    async def wait(self, task_id: str, timeout: float | None) -> bytes:
        """Wait for the answer; it can be asked for again.

        :raises ResultTimeout: if it does not come in time.
        """
        answer = self._answers.get(task_id)
        if answer is None:
            answer = self._answers[task_id] = asyncio.get_running_loop().create_future()
        if not answer.done():
            await self._wait_for(task_id, answer, timeout)
        return answer.result()

    def forget(self, task_id: str) -> None:
        """Give the answer up; Redis drops it in its time."""
        self._answers.pop(task_id, None)

    async def close(self) -> None:
        """Close the connections, and end every wait."""
        self._is_closed = True
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener
        if self._client is not None:
            await _close(self._client)
        for answer in list(self._answers.values()):
            if not answer.done():
                answer.set_exception(ResultError("the app was closed before the result came"))
                answer.exception()  # retrieved, so that asyncio does not log it if no client waits any more

    async def _wait_for(self, task_id: str, answer: "asyncio.Future[bytes]", timeout: float | None) -> None:
        if self._is_closed:
            raise ResultError("the app is closed")
        if self._listener is None:
            self._listener = asyncio.create_task(self._keep_listening(), name="hybridpool-results")
        self._waiters[task_id] += 1
        self._wanted[task_id] = answer
        self._news.set()
        try:
            await asyncio.wait_for(asyncio.shield(answer), timeout)
        except TimeoutError:
            raise ResultTimeout(f"no result of task {task_id} within {timeout:g} s; it may still be running") from None
        finally:
            self._waiters[task_id] -= 1
            if not self._waiters[task_id]:
                del self._waiters[task_id]
                if self._wanted.get(task_id) is answer:
                    del self._wanted[task_id]
                self._news.set()

    async def _keep_listening(self) -> None:
        failures, said = 0, ""

        def well() -> None:
            nonlocal failures, said
            if said:
                log.info("connected to %s again", self._url.masked)
            failures, said = 0, ""

        while True:
            raise_if_cancelled()
            try:
                await self.open()
                await self._listen(well)
            except Exception as error:  # noqa: BLE001  # results that are waited for come with the next connection
                failures += 1
                if (why := words(error)) != said:
                    said = why
                    log.warning(
                        "no connection to %s: %s; results that are waited for come later", self._url.masked, why
                    )
                await asyncio.sleep(pause(failures))

    async def _listen(self, well: Callable[[], None]) -> None:
        """Listen for what is waited for, until the connection is lost."""
        self._confirmed = set()
        self._news.set()
        async with self._client.pubsub() as pubsub:
            async with asyncio.timeout(self._connect_timeout + ANSWER_S):
                # a channel of its own, on which nothing is said: without any, Redis answers in another form
                await pubsub.subscribe(f"{RESULT_PREFIX}{self.reply_to}")
            # No TaskGroup: that of Python 3.11 leaves its task marked as cancelled when one of its tasks fails.
            tasks = [asyncio.create_task(self._take_all(pubsub, well)), asyncio.create_task(self._follow(pubsub))]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
        raise next((error for error in ended if isinstance(error, Exception)), ConnectionError("it was closed"))

    async def _follow(self, pubsub: Any) -> None:
        """Listen to the channels of what is waited for, and ask for what was stored before."""
        heard: set[str] = set()
        while True:
            raise_if_cancelled()
            await self._news.wait()
            self._news.clear()
            gone = [task_id for task_id in heard if task_id not in self._wanted]
            for batch in _batches(gone):
                await pubsub.unsubscribe(*(RESULT_PREFIX + task_id for task_id in batch))
            heard.difference_update(gone)
            new = [task_id for task_id in self._wanted if task_id not in heard]
            for batch in _batches(new):
                await pubsub.subscribe(*(RESULT_PREFIX + task_id for task_id in batch))
            heard.update(new)
            confirmed, self._confirmed = self._confirmed, set()
            for batch in _batches([task_id for task_id in confirmed if task_id in self._wanted]):
                async with asyncio.timeout(ANSWER_S):
                    metas = await self._client.mget([RESULT_PREFIX + task_id for task_id in batch])
                for task_id, meta in zip(batch, metas, strict=True):
                    self._answer(task_id, meta)

    async def _take_all(self, pubsub: Any, well: Callable[[], None]) -> None:
        is_asked = False
        while True:
            raise_if_cancelled()
            message = await pubsub.get_message(timeout=SILENCE_S)
            if message is None:
                if is_asked:
                    raise TimeoutError
                is_asked = True
                await pubsub.ping()
                continue
            is_asked = False
            well()
            channel = message["channel"]
            task_id = channel.decode().removeprefix(RESULT_PREFIX) if isinstance(channel, bytes) else ""
            match message["type"]:
                case "subscribe":
                    self._confirmed.add(task_id)
                    self._news.set()
                case "message":
                    self._answer(task_id, message["data"])
                case _:
                    pass

    def _answer(self, task_id: str, meta: bytes | None) -> None:
        answer = self._wanted.get(task_id)
        if meta is not None and answer is not None and not answer.done() and is_final(meta):
            answer.set_result(meta)


def _batches(items: list[str]) -> list[list[str]]:
    return [items[start : start + MAX_BATCH] for start in range(0, len(items), MAX_BATCH)]


async def _close(client: Any) -> None:
    await client.aclose()
    await client.connection_pool.disconnect()
