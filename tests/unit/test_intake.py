"""Delivery → admitted or not → a job for the pool, over the memory broker."""

import datetime as dt
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import attrs
import pytest
from msgspec import structs

from hybridpool import events
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._config import Settings, init_layer, resolve
from hybridpool._ipc.codec import JSON, PICKLE, encode
from hybridpool._ipc.envelope import MESSAGE, unpack_envelope
from hybridpool._lanes.base import Job
from hybridpool._message import Outgoing, QueueSpec
from hybridpool._outcome import Lost, Outcome, Returned
from hybridpool._policy.admission import MAX_RETURNS
from hybridpool._policy.settlement import DeliveryOptions, GuestOptions
from hybridpool._results.rpc import RpcStore
from hybridpool._task import TaskOptions
from hybridpool._worker.guest import Guest
from hybridpool._worker.intake import Intake
from hybridpool._worker.received import Received
from hybridpool._worker.redelivery import RedeliveryTracker
from hybridpool._worker.settlement import Settler
from hybridpool.errors import PoolClosed
from tests.contract.inbox import Events

TASKS = {
    "shop.add": TaskOptions(name="shop.add"),
    "shop.once": TaskOptions(name="shop.once", acks_late=False, max_deliveries=1),
    "shop.mute": TaskOptions(name="shop.mute", ignore_result=True),
    "shop.loud": TaskOptions(name="shop.loud", ignore_result=False, acks_late=True),
    "shop.fetch": TaskOptions(name="shop.fetch", lane="async", concurrency=20),
    "shop.cpu": TaskOptions(name="shop.cpu", lane="process", acks_late=False),
}
HOUR = dt.timedelta(hours=1)


@attrs.define
class Pool:
    """A pool as far as intake needs one: keeps its jobs."""

    jobs: list[Job] = attrs.field(factory=list)
    is_closed: bool = False

    def submit(self, job: Job) -> None:
        """Keep a job."""
        if self.is_closed:
            raise PoolClosed("stopping")
        self.jobs.append(job)


@attrs.define
class Bench:
    """An intake between a broker and a pool."""

    server: MemoryServer
    broker: MemoryBroker
    pool: Pool
    intake: Intake
    observed: Events

    async def send(self, task: str = "shop.add", content_type: str = JSON, body: bytes = b"", **headers: Any) -> None:
        """Send a message, and let it be taken in."""
        message = Outgoing(
            body=body or encode([[], {}, None]),
            routing_key="celery",
            headers={"task": task, "id": "id-1", **headers},
            content_type=content_type,
            reply_to="answers",
        )
        self.server.put(message)
        await anyio.wait_all_tasks_blocked()

    async def depths(self) -> tuple[int, int]:
        """Return how many messages are in the queue and how many are dead letters, after the connection has ended."""
        async with MemoryBroker(self.server, lambda event: None) as other:
            await self.broker.__aexit__(None, None, None)
            await other.declare(QueueSpec(name="celery.dead"))
            return await other.depth("celery"), await other.depth("celery.dead")


def settings(**values: object) -> Settings:
    """Return settings."""
    return resolve([init_layer({"worker_concurrency": 1, **values})]).settings


@pytest.fixture
def chosen() -> dict[str, object]:
    """Return the settings; tests override it."""
    return {}


@pytest.fixture
async def bench(chosen: dict[str, object]) -> AsyncIterator[Bench]:
    """Make an intake over a memory broker."""
    server, observed, bus, pool = MemoryServer(), Events(), events.Bus(), Pool()
    bus.subscribe(observed)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(MemoryBroker(server, lambda event: None))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for queue in ("celery", "answers"):
            await broker.declare(QueueSpec(name=queue))
        tracker = RedeliveryTracker(broker, bus)
        settler = Settler(broker, RpcStore(broker, None), tracker, bus, tasks, "hybridpool@host", "classic")
        intake = Intake(broker, settler, tracker, pool.submit, TASKS, settings(**chosen), bus)
        await broker.consume("celery", 0, intake.take)
        yield Bench(server, broker, pool, intake, observed)


def received(job: Job) -> Received:
    """Return what a job was made of."""
    assert isinstance(job.cargo, Received)
    return job.cargo


def options(job: Job) -> DeliveryOptions:
    """Return the delivery options of a job."""
    return received(job).options


def may_start(job: Job) -> bool:
    """Ask, as a lane does just before it gives the job to a child."""
    assert job.may_start is not None
    return job.may_start(job)


def begins(job: Job) -> None:
    """Say, as the lane does, that a child has begun a call."""
    assert job.on_begun is not None
    job.on_begun(job)


async def test_a_job(bench: Bench) -> None:
    """A message becomes a job with its body, options and ids, and is announced."""
    body = encode([[2, 3], {}, None])
    sender: dict[str, Any] = {"root_id": "root", "parent_id": "parent", "argsrepr": "(2, 3)", "kwargsrepr": 5}
    before = time.time()
    await bench.send(body=body, retries=2, **sender)
    [job] = bench.pool.jobs
    assert (job.task, job.id, job.body, job.content_type) == ("shop.add", "id-1", body, JSON)
    assert (job.retries, job.root_id, job.on_begun) == (2, "root", None)
    assert may_start(job)
    [event] = bench.observed.of(events.TaskReceived)
    assert before <= event.task.timestamp <= time.time()
    # a repr that is not text counts as none
    assert structs.replace(event.task, timestamp=0.0) == events.TaskRef(
        "shop.add", "id-1", "(2, 3)", "", "root", "parent", 2, None, "celery"
    )


async def test_it_is_acknowledged_when_it_is_done(bench: Bench) -> None:
    """A message is acknowledged once its task has ended, and not before."""
    await bench.send(ignore_result=True)
    [job] = bench.pool.jobs
    assert await bench.broker.depth("celery") == 0
    job.on_done(job, Returned(b"5", "5"), "ForkPoolWorker-1", 0.1)
    assert bench.observed.of(events.TaskSucceeded)[0].child == "ForkPoolWorker-1"
    assert await bench.depths() == (0, 0)


async def test_it_stays_the_brokers_until_then(bench: Bench) -> None:
    """Messages that are not settled go back to their queue with the connection."""
    await bench.send()
    assert await bench.depths() == (1, 0)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"task": "shop.gone"}, "unknown task 'shop.gone'"),
        ({"task": ""}, "header 'task' is missing"),
        ({"retries": "x"}, "header 'retries' is not a count"),
        ({"content_type": PICKLE}, "not in accept_content"),
    ],
)
async def test_what_is_not_run(bench: Bench, message: dict[str, Any], reason: str) -> None:
    """A message that cannot be run is dead-lettered, and not run."""
    await bench.send(**message)
    assert bench.pool.jobs == []
    [event] = bench.observed.of(events.TaskRefused)
    assert reason in event.reason
    assert await bench.depths() == (0, 1)


async def test_long_before_its_time(bench: Bench) -> None:
    """A message that comes before its time is published again with a delay, and acknowledged."""
    await bench.send(eta=(dt.datetime.now(dt.UTC) + HOUR).isoformat())
    assert bench.pool.jobs == []
    [event] = bench.observed.of(events.TaskPostponed)
    assert 3500 < event.wait < 3601
    assert await bench.depths() == (0, 0), "it is neither in the queue nor a dead letter: the broker holds it"


async def test_just_before_its_time(bench: Bench) -> None:
    """A message that comes less than a second before its time waits here, and is run then."""
    eta = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.2)
    await bench.send(eta=eta.isoformat())
    assert bench.pool.jobs == []
    with anyio.fail_after(30):
        while not bench.pool.jobs:
            await anyio.lowlevel.checkpoint()
    assert dt.datetime.now(dt.UTC) >= eta


async def test_held_and_given_back(bench: Bench) -> None:
    """A worker that stops requeues the messages that wait here for their time."""
    await bench.send(eta=(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.5)).isoformat())
    assert bench.intake.give_back([]) == 1
    assert await bench.depths() == (1, 0)


async def test_expired_on_arrival(bench: Bench) -> None:
    """An expired message is acknowledged, and neither run nor dead-lettered."""
    await bench.send(expires=(dt.datetime.now(dt.UTC) - HOUR).isoformat())
    assert bench.pool.jobs == []
    assert bench.observed.of(events.TaskExpired)
    assert await bench.depths() == (0, 0)


async def test_expired_while_it_waited(bench: Bench) -> None:
    """A task that expires while it waits for a child is not run."""
    await bench.send(expires=(dt.datetime.now(dt.UTC) + HOUR).isoformat())
    [job] = bench.pool.jobs
    assert may_start(job)
    received(job).head.expires = dt.datetime.now(dt.UTC) - HOUR
    assert not may_start(job)
    await anyio.wait_all_tasks_blocked()
    assert bench.observed.of(events.TaskExpired)
    assert await bench.depths() == (0, 0)


async def lanes_of(bench: Bench) -> list[tuple[str, str, int | None, bool]]:
    """Send a call of three tasks, and return what a lane needs to know of each job."""
    for task in ("shop.add", "shop.fetch", "shop.cpu"):
        await bench.send(task)
    return [(job.task, job.lane, job.concurrency, job.may_rerun) for job in bench.pool.jobs]


async def test_lane(bench: Bench) -> None:
    """A job has its task's lane and concurrency; it may start again only if its message is acknowledged late."""
    assert await lanes_of(bench) == [
        ("shop.add", "process", None, True),
        ("shop.fetch", "async", 20, True),
        ("shop.cpu", "process", None, False),
    ]


@pytest.mark.parametrize("chosen", [{"task_default_lane": "thread", "task_acks_late": False}])
async def test_default_lane(bench: Bench) -> None:
    """A task that names no lane runs in the one of the settings."""
    assert await lanes_of(bench) == [
        ("shop.add", "thread", None, False),
        ("shop.fetch", "async", 20, False),
        ("shop.cpu", "process", None, False),
    ]


async def test_acknowledged_when_begun(bench: Bench) -> None:
    """A task with acks_late=False is acknowledged when it has begun; if its child dies, it does not run again."""
    await bench.send("shop.once")
    [job] = bench.pool.jobs
    assert may_start(job)
    assert may_start(job), "a call that a dead child never read is started again"
    assert not received(job).acknowledged, "if the worker is killed now, nothing may be lost"
    begins(job)
    assert received(job).acknowledged
    job.on_done(job, Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1"), "ForkPoolWorker-1", 0.0)
    await anyio.wait_all_tasks_blocked()
    assert await bench.depths() == (0, 0)


@pytest.mark.parametrize("outcome", [Returned(b"1", "1"), Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1")])
async def test_acknowledged_when_its_end_is_heard_first(bench: Bench, outcome: Outcome) -> None:
    """A short task, or one whose child died at once, is acknowledged without having been seen to begin."""
    await bench.send("shop.once")
    [job] = bench.pool.jobs
    assert may_start(job)
    job.on_done(job, outcome, "ForkPoolWorker-1", 0.0)
    assert received(job).acknowledged
    await anyio.wait_all_tasks_blocked()
    assert await bench.depths() == (0, 0)


async def test_an_early_answer_is_given_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message with an early acknowledgement is acknowledged once, though its begin and its end are told."""
    answered: list[object] = []
    monkeypatch.setattr(bench.broker, "ack", answered.append)
    await bench.send("shop.once")
    [job] = bench.pool.jobs
    assert may_start(job)
    begins(job)
    job.on_done(job, Returned(b"1", "1"), "ForkPoolWorker-1", 0.0)
    assert answered == [received(job).delivery]


@pytest.mark.parametrize("chosen", [{"task_default_lane": "thread"}])
async def test_acknowledged_when_given_to_a_child_of_many(bench: Bench) -> None:
    """In a lane whose children run many calls an early acknowledgement is written when a child is given the call."""
    await bench.send("shop.once")
    [job] = bench.pool.jobs
    assert job.on_begun is None
    assert may_start(job)
    assert received(job).acknowledged


async def test_void_when_the_connection_is_lost(bench: Bench) -> None:
    """A call in a channel that comes back after a lost connection is dropped, and run when its message comes again."""
    await bench.send("shop.once")
    [job] = bench.pool.jobs
    assert may_start(job)
    bench.intake.lost([job])
    assert not may_start(job), "it would run here and where the broker delivers it"
    again = attrs.evolve(received(job).delivery, redelivered=True)
    bench.intake.take(again)
    assert len(bench.pool.jobs) == 2


async def test_not_void_when_its_message_is_here_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that comes back after its message has come again runs, and acknowledges what came."""
    answered: list[object] = []
    monkeypatch.setattr(bench.broker, "ack", answered.append)
    await bench.send("shop.once")
    [job] = bench.pool.jobs
    bench.intake.lost([job])
    again = attrs.evolve(received(job).delivery, redelivered=True)
    bench.intake.take(again)
    assert len(bench.pool.jobs) == 1
    assert may_start(job)
    begins(job)
    assert answered == [again]


@pytest.mark.parametrize(
    ("chosen", "task", "expected"),
    [
        ({}, "shop.add", (True, True, 3)),
        ({}, "shop.once", (True, False, 1)),
        ({}, "shop.mute", (False, True, 3)),
        ({"task_ignore_result": True}, "shop.add", (False, True, 3)),
        ({"task_ignore_result": True}, "shop.loud", (True, True, 3)),
        ({"task_acks_late": False}, "shop.add", (True, False, 3)),
        ({"task_acks_late": False}, "shop.loud", (True, True, 3)),
        ({"task_max_deliveries": 7}, "shop.add", (True, True, 7)),
        ({"task_max_deliveries": 7}, "shop.once", (True, False, 1)),
    ],
)
async def test_terms(bench: Bench, task: str, expected: tuple[bool, bool, int]) -> None:
    """A task's own option is stronger than the worker's setting, which holds otherwise."""
    await bench.send(task)
    found = options(bench.pool.jobs[0])
    assert (found.wants_result, found.acks_late, found.max_deliveries) == expected


async def test_the_senders_word_on_results(bench: Bench) -> None:
    """No result is wanted if the sender wants none."""
    await bench.send("shop.loud", ignore_result=True)
    assert not options(bench.pool.jobs[0]).wants_result


@pytest.mark.parametrize("chosen", [{"worker_max_message_size": 1024}])
async def test_the_size_limit_is_the_setting(bench: Bench) -> None:
    """A message over worker_max_message_size is refused."""
    await bench.send(body=encode(["x" * 2000]))
    assert bench.pool.jobs == []
    assert "over worker_max_message_size (1024)" in bench.observed.of(events.TaskRefused)[0].reason


@pytest.mark.parametrize("chosen", [{"accept_content": ["json", "pickle"]}])
async def test_pickle_when_it_is_allowed(bench: Bench) -> None:
    """A content type that is not in accept_content is refused."""
    await bench.send(content_type=PICKLE, body=b"\x80")
    assert len(bench.pool.jobs) == 1


async def test_giving_back(bench: Bench) -> None:
    """Messages that no child began are requeued when the worker stops, and so are those that come later."""
    await bench.send()
    await bench.send()
    bench.pool.is_closed = True
    await bench.send()
    assert len(bench.pool.jobs) == 2
    await bench.broker.cancel("celery")
    assert bench.intake.give_back(bench.pool.jobs) == 3
    assert bench.intake.give_back([]) == 0
    assert await bench.broker.depth("celery") == 3


async def test_foreign_jobs_are_not_ours_to_give_back(bench: Bench) -> None:
    """Jobs that are not of messages are left alone."""
    job = Job(task="t", id="i", content_type=JSON, body=b"", on_done=lambda *_: None)
    assert bench.intake.give_back([job]) == 0


async def cut(bench: Bench, at_work: list[Job], waiting: list[Job]) -> None:
    """Lose the connection, and let the messages come again."""
    bench.intake.lost(at_work, waiting)
    bench.pool.jobs.clear()
    bench.server.cut()
    await anyio.wait_all_tasks_blocked()


async def test_two_messages_of_one_id(bench: Bench) -> None:
    """A second message of an id that was used is run, also if the connection is lost while it waits."""
    await bench.send()
    [first] = bench.pool.jobs
    bench.pool.jobs.clear()
    first.on_done(first, Returned(b"1", "1"), "ForkPoolWorker-1", 0.1)
    await anyio.wait_all_tasks_blocked()
    await bench.send()
    [second] = bench.pool.jobs
    await cut(bench, [], [second])
    assert len(bench.pool.jobs) == 1


async def test_two_messages_of_one_id_at_work(bench: Bench) -> None:
    """Two messages of one id that are at work when the connection is lost are not begun again; both are settled."""
    await bench.send()
    await bench.send()
    first, second = bench.pool.jobs
    await cut(bench, [first, second], [])
    assert bench.pool.jobs == []
    for job in (first, second):
        job.on_done(job, Returned(b"1", "1"), "ForkPoolWorker-1", 0.1)
    await anyio.wait_all_tasks_blocked()
    assert await bench.depths() == (0, 0)


async def test_came_back_through_no_fault_of_its_own(bench: Bench) -> None:
    """A message that only waited here when connections were lost is not counted out, and published again in time."""
    await bench.send()
    for _ in range(2 * MAX_RETURNS):
        [job] = bench.pool.jobs
        await cut(bench, [], [job])
    [job] = bench.pool.jobs
    assert bench.observed.of(events.TaskRefused) == []
    job.on_done(job, Returned(b"1", "1"), "ForkPoolWorker-1", 0.1)
    await anyio.wait_all_tasks_blocked()
    assert await bench.depths() == (0, 0)


async def test_messages_of_guests() -> None:
    """A message for another library's app goes to its child whole, and its result is not ours to store."""
    bus, pool, server = events.Bus(), Pool(), MemoryServer()
    guest = Guest(
        library="Celery 5.7.0",
        results="redis://",
        accepts=frozenset({"application/x-yaml"}),
        tasks={"shop.add": GuestOptions(acks_on_failure=False)},
        queues={},
        refused={},
        notes=(),
    )
    async with MemoryBroker(server, lambda event: None) as broker, anyio.create_task_group() as tasks:
        await broker.declare(QueueSpec(name="celery"))
        tracker = RedeliveryTracker(broker, bus)
        settler = Settler(broker, None, tracker, bus, tasks, "hybridpool@host", "classic")
        intake = Intake(broker, settler, tracker, pool.submit, TASKS, settings(), bus, guest=guest)
        await broker.consume("celery", 0, intake.take)
        bench = Bench(server, broker, pool, intake, Events())
        await bench.send(content_type="application/x-yaml", body=b"[]")
        [job] = pool.jobs
        assert job.content_type == MESSAGE
        assert isinstance(job.body, bytes)
        envelope = unpack_envelope(job.body)
        assert (envelope.content_type, envelope.routing_key, envelope.body) == ("application/x-yaml", "celery", b"[]")
        assert options(job).guest == GuestOptions(acks_on_failure=False)
        assert not options(job).wants_result
