"""The App as programs use it: async and sync, over a real node and in memory, from several threads and from tasks."""

import datetime as dt
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

# the first call over a connection would import the driver otherwise, on the loop
import hybridpool._brokers.rabbitmq  # noqa: F401
from hybridpool import App, embedded, events
from hybridpool.errors import (
    BrokerUnavailable,
    ChildLost,
    NotRegistered,
    ResultError,
    ResultsDisabled,
    ResultTimeout,
    TaskFailed,
)
from tests.apps import second, worker
from tests.queues import BrokerConsole
from tests.rabbit import Node, free_ports
from tests.workers import PATIENCE, Worker, client_of, gate_in

#: the test app under the name by which this process imports it, so that tasks have the same names here and there
APP = "tests.apps.worker"
RESULT = 60.0


@pytest.fixture(scope="module")
def queue() -> str:
    """The queue of this file's worker."""
    return f"test-app-{time.time_ns()}"


@pytest.fixture(scope="module")
def running(rabbit_node: Node, queue: str) -> Iterator[Worker]:
    """One worker for the tests that need no other."""
    # the variable, so that children know it too
    with Worker(
        rabbit_node.url, queue, "-c2", app=APP, env={"HYBRIDPOOL_TASK_DEFAULT_QUEUE": queue}, ready=2
    ) as started:
        yield started


@pytest.fixture
def configured(running: Worker, rabbit_node: Node, queue: str) -> Iterator[App]:
    """The test app, told where its worker listens."""
    app = worker.app
    before = app.conf.broker_url, app.conf.task_default_queue
    app.conf.update(broker_url=rabbit_node.url, task_default_queue=queue)
    yield app
    app.close()
    app.conf.update(broker_url=before[0], task_default_queue=before[1])


@pytest.fixture
async def ours(configured: App) -> AsyncIterator[App]:
    """The same, for async code."""
    async with configured:
        yield configured


# ---- async -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_enqueue(ours: App) -> None:
    """`enqueue` sends a call, its handle returns the result each time, and the task can be called directly."""
    handle = await worker.add.enqueue(2, y=3)
    assert await handle.get(RESULT) == 5
    # asked again, it is still known
    assert await handle.get(0) == 5
    assert worker.add(2, 3) == 5


@pytest.mark.anyio
async def test_many_at_once(ours: App) -> None:
    """Three hundred calls that are sent at once each get their own result."""
    handles = []
    async with anyio.create_task_group() as tasks:

        async def send(number: int) -> None:
            handles.append((number, await worker.add.enqueue(number, 1)))

        for number in range(300):
            tasks.start_soon(send, number)
    assert [await handle.get(RESULT) for _, handle in handles] == [number + 1 for number, _ in handles]


@pytest.mark.anyio
async def test_enqueue_many(ours: App) -> None:
    """`enqueue_many` sends thousands of calls, and each gets its own result."""
    handles = await worker.add.enqueue_many([(number, 1) for number in range(2500)])
    assert [await handle.get(RESULT) for handle in handles] == [number + 1 for number in range(2500)]


def test_without_confirmation(configured: App, queue_name: str, broker_url: str) -> None:
    """Calls without confirmation all reach the queue before `close` returns."""
    call = worker.count.options(queue=queue_name, confirm=False, ignore_result=True)
    handles = [call.delay() for _ in range(3000)]
    with pytest.raises(ResultsDisabled, match="without confirmation"):
        handles[0].get(RESULT)
    configured.close()
    with BrokerConsole(broker_url) as console:
        console.until_depth(queue_name, 3000)
        console.delete(queue_name)


@pytest.mark.anyio
async def test_enqueued_without_confirmation(ours: App, queue_name: str, broker_url: str) -> None:
    """Calls enqueued without confirmation all reach the queue before `aclose` returns."""
    call = worker.count.options(queue=queue_name, confirm=False, ignore_result=True)
    for _ in range(1000):
        await call.enqueue()
    await call.enqueue_many([()] * 1000)
    await ours.aclose()
    with BrokerConsole(broker_url) as console:
        console.until_depth(queue_name, 2000)
        console.delete(queue_name)


@pytest.mark.anyio
async def test_a_result_is_confirmed(ours: App) -> None:
    """A call that wants a result is confirmed even with `confirm=False`."""
    assert await (await worker.add.options(confirm=False).enqueue(2, 3)).get(RESULT) == 5


@pytest.mark.anyio
async def test_one_of_many_is_wrong(ours: App, queue_name: str, broker_url: str) -> None:
    """`enqueue_many` sends nothing if one of the calls cannot be sent."""
    with pytest.raises(TypeError, match="argument 1 cannot be sent"):
        await worker.add.options(queue=queue_name).enqueue_many([(1, 2), (object(), 2)])
    with BrokerConsole(broker_url) as console:
        assert console.depth(queue_name) == -1


@pytest.mark.anyio
async def test_values(ours: App) -> None:
    """Text, nested values, dates, bytes and a megabyte come back equal."""
    moment = dt.datetime(2026, 3, 1, 12, 30, tzinfo=dt.UTC)
    sent = ["ümläut ✓ 🐇", {"a": [1, 2.5, None, True]}, moment, b"\x00\xff", "x" * 1_000_000]
    assert await (await worker.echo.enqueue(*sent, key="wört")).get(RESULT) == [sent, {"key": "wört"}]


@pytest.mark.anyio
async def test_options(ours: App, queue: str, queue_name: str, broker_url: str) -> None:
    """The options of a call reach the message's headers and properties."""
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    call = worker.add.options(
        queue=queue_name, expires=expires, priority=7, ignore_result=True, task_id="mine", headers={"tenant": "blue"}
    )
    handle = await call.enqueue(2, 3)
    assert handle.id == "mine"
    with BrokerConsole(broker_url) as console:
        message = console.take(queue_name)
    assert message.body == b'[[2,3],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
    expected = {"task": f"{APP}.add", "id": "mine", "root_id": "mine", "tenant": "blue", "ignore_result": True}
    assert message.headers.items() >= {**expected, "expires": expires.isoformat(), "retries": 0}.items()
    assert message.properties["priority"] == 7
    assert message.properties["delivery_mode"] == 2
    # else the broker would drop it in silence, and its sender wait for ever
    assert "expiration" not in message.properties
    assert "reply_to" not in message.properties
    with pytest.raises(ResultsDisabled, match="ignores its result"):
        await handle.get(RESULT)


@pytest.mark.anyio
async def test_send_by_name(ours: App) -> None:
    """`send` calls a task by its name alone, and an unknown name raises `NotRegistered`."""
    assert await (await ours.send(f"{APP}.add", (2,), {"y": 3})).get(RESULT) == 5
    with pytest.raises(NotRegistered, match=r"no\.such\.task"):
        await (await ours.send("no.such.task")).get(RESULT)


@pytest.mark.anyio
async def test_result_timeout(ours: App, tmp_path: Path) -> None:
    """`get` raises ResultTimeout, a TimeoutError, after its time, and can be called again for the result."""
    with gate_in(tmp_path) as gate:
        handle = await worker.hold.enqueue(gate.path)
        with pytest.raises(ResultTimeout, match=rf"no result of task {handle.id} within 0\.05 s") as caught:
            await handle.get(0.05)
        assert isinstance(caught.value, TimeoutError)
        gate.release()
        assert (await handle.get(RESULT)).startswith("ForkPoolWorker-")


@pytest.mark.anyio
async def test_failures(ours: App) -> None:
    """A task's exception arrives with its type, arguments and traceback; SystemExit arrives as `TaskFailed`."""
    with pytest.raises(ValueError, match="no way") as failed:
        await (await worker.fail.enqueue("no way")).get(RESULT)
    assert failed.value.args == ("no way",)
    (note,) = failed.value.__notes__
    assert note.startswith("\nIn the child:\nTraceback (most recent call last):\n")
    assert "in fail\n    raise ValueError(text)" in note
    with pytest.raises(worker.Unlucky) as known:
        await (await worker.fail_unlucky.enqueue("thirteen")).get(RESULT)
    assert known.value.args == ("thirteen", 13)
    with pytest.raises(TypeError, match="object has no JSON form"):
        await (await worker.unsendable.enqueue()).get(RESULT)
    # the client must not be made to exit by what a task does
    with pytest.raises(TaskFailed) as left:
        await (await worker.exits.enqueue(3)).get(RESULT)
    assert (left.value.kind, left.value.arguments) == ("builtins.SystemExit", (3,))


@pytest.mark.anyio
async def test_unsendable_argument(ours: App) -> None:
    """An argument without a JSON form is refused where the call is written, and the connection stays open."""
    with pytest.raises(TypeError, match=rf"{APP}\.echo: argument 2 cannot be sent: object has no JSON form"):
        await worker.echo.enqueue(1, object())
    with pytest.raises(TypeError, match=rf"{APP}\.echo: key cannot be sent: set has no JSON form"):
        await worker.echo.enqueue(key={1})
    with pytest.raises(TypeError, match="'countdwn' is not an option of a call"):
        await ours.send(f"{APP}.add", (2, 3), countdwn=4)
    assert await (await worker.add.enqueue(2, 3)).get(RESULT) == 5


@pytest.mark.anyio
async def test_results_disabled(running: Worker, rabbit_node: Node, queue: str) -> None:
    """`get` raises ResultsDisabled if no result backend is set."""
    async with App("mute", broker=rabbit_node.url, task_default_queue=queue) as mute:
        handle = await mute.send(f"{APP}.add", (2, 3))
        with pytest.raises(ResultsDisabled, match="result_backend is not set"):
            await handle.get(RESULT)


@pytest.mark.anyio
async def test_no_broker(queue_name: str) -> None:
    """Sending raises BrokerUnavailable after `broker_connection_timeout` if there is no broker."""
    (port,) = free_ports(1)
    settings = {"broker_connection_timeout": "100ms", "result_backend": "rpc://"}
    async with App("lonely", broker=f"amqp://guest:guest@127.0.0.1:{port}//", **settings) as lonely:
        with anyio.fail_after(PATIENCE), pytest.raises(BrokerUnavailable):
            await lonely.send(f"{APP}.add", (2, 3))


# ---- sync ------------------------------------------------------------------------------------------------------------


def test_delay(configured: App) -> None:
    """`delay`, `apply_async` and `send_task` send calls as they do in Celery."""
    assert worker.add.delay(2, 3).get(timeout=RESULT) == 5
    assert worker.add.apply_async((2,), {"y": 3}).get(RESULT) == 5
    assert configured.send_task(f"{APP}.add", (2, 3)).get(RESULT) == 5
    with pytest.raises(ValueError, match="no way"):
        worker.fail.delay("no way").get(RESULT)
    with pytest.raises(TypeError, match="did you mean 'queue'"):
        worker.add.apply_async((2, 3), quue="x")


def test_sync_timeout(configured: App, tmp_path: Path) -> None:
    """A synchronous `get` raises ResultTimeout after its time, and can be called again."""
    with gate_in(tmp_path) as gate:
        handle = worker.hold.delay(gate.path)
        with pytest.raises(ResultTimeout):
            handle.get(0.05)
        gate.release()
        assert handle.get(RESULT).startswith("ForkPoolWorker-")


def test_close_and_go_on(configured: App) -> None:
    """A closed app works again on its next call, and a second `close` does nothing."""
    assert worker.add.delay(2, 3).get(RESULT) == 5
    configured.close()
    configured.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "hybridpool-portal"]
    assert worker.add.delay(3, 4).get(RESULT) == 7


def test_several_threads(configured: App) -> None:
    """Threads share one background loop, and each gets its own results."""
    together = threading.Barrier(8)

    def ask(number: int) -> int:
        if number < together.parties:
            # the very first calls, which start the background loop, come at the same time
            together.wait(PATIENCE)
        return worker.add.delay(number, 1000).get(RESULT)

    with ThreadPoolExecutor(together.parties) as threads:
        assert list(threads.map(ask, range(200))) == list(range(1000, 1200))
    assert len([thread for thread in threading.enumerate() if thread.name == "hybridpool-portal"]) == 1


@pytest.mark.anyio
async def test_sync_from_async(ours: App) -> None:
    """`delay` and `get` called from worker threads of an event loop return."""
    handle = await anyio.to_thread.run_sync(worker.add.delay, 2, 3)
    assert await anyio.to_thread.run_sync(handle.get, RESULT) == 5


# ---- tasks that send tasks -------------------------------------------------------------------------------------------


def test_task_enqueues_a_task(configured: App, running: Worker, tmp_path: Path) -> None:
    """A task enqueues another task through the parent, and children hold no connection of their own."""
    handle = worker.enqueue_another.delay(str(tmp_path / "note"))
    other = handle.get(RESULT)
    running.see(rf"Task {APP}\.note\[{other}\] succeeded")
    assert (tmp_path / "note").read_text() == "second\n"
    assert all(child.net_connections() == [] for child in running.children())


def test_task_enqueues_to_the_default_queue(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """What a task enqueues goes to the queue that `--default-queue` names."""
    with Worker(broker_url, queue_name, "-c1") as own, client_of(broker_url, queue_name) as us:
        other = us.send_task("worker.enqueue_another", (str(tmp_path / "note"),)).get(RESULT)
        own.see(rf"Task worker\.note\[{other}\] succeeded", within=RESULT)


def test_chain_keeps_its_root(configured: App, running: Worker, queue_name: str, broker_url: str) -> None:
    """A task enqueued by a task carries the root's ID and its parent's ID."""
    first = worker.enqueue_to.delay(queue_name)
    inner = first.get(RESULT)
    with BrokerConsole(broker_url) as console:
        headers = console.take(queue_name).headers
    assert (headers["id"], headers["root_id"], headers["parent_id"]) == (inner, first.id, first.id)


def test_task_must_not_wait(configured: App) -> None:
    """A task that waits for another task's result gets an error instead."""
    with pytest.raises(ResultError, match="a task must not wait for another one"):
        worker.wait_for_another.delay().get(RESULT)


# ---- a worker inside this process ------------------------------------------------------------------------------------
#
# Its start waits, for some milliseconds, until the zygote's process has begun: vfork and exec.


@pytest.mark.may_block
@pytest.mark.anyio
async def test_embedded() -> None:
    """An embedded worker runs an app's tasks without a broker, and its events can be listened to."""
    heard: list[events.Event] = []
    bus = events.Bus()
    bus.subscribe(heard.append)
    async with embedded(worker.app, bus=bus, worker_concurrency=2) as inside:
        assert await (await worker.add.enqueue(2, 3)).get(RESULT) == 5
        with pytest.raises(ValueError, match="no way"):
            await (await worker.fail.enqueue("no way")).get(RESULT)
        with pytest.raises(ChildLost):
            await (await worker.leave.enqueue(3)).get(RESULT)
        assert await (await worker.task1.enqueue()).get(RESULT) in [f"ForkPoolWorker-{number}" for number in range(6)]
        assert inside.ready.is_set()
    assert {type(event) for event in heard} >= {events.TaskReceived, events.TaskSucceeded, events.ChildGone}


@pytest.mark.may_block
@pytest.mark.anyio
async def test_embedded_gives_the_app_back() -> None:
    """After the block of `embedded` the app has its own broker and settings again."""
    (port,) = free_ports(1)
    async with App(
        "elsewhere", broker=f"amqp://guest:guest@127.0.0.1:{port}//", broker_connection_timeout="100ms"
    ) as app:
        async with embedded(app, f"{APP}:app", result_backend="rpc://", worker_concurrency=1):
            assert await (await app.send(f"{APP}.add", (2, 3))).get(RESULT) == 5
        assert app.conf.result_backend is None
        with anyio.fail_after(PATIENCE), pytest.raises(BrokerUnavailable):
            await app.send(f"{APP}.add", (2, 3))


@pytest.mark.may_block
@pytest.mark.anyio
async def test_two_workers_in_one_process() -> None:
    """Two embedded workers in one process have their own settings, children, queues and results."""
    async with embedded(worker.app, worker_concurrency=1), embedded(second.app, worker_concurrency=2):
        one, two = await worker.identity.enqueue(), await second.whoami.enqueue()
        assert (await one.get(RESULT))["name"] == f"{APP}.identity"
        assert await two.get(RESULT) == "second"
        with pytest.raises(NotRegistered):
            await (await second.app.send(f"{APP}.add", (2, 3))).get(RESULT)
        for number in range(20):
            handles = await worker.add.enqueue(number, 1), await second.double.enqueue(number)
            assert [await handle.get(RESULT) for handle in handles] == [number + 1, number * 2]


@pytest.mark.may_block
@pytest.mark.anyio
async def test_embedded_leaves_nothing_when_it_fails() -> None:
    """An exception in the block of `embedded` stops the worker and is raised as it is."""

    async def fail_inside() -> None:
        async with embedded(worker.app, worker_concurrency=1):
            assert await (await worker.add.enqueue(2, 3)).get(RESULT) == 5
            raise ZeroDivisionError

    with anyio.fail_after(PATIENCE), pytest.raises(ZeroDivisionError):
        await fail_inside()
