"""What broker tests share: a consumer that collects, events that can be awaited, a queue's depth."""

import gc
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
import pytest

from hybridpool._brokers.base import Broker
from hybridpool._message import Delivery
from hybridpool.errors import QueueNotFound
from hybridpool.events import Event

#: seconds; a test that waits longer for anything has failed
PATIENCE = 60.0

Item = TypeVar("Item")
Kind = TypeVar("Kind")


class Collected(Generic[Item]):
    """Things that come in by a callback and are waited for."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._news = anyio.Event()

    def __call__(self, item: Item) -> None:
        self.items.append(item)
        self._news.set()

    async def until(self, true: Callable[[list[Item]], bool], patience: float = PATIENCE) -> None:
        """Wait until the collection meets the condition."""
        with anyio.fail_after(patience):
            while not true(self.items):
                self._news = anyio.Event()
                await self._news.wait()

    async def take(self, number: int, patience: float = PATIENCE) -> list[Item]:
        """Wait for this many and take them out; it must not be more."""
        await self.until(lambda items: len(items) >= number, patience)
        taken, self.items = self.items, []
        assert len(taken) == number
        return taken


Inbox = Collected[Delivery]


class Events(Collected[Event]):
    """What a broker announced."""

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Return the events of one kind."""
        return [event for event in self.items if isinstance(event, kind)]

    async def see(self, kind: type[object], number: int = 1, patience: float = PATIENCE) -> None:
        """Wait until there were this many events of a kind."""
        await self.until(lambda _: len(self.of(kind)) >= number, patience)


async def until_depth(broker: Broker, queue: str, depth: int) -> None:
    """Wait until so many messages are ready; each look is a round trip to the broker."""
    with anyio.fail_after(PATIENCE):
        while (found := await broker.depth(queue)) != depth:
            assert found >= 0


async def until_missing(broker: Broker, queue: str) -> None:
    """Wait until the queue does not exist."""
    with anyio.fail_after(PATIENCE):
        with pytest.raises(QueueNotFound, match=queue):  # noqa: PT012  each look is a round trip to the broker
            while True:
                await broker.depth(queue)


def assert_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Fail if a task or future failed unnoticed, or the client library printed its own tracebacks."""
    gc.collect()
    noise = [record for record in caplog.records if record.name.partition(".")[0] in ("asyncio", "aiormq", "aio_pika")]
    assert [record.getMessage() for record in noise] == []
