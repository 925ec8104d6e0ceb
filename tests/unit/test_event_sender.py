"""A worker's events: what is sent and when, what waits, what is dropped. The broker is the one in memory."""
# pyright: reportPrivateUsage=false

import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest

from hybridpool import App, events
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._lanes.base import Job
from hybridpool._message import Binding, Delivery, Outgoing, QueueSpec
from hybridpool._policy.lamport_clock import LamportClock
from hybridpool._policy.settlement import DeliveryOptions
from hybridpool._protocol.task_headers import read_head
from hybridpool._worker import event_sender
from hybridpool._worker.event_sender import EventSender
from hybridpool._worker.received import Received
from hybridpool.errors import AccessRefused, BrokerError, BrokerUnavailable
from tests.unit.test_remote_control import delivered

pytestmark = pytest.mark.anyio

SETTINGS = attrs.evolve(App("shop", worker_concurrency=1).conf.settings(), worker_heartbeat_interval=0.02)
TASK = events.TaskRef("t", "id-1")


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    with anyio.fail_after(30):
        while not is_so():  # noqa: ASYNC110  # a line of the log, or a message of another connection, sets no event
            await anyio.sleep(0.001)


class Away(MemoryBroker):
    """A memory broker whose connection is away for a while."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server, lambda _: None)
        self.back = anyio.Event()
        self.back.set()
        #: something could not be published
        self.missed = anyio.Event()
        self.refusal: BrokerError | None = None

    async def connected(self, timeout: float | None) -> None:
        """Wait until it is back."""
        await self.back.wait()
        await super().connected(timeout)

    async def publish(self, message: Outgoing) -> None:
        """Store the message, unless it is away."""
        if self.refusal is not None:
            raise self.refusal
        if not self.back.is_set():
            self.missed.set()
            raise BrokerUnavailable("away")
        await super().publish(message)

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[BrokerError | None]:
        """Store the messages, unless it is away."""
        if not self.back.is_set():
            raise BrokerUnavailable("away")
        return await super().publish_many(messages)


@attrs.define
class Bench:
    """A sender whose events are collected."""

    broker: Away
    bus: events.Bus
    heard: list[tuple[str, dict[str, Any]]] = attrs.field(factory=list)
    begun: list[Job] = attrs.field(factory=list)
    in_flight: list[Job] = attrs.field(factory=list)
    handed: Callable[[Received], None] | None = None

    def sender(self, **settings: Any) -> EventSender:
        """Make one."""

        def want_handed(listener: Callable[[Received], None] | None) -> None:
            self.handed = listener

        return EventSender(
            self.broker,
            self.bus,
            LamportClock(),
            "w@h",
            attrs.evolve(SETTINGS, **settings),
            version="1",
            silent=frozenset({"quiet"}),
            begun=lambda: self.begun,
            in_flight=lambda: self.in_flight,
            processed=lambda: 7,
            want_handed=want_handed,
        )

    def types(self, group: str = "task") -> list[str]:
        """Return the types of the events that came."""
        return [kind for kind, _ in self.heard if kind.startswith(f"{group}-")]

    async def see(self, *types: str) -> None:
        """Wait until task events of these types have come."""
        await until(lambda: len(self.types()) >= len(types))
        assert self.types() == list(types)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A broker, and all of its events."""
    server = MemoryServer()
    async with Away(server) as broker, MemoryBroker(server, lambda _: None) as monitor:
        made = Bench(broker, events.Bus())

        def take(delivery: Delivery) -> None:
            monitor.ack(delivery)
            found = json.loads(delivery.body)
            made.heard.extend((one["type"], one) for one in (found if isinstance(found, list) else [found]))

        binding = Binding(exchange="celeryev", type="topic", routing_key="#")
        await monitor.declare(QueueSpec(name="monitor", bindings=(binding,)))
        await monitor.consume("monitor", 0, take)
        yield made


def received(name: str = "t", task_id: str = "id-1") -> Received:
    """Return a message."""
    delivery = delivered(b"")
    delivery = attrs.evolve(delivery, headers={"task": name, "id": task_id})
    return Received(
        delivery, read_head(delivery), DeliveryOptions(wants_result=False, acks_late=True, max_deliveries=1)
    )


def job(cargo: Received) -> Job:
    """Return its call."""
    return Job(task="t", id=cargo.head.id, content_type="", body=b"", on_done=lambda *_: None, cargo=cargo)


async def test_life(bench: Bench) -> None:
    """A worker tells that it is there, that it lives, and that it ends."""
    sender = bench.sender()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.run)
        await until(lambda: len(bench.heard) >= 4)
        sender.close()
    await until(lambda: bench.heard[-1][0] == "worker-offline")
    assert [kind for kind, _ in bench.heard[:3]] == ["worker-online", "worker-heartbeat", "worker-heartbeat"]
    assert bench.heard[1][1]["processed"] == 7
    clocks = [event["clock"] for _, event in bench.heard]
    assert clocks == sorted(set(clocks))


async def test_off(bench: Bench) -> None:
    """While task events are off, nothing is called for a task."""
    sender = bench.sender()

    def listens() -> tuple[int, bool]:
        return len(bench.bus._listeners), bench.handed is not None

    assert listens() == (0, False)
    assert sender.enable()
    assert not sender.enable()
    assert listens() == (1, True)
    assert sender.disable()
    assert not sender.disable()
    assert listens() == (0, False)


async def test_started(bench: Bench) -> None:
    """A call that was given to a child is told as started once it has begun, at the latest when it has ended."""
    sender = bench.sender(worker_send_task_events=True, worker_without_heartbeat=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.run)
        first, second, third = received(), received(), received()
        assert bench.handed is not None
        for message in (first, second, third):
            bench.bus.emit(events.TaskReceived(message.task))
            bench.handed(message)
        bench.in_flight[:] = [job(first), job(second)]
        await bench.see(*["task-received"] * 3)
        bench.begun[:] = [job(first)]
        await bench.see(*["task-received"] * 3, "task-started")
        bench.bus.emit(events.TaskSucceeded(first.task, "c", 0.1, "1"))
        bench.bus.emit(events.TaskSucceeded(second.task, "c", 0.1, "2"))
        # its child was not seen to have it any more
        bench.bus.emit(events.TaskSucceeded(third.task, "c", 0.1, "3"))
        await bench.see(
            *["task-received"] * 3, "task-started", "task-succeeded", "task-started", "task-succeeded", "task-succeeded"
        )
        sender.close()
    assert not sender._handed


async def test_received_once(bench: Bench) -> None:
    """A task that comes before its time is told as received then, and not when it comes again."""
    sender = bench.sender(worker_send_task_events=True, worker_without_heartbeat=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.run)
        bench.bus.emit(events.TaskPostponed(TASK, 9.0))
        bench.bus.emit(events.TaskPostponed(TASK, 5.0, was_postponed=True))
        bench.bus.emit(events.TaskReceived(TASK, was_postponed=True))
        bench.bus.emit(events.TaskReceived(events.TaskRef("quiet", "id-2")))
        bench.bus.emit(events.TaskIgnored(TASK, ""))
        bench.bus.emit(events.TaskExpired(TASK))
        await bench.see("task-received", "task-revoked")
        sender.close()


async def test_stopped_at_once(bench: Bench) -> None:
    """A task that runs is told as revoked when the order comes, and not again; one that ends otherwise is told so."""
    found = [received(task_id=f"id-{number}") for number in range(4)]
    stopped, finished, other, waiting = (one.task for one in found)
    jobs = [job(one) for one in found]
    sender = bench.sender(worker_send_task_events=True, worker_without_heartbeat=True)
    bench.begun, bench.in_flight = jobs[:3], jobs
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.run)
        bench.bus.emit(events.TasksFlagged((other.id,), terminate=False))
        for _ in range(2):
            bench.bus.emit(events.TasksFlagged((stopped.id, finished.id, waiting.id), terminate=True, signum=9))
        bench.bus.emit(events.TaskRevoked(waiting, ""))
        bench.bus.emit(events.TaskRevoked(stopped, "c"))
        bench.bus.emit(events.TaskSucceeded(finished, "c", 0.1, "1"))
        await until(lambda: len(bench.types()) >= 4)
        sender.close()
    told = [(kind, event["uuid"], event.get("signum")) for kind, event in bench.heard if kind.startswith("task-")]
    assert told == [
        ("task-revoked", stopped.id, 9),
        ("task-revoked", finished.id, 9),
        ("task-revoked", waiting.id, None),
        ("task-succeeded", finished.id, None),
    ]


async def test_away(bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the broker is away the newest events wait, the oldest are dropped; that is said once, then how many."""
    monkeypatch.setattr(event_sender, "MAX_WAITING_BYTES", 2000)
    monkeypatch.setattr(event_sender, "RETRY_S", 0.01)
    sender = bench.sender(worker_send_task_events=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.run)
        await until(lambda: bool(bench.types("worker")))
        bench.broker.back = anyio.Event()
        for number in range(100):
            bench.bus.emit(events.TaskSucceeded(events.TaskRef("t", f"id-{number}"), "c", 0.1, "None"))
            await anyio.lowlevel.checkpoint()
        assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
        with anyio.fail_after(30):
            await bench.broker.missed.wait()
        before = len(bench.types("worker"))
        bench.broker.back.set()
        await until(lambda: "were dropped" in caplog.messages[-1])
        await until(lambda: len(bench.types("worker")) > before)
        sender.close()
    ids = [event["uuid"] for kind, event in bench.heard if kind == "task-succeeded"]
    assert 0 < len(ids) < 100
    assert ids == [f"id-{number}" for number in range(100 - len(ids), 100)]
    assert caplog.messages[-1] == f"{100 - len(ids)} task events were dropped"
    assert bench.types("worker")[before] == "worker-online"


async def test_refused(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that refuses events is asked no more, and that is said in one line."""
    bench.broker.refusal = AccessRefused("access to exchange 'celeryev' refused")
    sender = bench.sender(worker_send_task_events=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.run)
        await until(lambda: bool(caplog.messages))
        bench.bus.emit(events.TaskExpired(TASK))
        sender.close()
    assert len(caplog.messages) == 1
    assert "celeryev" in caplog.messages[0]
    assert not bench.heard
