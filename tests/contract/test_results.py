"""The result port: one suite for every backend."""

import asyncio
import gc
import importlib
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import attrs
import pytest

from hybridpool._brokers.base import Broker
from hybridpool._brokers.factory import open_broker
from hybridpool._brokers.memory import MemoryServer
from hybridpool._config import Settings, init_layer, resolve
from hybridpool._message import Delivery
from hybridpool._results.base import ResultReader, ResultStore
from hybridpool._results.factory import result_reader, result_store
from hybridpool.errors import MessageTooLarge, ResultError, ResultTimeout
from tests.contract.inbox import PATIENCE, Events, assert_quiet

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may leave a task that died unseen."""
    yield
    assert_quiet(caplog)


@attrs.frozen
class Sides:
    """Both sides of a backend."""

    store: ResultStore
    reader: ResultReader
    settings: Settings
    broker: Broker

    def delivery(self, **headers: object) -> Delivery:
        """Return a task message of this client."""
        return delivery(self.reader.reply_to, **headers)

    async def send(self, task_id: str, meta: bytes) -> None:
        """Store a result of a task that this client sent."""
        await self.store.store(self.delivery(id=task_id), task_id, meta)


def delivery(reply_to: str | None, **headers: object) -> Delivery:
    """Return a task message."""
    return Delivery(
        queue="q", tag=1, channel=1, redelivered=False, headers=headers, content_type="application/json",
        content_encoding="utf-8", correlation_id=None, reply_to=reply_to, priority=None, exchange="", routing_key="q",
        body=b"[[],{},{}]",
    )  # fmt: skip


def success(value: int) -> bytes:
    """Return the meta of a task that returned."""
    return b'{"status":"SUCCESS","result":%d}' % value


def new_id() -> str:
    """Return an id that no other test uses."""
    return str(uuid.uuid4())


@pytest.fixture(params=["rpc, memory", "rpc, rabbitmq", "redis"])
def chosen(request: pytest.FixtureRequest) -> tuple[str, Settings]:
    """Return the broker's URL, and the settings; what they need is started and imported here, and not on the loop."""
    url = request.getfixturevalue("broker_url") if "rabbitmq" in request.param else "memory://"
    open_broker(url, Events(), server=MemoryServer())
    backend = "rpc://"
    if request.param == "redis":
        importlib.import_module("hybridpool._results.redis")
        backend = request.getfixturevalue("redis").url
    return url, resolve([init_layer({"result_backend": backend, "result_expires": "1m"})]).settings


@pytest.fixture
async def sides(chosen: tuple[str, Settings]) -> AsyncIterator[Sides]:
    """Open both sides of each backend."""
    (url, settings), server, observed = chosen, MemoryServer(), Events()
    async with AsyncExitStack() as stack:
        brokers = [await stack.enter_async_context(open_broker(url, observed, server=server)) for _ in range(2)]
        for broker in brokers:
            await broker.connected(PATIENCE)
        store = await stack.enter_async_context(result_store(settings, brokers[0], observed))
        reader = result_reader(settings, brokers[1])
        assert store is not None
        assert reader is not None
        await reader.open()
        yield Sides(store, reader, settings, brokers[0])
        await reader.close()


async def test_a_result_that_is_waited_for(sides: Sides) -> None:
    """A client that waits for a result gets it when it is stored, and every time that it asks after that."""
    task_id = new_id()
    claim = sides.reader.expect(task_id)
    waiting = [asyncio.ensure_future(sides.reader.wait(task_id, PATIENCE)) for _ in range(2)]
    await asyncio.sleep(0)
    await sides.send(task_id, success(5))
    assert [await each for each in waiting] == [success(5)] * 2
    assert await sides.reader.wait(task_id, PATIENCE) == success(5)
    del claim


async def test_a_result_that_is_there(sides: Sides) -> None:
    """A client that asks later than the result is stored gets it."""
    task_id = new_id()
    claim = sides.reader.expect(task_id)
    await sides.send(task_id, success(6))
    assert await sides.reader.wait(task_id, PATIENCE) == success(6)
    del claim


async def test_many(sides: Sides) -> None:
    """Each of many tasks, stored and waited for at the same time, gets its own result."""
    ids = [new_id() for _ in range(700)]
    claims = [sides.reader.expect(task_id) for task_id in ids]
    _, answers = await asyncio.gather(
        asyncio.gather(*(sides.send(task_id, success(n)) for n, task_id in enumerate(ids))),
        asyncio.gather(*(sides.reader.wait(task_id, PATIENCE) for task_id in ids)),
    )
    assert answers == [success(n) for n in range(700)]
    del claims


async def test_states_that_others_follow(sides: Sides) -> None:
    """A state that is not the last one does not end the wait."""
    task_id = new_id()
    claim = sides.reader.expect(task_id)
    waiting = asyncio.ensure_future(sides.reader.wait(task_id, PATIENCE))
    await sides.send(task_id, b'{"status":"RETRY","result":null}')
    with pytest.raises(ResultTimeout, match="may still be running"):
        await sides.reader.wait(task_id, 0.05)
    assert not waiting.done()
    await sides.send(task_id, success(1))
    assert await waiting == success(1)
    del claim


async def test_closed(sides: Sides) -> None:
    """A wait ends with an error when the client closes."""
    task_id = new_id()
    claim = sides.reader.expect(task_id)
    waiting = asyncio.ensure_future(sides.reader.wait(task_id, None))
    await asyncio.sleep(0)
    await sides.reader.close()
    with pytest.raises(ResultError, match="closed"):
        await waiting
    del claim


async def test_forgotten(sides: Sides) -> None:
    """A result that no handle claims is not kept in the client, and is no error."""
    task_id = new_id()
    claim = sides.reader.expect(task_id)
    sides.reader.forget(task_id)
    del claim
    gc.collect()
    await sides.send(task_id, success(1))
    other = new_id()
    claim = sides.reader.expect(other)
    await sides.send(other, success(2))
    assert await sides.reader.wait(other, PATIENCE) == success(2)
    del claim


@pytest.mark.parametrize("chosen", ["redis"], indirect=True)  # of rpc it is the broker's limit: test_refusals.py
async def test_too_large(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that is larger than the backend takes is refused as such, and the others are stored."""
    monkeypatch.setattr(sides.store._link, "max_bytes", 100)  # type: ignore[attr-defined]
    with pytest.raises(MessageTooLarge, match="result of 200 bytes"):
        await sides.send(new_id(), b"x" * 200)
    await sides.send(new_id(), success(1))
