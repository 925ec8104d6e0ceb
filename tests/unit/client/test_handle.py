"""Handles, over the memory broker, with the worker's side of `rpc://` played by the test."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import pytest
from celery import Celery
from celery.backends.base import Backend

import hybridpool._client.connection  # noqa: F401  # what the first call imports, here and not on the loop
from hybridpool import App
from hybridpool._app import override_transport
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._client.result_handle import Handle, SyncHandle
from hybridpool._client.sync_portal import Portal
from hybridpool._ipc.codec import encode
from hybridpool._message import Delivery, QueueSpec
from hybridpool._outcome import Lost, Outcome, Raised, Returned
from hybridpool._protocol.result_message import write_meta
from hybridpool._protocol.task_headers import read_head
from hybridpool._results.rpc import RpcStore
from hybridpool.errors import CannotSend, ChildLost, ResultError, ResultsDisabled, ResultTimeout, TaskFailed
from tests.contract.inbox import Inbox
from tests.strategies import NOON

#: seconds; a test that waits longer for anything has failed
PATIENCE = 60.0
QUEUE = "celery"


class Worker:
    """Answers tasks as a worker does."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.inbox = Inbox()

    async def next(self) -> Delivery:
        """Wait for a task."""
        [delivery] = await self.inbox.take(1)
        return delivery

    async def answer(self, outcome: Outcome) -> Delivery:
        """Answer the next task."""
        delivery = await self.next()
        await self.say(delivery, write_meta(read_head(delivery), outcome, NOON))
        return delivery

    async def say(self, delivery: Delivery, meta: bytes) -> None:
        """Send a result message to the client."""
        await RpcStore(self.broker, None).store(delivery, str(delivery.headers["id"]), meta)


@pytest.fixture
def server() -> MemoryServer:
    """Make a broker."""
    return MemoryServer()


@pytest.fixture
async def worker(server: MemoryServer) -> AsyncIterator[Worker]:
    """Consume what the app sends."""
    async with MemoryBroker(server, lambda event: None) as broker:
        await broker.declare(QueueSpec(name=QUEUE))
        made = Worker(broker)
        await broker.consume(QUEUE, 0, made.inbox)
        yield made


@pytest.fixture
async def app(server: MemoryServer) -> AsyncIterator[App]:
    """Make an app that sends over the memory broker."""
    made = App("shop", result_backend="rpc://", task_default_queue=QUEUE, worker_concurrency=1)
    override_transport(made, (partial(MemoryBroker, server), made.conf.settings()))
    async with made:
        yield made


async def test_a_result(app: App, worker: Worker) -> None:
    """`get` returns the task's result."""
    handle = await app.send("shop.add", (2, 3))
    delivery = await worker.answer(Returned(b"5", "5"))
    assert await handle.get(PATIENCE) == 5
    assert (handle.task, handle.id) == ("shop.add", delivery.headers["id"])
    assert repr(handle) == f"<Handle shop.add[{handle.id}]>"


async def test_results_find_their_own_handle(app: App, worker: Worker) -> None:
    """Results that arrive in another order reach their own handles."""
    handles = [await app.send("shop.add", (number,)) for number in range(3)]
    deliveries = await worker.inbox.take(3)
    for number, delivery in reversed(list(enumerate(deliveries))):
        meta = write_meta(read_head(delivery), Returned(encode(number), ""), NOON)
        await worker.say(delivery, meta)
    assert [await handle.get(PATIENCE) for handle in handles] == [0, 1, 2]


async def test_it_can_be_asked_for_again(app: App, worker: Worker) -> None:
    """A result can be asked for again."""
    handle = await app.send("shop.add")
    await worker.answer(Returned(b"5", "5"))
    assert [await handle.get(PATIENCE), await handle.get(0.01)] == [5, 5]


async def test_exceptions(app: App, worker: Worker) -> None:
    """A failed task raises its exception."""
    handle = await app.send("shop.add")
    await worker.answer(Raised("ValueError", "builtins", b'["x"]', "", "Traceback …"))
    with pytest.raises(ValueError, match="x"):
        await handle.get(PATIENCE)


async def test_a_lost_child(app: App, worker: Worker) -> None:
    """A lost child raises ChildLost."""
    handle = await app.send("shop.add")
    await worker.answer(Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1"))
    with pytest.raises(ChildLost, match="signal 9"):
        await handle.get(PATIENCE)


async def test_not_in_time(app: App, worker: Worker) -> None:
    """`get` raises ResultTimeout after its time, and a later `get` returns the result."""
    handle = await app.send("shop.add")
    with pytest.raises(ResultTimeout, match=rf"no result of task {handle.id} within 0.01 s"):
        await handle.get(0.01)
    await worker.answer(Returned(b"5", "5"))
    assert await handle.get(PATIENCE) == 5


async def test_a_cancelled_wait_harms_nobody(app: App, worker: Worker) -> None:
    """A cancelled wait does not take the result from the next one."""
    handle = await app.send("shop.add")
    with anyio.move_on_after(0.01):
        await handle.get()
    await worker.answer(Returned(b"5", "5"))
    assert await handle.get(PATIENCE) == 5


async def test_no_backend(server: MemoryServer, worker: Worker) -> None:
    """Without a backend `get` raises ResultsDisabled, and the message has no reply queue."""
    app = App("shop", task_default_queue=QUEUE, worker_concurrency=1)
    override_transport(app, (partial(MemoryBroker, server), app.conf.settings()))
    async with app:
        handle = await app.send("shop.add")
        with pytest.raises(ResultsDisabled, match="result_backend is not set"):
            await handle.get(PATIENCE)
        handle.forget()
    assert (await worker.next()).reply_to is None


async def test_an_ignored_result(app: App, worker: Worker) -> None:
    """With `ignore_result` `get` raises ResultsDisabled, and the message has no reply queue."""
    handle = await app.send("shop.add", ignore_result=True)
    with pytest.raises(ResultsDisabled, match="ignores its result"):
        await handle.get(PATIENCE)
    assert (await worker.next()).reply_to is None


async def test_a_forgotten_result(app: App, worker: Worker) -> None:
    """`get` after `forget` raises ResultError."""
    handle = await app.send("shop.add")
    handle.forget()
    await worker.answer(Returned(b"5", "5"))
    with pytest.raises(ResultError, match="given up"):
        await handle.get(PATIENCE)


async def test_a_waiter_when_the_app_closes(app: App, worker: Worker) -> None:
    """A caller that waits when the app closes gets ResultError and is not cancelled."""
    handle = await app.send("shop.add")
    raised: list[type[BaseException]] = []

    async def wait() -> None:
        try:
            await handle.get()
        except (ResultError, asyncio.CancelledError) as error:
            raised.append(type(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await worker.next()
        await app.aclose()
    assert len(raised) == 1
    assert issubclass(raised[0], ResultError)


@pytest.mark.parametrize(
    ("state", "result"),
    [("STARTED", {"pid": 77, "hostname": "h"}), ("RETRY", ValueError("not yet")), ("RECEIVED", None)],
)
async def test_news_of_a_celery_worker_are_no_result(app: App, worker: Worker, state: str, result: object) -> None:
    """A Celery worker's messages about starts and retries do not count as results."""
    handle = await app.send("shop.add")
    delivery = await worker.next()
    backend = Backend(app=Celery("test", set_as_current=False))
    meta = backend._get_result_meta(backend.encode_result(result, state), state, None, None)
    await worker.say(delivery, backend.encode({**meta, "task_id": handle.id}).encode())
    await worker.say(delivery, write_meta(read_head(delivery), Returned(b"5", "5"), NOON))
    assert await handle.get(PATIENCE) == 5


async def test_dropped_handles_do_not_pile_up(app: App, worker: Worker) -> None:
    """Results of handles that were dropped are not kept."""
    for _ in range(50):
        await app.send("shop.add")
    for delivery in await worker.inbox.take(50):
        meta = write_meta(read_head(delivery), Returned(encode("unwanted" * 1000), ""), NOON)
        await worker.say(delivery, meta)
    handle = await app.send("shop.add")
    await worker.answer(Returned(b"5", "5"))
    assert await handle.get(PATIENCE) == 5
    gc.collect()
    # Futures of other tests may still be about, and may have failed.
    ended = [found for found in gc.get_objects() if isinstance(found, asyncio.Future) and found.done()]
    answers = [future.result() for future in ended if not future.cancelled() and future.exception() is None]
    assert [answer for answer in answers if "unwanted" in str(answer)] == []


def test_from_another_thread() -> None:
    """A synchronous handle waits on the portal's thread, and raises what it raises there."""
    portal = Portal()

    class Reader:
        reply_to: str | None = None

        def __init__(self) -> None:
            self.thread = ""

        async def open(self) -> None: ...

        def expect(self, task_id: str) -> None: ...

        async def wait(self, task_id: str, timeout: float | None) -> bytes:
            self.thread = threading.current_thread().name
            if timeout == 0:
                raise ResultTimeout("no")
            return b'{"status": "SUCCESS", "result": 5}'

        def forget(self, task_id: str) -> None: ...

        async def close(self) -> None: ...

    reader = Reader()
    handle: SyncHandle[int] = SyncHandle(Handle("shop.add", "id-1", reader), lambda: portal)
    try:
        assert handle.get(PATIENCE) == 5
        assert reader.thread == "hybridpool-portal"
        with pytest.raises(ResultTimeout):
            handle.get(0)
        handle.forget()
        assert (handle.task, handle.id, repr(handle)) == ("shop.add", "id-1", "<SyncHandle shop.add[id-1]>")
    finally:
        portal.close()


def test_a_task_must_not_wait_for_another() -> None:
    """A synchronous `get` within a task raises an error."""
    handle: SyncHandle[int] = SyncHandle(Handle("shop.add", "id-1", None), None)
    with pytest.raises(ResultError, match="must not wait"):
        handle.get()


async def test_unknown_exceptions_tell_their_story(app: App, worker: Worker) -> None:
    """An exception of an unknown module is raised as TaskFailed, with its name and traceback."""
    handle = await app.send("shop.add")
    await worker.answer(Raised("Odd", "only.there", b'["x"]', "", "Traceback …"))
    with pytest.raises(TaskFailed) as caught:
        await handle.get(PATIENCE)
    assert (caught.value.kind, caught.value.traceback) == ("only.there.Odd", "Traceback …")


@pytest.mark.parametrize("timeout", [float("nan"), "5", True])
async def test_a_timeout_that_is_no_time(app: App, worker: Worker, timeout: Any) -> None:
    """A timeout that is not a number of seconds is refused."""
    handle = await app.send("t")
    with pytest.raises(ResultError, match="must be seconds, not"):
        await handle.get(timeout)


@pytest.mark.parametrize("number", [1, 2])
async def test_one_id_for_many_calls(app: App, worker: Worker, number: int) -> None:
    """One ID for several calls is refused."""
    if number == 1:
        [handle] = await app.send_many("t", [()], task_id="one")
        assert handle.id == "one"
    else:
        with pytest.raises(CannotSend, match="the id of one call, not of 2"):
            await app.send_many("t", [(), ()], task_id="one")
