"""Calls that are sent together, over a connection that fails for some of them."""

from collections.abc import Sequence

import pytest

from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._client.connection import ClientConnection
from hybridpool._config import init_layer, resolve
from hybridpool._message import Outgoing
from hybridpool._policy import backoff
from hybridpool._protocol.task_message import Request
from hybridpool.errors import BrokerError, BrokerUnavailable

pytestmark = pytest.mark.anyio


class Failing(MemoryBroker):
    """A broker that does not take every other message at first."""

    error: BrokerError = BrokerUnavailable("cut")
    times = 1

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[BrokerError | None]:
        """Store messages, or some of them."""
        if not self.times:
            return await super().publish_many(messages)
        self.times -= 1
        await super().publish_many(messages[::2])
        return [None if place % 2 == 0 else self.error for place in range(len(messages))]


def calls(count: int) -> list[Request]:
    """Return numbered calls."""
    return [Request(task="add", id=str(number), queue="q") for number in range(count)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the waits between attempts."""
    monkeypatch.setattr(backoff, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(backoff, "_MAX_PAUSE_S", 0.0)


async def test_only_what_failed_is_sent_again() -> None:
    """After a failure only the calls that the broker did not confirm are sent again."""
    server = MemoryServer()
    sending = ClientConnection(
        resolve([init_layer({})], cpus=lambda: 1).settings, lambda announce: Failing(server, announce)
    )
    try:
        handles = await sending.send_many(calls(9))
        assert [handle.id for handle in handles] == [str(number) for number in range(9)]
        assert len(server.queue("q")) == 9
    finally:
        await sending.close()


async def test_what_is_refused_is_told() -> None:
    """The error of a refused call says how many calls were confirmed."""
    server = MemoryServer()
    broker = Failing(server, lambda event: None)
    broker.error = BrokerError("too large")
    sending = ClientConnection(resolve([init_layer({})], cpus=lambda: 1).settings, lambda announce: broker)
    try:
        with pytest.raises(BrokerError, match="too large") as caught:
            await sending.send_many(calls(9))
        assert caught.value.__notes__ == ["5 of 9 calls were confirmed"]
        assert len(server.queue("q")) == 5
    finally:
        await sending.close()


async def test_a_queue_that_was_deleted() -> None:
    """A queue that was deleted since its first call is declared again with the next one."""
    server = MemoryServer()
    sending = ClientConnection(
        resolve([init_layer({})], cpus=lambda: 1).settings, lambda announce: MemoryBroker(server, announce)
    )
    try:
        for _ in range(2):
            await sending.send(Request(task="add", id="1", queue="q"))
            assert len(server.queue("q")) == 1
            server.delete("q")
        for _ in range(2):
            await sending.send_many(calls(3))
            assert len(server.queue("q")) == 3
            server.delete("q")
    finally:
        await sending.close()
