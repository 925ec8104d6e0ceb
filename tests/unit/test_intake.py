"""Delivery → admitted or not → a job for the pool, over the memory broker."""

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import attrs
import pytest

from hybridpool import events
from hybridpool.answering import Received
from hybridpool.brokers.memory import MemoryBroker, MemoryHub
from hybridpool.child.codec import JSON, PICKLE, encode
from hybridpool.config import Settings, init_layer, resolve
from hybridpool.errors import PoolClosed
from hybridpool.intake import Intake
from hybridpool.lanes.job import Job
from hybridpool.message import Outgoing, QueueSpec
from hybridpool.outcome import Lost, Returned
from hybridpool.policy.admission import RETURNS
from hybridpool.policy.settlement import Terms
from hybridpool.results.rpc import RpcStore
from hybridpool.settle import Settler
from hybridpool.task import TaskOptions
from tests.contract.inbox import Facts

TASKS = {
    "shop.add": TaskOptions(name="shop.add"),
    "shop.once": TaskOptions(name="shop.once", acks_late=False, max_deliveries=1),
    "shop.mute": TaskOptions(name="shop.mute", ignore_result=True),
    "shop.loud": TaskOptions(name="shop.loud", ignore_result=False, acks_late=True),
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
class Desk:
    """An intake between a broker and a pool."""

    hub: MemoryHub
    broker: MemoryBroker
    pool: Pool
    intake: Intake
    facts: Facts

    async def send(self, task: str = "shop.add", content_type: str = JSON, body: bytes = b"", **headers: Any) -> None:
        """Send a message, and let it be taken in."""
        message = Outgoing(
            body=body or encode([[], {}, None]),
            routing_key="celery",
            headers={"task": task, "id": "id-1", **headers},
            content_type=content_type,
            reply_to="answers",
        )
        self.hub.put(message)
        await anyio.wait_all_tasks_blocked()

    async def depths(self) -> tuple[int, int]:
        """Return how many messages are in the queue and how many are dead letters, after the connection has ended."""
        async with MemoryBroker(self.hub, lambda fact: None) as other:
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
async def desk(chosen: dict[str, object]) -> AsyncIterator[Desk]:
    """Make an intake over a memory broker."""
    hub, facts, bus, pool = MemoryHub(), Facts(), events.Bus(), Pool()
    bus.subscribe(facts)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(MemoryBroker(hub, lambda fact: None))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for queue in ("celery", "answers"):
            await broker.declare(QueueSpec(name=queue))
        settler = Settler(broker, RpcStore(broker, None), bus, tasks, "hybridpool@host", "classic")
        intake = Intake(broker, settler, pool.submit, TASKS, settings(**chosen), bus)
        await broker.consume("celery", 0, intake.take)
        yield Desk(hub, broker, pool, intake, facts)


def received(job: Job) -> Received:
    """Return what a job was made of."""
    assert isinstance(job.cargo, Received)
    return job.cargo


def terms(job: Job) -> Terms:
    """Return on which terms a job runs."""
    return received(job).terms


def may_start(job: Job) -> bool:
    """Ask, as a lane does just before it gives the job to a child."""
    assert job.may_start is not None
    return job.may_start(job)


async def test_a_job(desk: Desk) -> None:
    """A child would run something else than was asked for."""
    body = encode([[2, 3], {}, None])
    await desk.send(body=body, retries=2, root_id="root")
    [job] = desk.pool.jobs
    assert (job.task, job.id, job.body, job.content_type) == ("shop.add", "id-1", body, JSON)
    assert (job.retries, job.root_id, job.is_alone) == (2, "root", False)
    assert may_start(job)
    assert desk.facts.of(events.TaskReceived) == [events.TaskReceived("shop.add", "id-1")]


async def test_it_is_acknowledged_when_it_is_done(desk: Desk) -> None:
    """A message would be lost with its child, or come back although its task is done."""
    await desk.send(ignore_result=True)
    [job] = desk.pool.jobs
    assert await desk.broker.depth("celery") == 0
    job.on_done(job, Returned(b"5", "5"), "ForkPoolWorker-1", 0.1)
    assert desk.facts.of(events.TaskSucceeded)[0].child == "ForkPoolWorker-1"
    assert await desk.depths() == (0, 0)


async def test_it_stays_the_brokers_until_then(desk: Desk) -> None:
    """A worker that dies would take its messages with it."""
    await desk.send()
    assert await desk.depths() == (1, 0)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"task": "shop.gone"}, "unknown task 'shop.gone'"),
        ({"task": ""}, "header 'task' is missing"),
        ({"retries": "x"}, "header 'retries' is no count"),
        ({"content_type": PICKLE}, "not in accept_content"),
    ],
)
async def test_what_is_not_run(desk: Desk, message: dict[str, Any], reason: str) -> None:
    """A bad message would be run, lost or come back for ever."""
    await desk.send(**message)
    assert desk.pool.jobs == []
    [fact] = desk.facts.of(events.TaskRefused)
    assert reason in fact.reason
    assert await desk.depths() == (0, 1)


async def test_long_before_its_time(desk: Desk) -> None:
    """A message for next year would lie in the worker until then, unacknowledged, or be run today."""
    await desk.send(eta=(dt.datetime.now(dt.UTC) + HOUR).isoformat())
    assert desk.pool.jobs == []
    [fact] = desk.facts.of(events.TaskPostponed)
    assert 3500 < fact.wait < 3601
    assert await desk.depths() == (0, 0), "it is neither in the queue nor a dead letter: the broker holds it"


async def test_just_before_its_time(desk: Desk) -> None:
    """A message would be run before its time, or a whole second late."""
    eta = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.2)
    await desk.send(eta=eta.isoformat())
    assert desk.pool.jobs == []
    with anyio.fail_after(30):
        while not desk.pool.jobs:
            await anyio.lowlevel.checkpoint()
    assert dt.datetime.now(dt.UTC) >= eta


async def test_held_and_given_back(desk: Desk) -> None:
    """A worker that stops would take the messages with it whose time was about to come."""
    await desk.send(eta=(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.5)).isoformat())
    assert desk.intake.give_back([]) == 1
    assert await desk.depths() == (1, 0)


async def test_expired_on_arrival(desk: Desk) -> None:
    """A task would be run after its time, or be kept as a dead letter."""
    await desk.send(expires=(dt.datetime.now(dt.UTC) - HOUR).isoformat())
    assert desk.pool.jobs == []
    assert desk.facts.of(events.TaskExpired)
    assert await desk.depths() == (0, 0)


async def test_expired_while_it_waited(desk: Desk) -> None:
    """A task that waited long for a child would be run after its time."""
    await desk.send(expires=(dt.datetime.now(dt.UTC) + HOUR).isoformat())
    [job] = desk.pool.jobs
    assert may_start(job)
    received(job).head.expires = dt.datetime.now(dt.UTC) - HOUR
    assert not may_start(job)
    await anyio.wait_all_tasks_blocked()
    assert desk.facts.of(events.TaskExpired)
    assert await desk.depths() == (0, 0)


async def test_at_most_once(desk: Desk) -> None:
    """A task with acks_late=False would run again after a crash, or be acknowledged although no child began it."""
    await desk.send("shop.once")
    [job] = desk.pool.jobs
    assert job.is_alone, "a killed worker would lose all that lie in a channel"
    seen = [received(job).acknowledged]
    assert may_start(job)
    assert may_start(job), "a call that a dead child never read is started again"
    assert [*seen, received(job).acknowledged] == [False, True]
    job.on_done(job, Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1"), "ForkPoolWorker-1", 0.0)
    await anyio.wait_all_tasks_blocked()
    assert await desk.depths() == (0, 0)


async def test_an_early_answer_is_given_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker would be answered twice for a call that a dead child never read, and end the connection."""
    answered: list[object] = []
    monkeypatch.setattr(desk.broker, "ack", answered.append)
    await desk.send("shop.once")
    [job] = desk.pool.jobs
    assert may_start(job)
    assert may_start(job)
    assert answered == [received(job).delivery]


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
async def test_terms(desk: Desk, task: str, expected: tuple[bool, bool, int]) -> None:
    """A task's own option would not beat the worker's setting, or the setting not hold at all."""
    await desk.send(task)
    found = terms(desk.pool.jobs[0])
    assert (found.wants_result, found.acks_late, found.max_deliveries) == expected


async def test_the_senders_word_on_results(desk: Desk) -> None:
    """A result would be sent that the sender does not want."""
    await desk.send("shop.loud", ignore_result=True)
    assert not terms(desk.pool.jobs[0]).wants_result


@pytest.mark.parametrize("chosen", [{"worker_max_message_size": 1024}])
async def test_the_size_limit_is_the_setting(desk: Desk) -> None:
    """worker_max_message_size would do nothing."""
    await desk.send(body=encode(["x" * 2000]))
    assert desk.pool.jobs == []
    assert "over worker_max_message_size (1024)" in desk.facts.of(events.TaskRefused)[0].reason


@pytest.mark.parametrize("chosen", [{"accept_content": ["json", "pickle"]}])
async def test_pickle_when_it_is_allowed(desk: Desk) -> None:
    """accept_content would do nothing."""
    await desk.send(content_type=PICKLE, body=b"\x80")
    assert len(desk.pool.jobs) == 1


async def test_giving_back(desk: Desk) -> None:
    """Messages that nobody began would wait for the end of a worker that is stopping, or vanish."""
    await desk.send()
    await desk.send()
    desk.pool.is_closed = True
    await desk.send()
    assert len(desk.pool.jobs) == 2
    await desk.broker.cancel("celery")
    assert desk.intake.give_back(desk.pool.jobs) == 3
    assert desk.intake.give_back([]) == 0
    assert await desk.broker.depth("celery") == 3


async def test_foreign_jobs_are_not_ours_to_give_back(desk: Desk) -> None:
    """Calls that an embedding program gave to the same pool would break the way out."""
    job = Job(task="t", id="i", content_type=JSON, body=b"", on_done=lambda *_: None)
    assert desk.intake.give_back([job]) == 0


async def cut(desk: Desk, at_work: list[Job], waiting: list[Job]) -> None:
    """Lose the connection, and let the messages come again."""
    desk.intake.lost(at_work, waiting)
    desk.pool.jobs.clear()
    desk.hub.cut()
    await anyio.wait_all_tasks_blocked()


async def test_two_messages_of_one_id(desk: Desk) -> None:
    """A second message of an id that was used is run, also if the connection is lost while it waits."""
    await desk.send()
    [first] = desk.pool.jobs
    desk.pool.jobs.clear()
    first.on_done(first, Returned(b"1", "1"), "ForkPoolWorker-1", 0.1)
    await anyio.wait_all_tasks_blocked()
    await desk.send()
    [second] = desk.pool.jobs
    await cut(desk, [], [second])
    assert len(desk.pool.jobs) == 1


async def test_two_messages_of_one_id_at_work(desk: Desk) -> None:
    """Two messages of one id that are at work when the connection is lost are not begun again; both are settled."""
    await desk.send()
    await desk.send()
    first, second = desk.pool.jobs
    await cut(desk, [first, second], [])
    assert desk.pool.jobs == []
    for job in (first, second):
        job.on_done(job, Returned(b"1", "1"), "ForkPoolWorker-1", 0.1)
    await anyio.wait_all_tasks_blocked()
    assert await desk.depths() == (0, 0)


async def test_came_back_through_no_fault_of_its_own(desk: Desk) -> None:
    """A message that only waited here when connections were lost is not counted out, and published again in time."""
    await desk.send()
    for _ in range(2 * RETURNS):
        [job] = desk.pool.jobs
        await cut(desk, [], [job])
    [job] = desk.pool.jobs
    assert desk.facts.of(events.TaskRefused) == []
    job.on_done(job, Returned(b"1", "1"), "ForkPoolWorker-1", 0.1)
    await anyio.wait_all_tasks_blocked()
    assert await desk.depths() == (0, 0)
