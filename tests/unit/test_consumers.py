"""The prefetch of each queue, over the memory broker: lanes, weights, and what goes back."""

from collections.abc import Callable
from typing import Any, Self

import anyio
import attrs
import pytest

from hybridpool import events
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._config import init_layer, pool_range, resolve
from hybridpool._lanes.base import Job
from hybridpool._lanes.snapshot import LaneSnapshot
from hybridpool._message import Delivery, Head, Outgoing
from hybridpool._policy.settlement import DeliveryOptions
from hybridpool._task import LaneName, TaskOptions
from hybridpool._worker.consumers import QueueConsumers
from hybridpool._worker.received import Received
from tests.contract.inbox import Events

pytestmark = pytest.mark.anyio

TERMS = DeliveryOptions(wants_result=False, acks_late=True, max_deliveries=3)
TASKS = {
    task.name: task
    for task in (
        TaskOptions(name="cpu"),
        TaskOptions(name="fetch", queue="transfers", lane="async"),
        TaskOptions(name="wait", queue="transfers", lane="thread"),
        TaskOptions(name="load", queue="mixed", lane="async"),
        TaskOptions(name="crunch", queue="mixed"),
    )
}


@attrs.define
class Calls:
    """Lanes as far as consumers look at them: keep the calls, those at work apart."""

    waiting: list[Job] = attrs.field(factory=list)
    running: list[Job] = attrs.field(factory=list)

    def take(self, delivery: Delivery) -> None:
        """Keep a message as a call that waits."""
        lane: LaneName = "async" if delivery.headers.get("lane") == "async" else "process"
        head = Head("t", "id", None, None, None, 0, None, None, None, None, True, 0)
        cargo = Received(delivery, head, TERMS)
        self.waiting.append(Job(task="t", content_type="", body=b"", on_done=_never, lane=lane, cargo=cargo))

    def start(self, lane: LaneName, count: int) -> None:
        """Have so many of those that wait run."""
        chosen = [job for job in self.waiting if job.lane == lane][:count]
        self.running += chosen
        self.waiting = [job for job in self.waiting if job not in chosen]

    def snapshot(self) -> LaneSnapshot:
        """Return how many wait and run in the process lane."""
        running = sum(job.lane == "process" for job in self.running)
        return LaneSnapshot(at=0.0, size=2, queued=len(self.queued()), running=running)

    def queued(self) -> list[Job]:
        """Return those that wait for the process lane."""
        return [job for job in self.waiting if job.lane == "process"]

    def in_flight(self) -> list[Job]:
        """Return those at work."""
        return list(self.running)

    def withdraw_queued(self, which: Callable[[Job], bool] | None = None) -> list[Job]:
        """Take calls back from the process lane."""
        taken = [job for job in self.queued() if which is None or which(job)]
        self.waiting = [job for job in self.waiting if job not in taken]
        return taken

    async def wait_calls_given(self) -> None:
        """Wait for ever."""
        await anyio.sleep_forever()


def _never(*_: object) -> None:
    raise AssertionError("no call ends here")


class Bench:
    """Consumers that are looked at from time to time."""

    def __init__(self, **chosen: object) -> None:
        resolved = resolve([init_layer({"worker_concurrency": 2, **chosen})])
        self.now = 100.0
        self.server = MemoryServer()
        self.broker = MemoryBroker(self.server, lambda _: None)
        self.calls = Calls()
        self.observed = Events()
        bus = events.Bus()
        bus.subscribe(self.observed)
        slots: dict[LaneName, int] = {"async": 100, "thread": 32}
        self.consumers = QueueConsumers(
            self.broker, resolved.settings, pool_range(resolved), bus, TASKS, slots, lambda: self.now
        )

    async def __aenter__(self) -> Self:
        await self.broker.__aenter__()
        self._group = await anyio.create_task_group().__aenter__()
        calls = self.calls
        self._group.start_soon(self.consumers.run, calls.take, calls, calls.in_flight, self._give_back, lambda: 0.0)
        await anyio.wait_all_tasks_blocked()
        return self

    def _give_back(self, job: Job) -> None:
        assert isinstance(job.cargo, Received)
        self.broker.requeue(job.cargo.delivery)

    async def put(self, queue: str, count: int, **headers: Any) -> None:
        """Publish messages and let them come."""
        for _ in range(count):
            self.server.put(Outgoing(body=b"", routing_key=queue, headers=headers))
        await anyio.wait_all_tasks_blocked()

    async def look(self, seconds: float = 1.0, size: int = 2) -> list[int]:
        """Have the prefetch looked at after some seconds; return all changes so far."""
        self.now += seconds
        self.consumers.resize(size)
        await anyio.wait_all_tasks_blocked()
        return [event.prefetch for event in self.observed.of(events.ConsumingStarted)]

    async def __aexit__(self, *error: object) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
        await self.broker.__aexit__(None, None, None)


async def test_lanes_of_a_queue_add_up() -> None:
    """A queue holds four messages for each child, all slots of its other lanes, or both, these from 16 on."""
    chosen: dict[str, object] = {
        "worker_queues": "celery,transfers,mixed,unknown",
        "worker_queue_weights": "celery=3,transfers=3,mixed=3",
    }
    async with Bench(**chosen) as bench:
        assert await bench.look() == [24, 132, 24 + 16, 8]
    async with Bench(worker_prefetch_multiplier=1, **chosen) as bench:
        assert await bench.look() == [6, 132, 6 + 16, 2]
        assert await bench.look(size=4) == [6, 132, 6 + 16, 2, 12, 12 + 16, 4]
    async with Bench(worker_prefetch_multiplier=0, **chosen) as bench:
        assert await bench.look() == [0, 132, 0, 0]


async def test_a_mixed_queue_opens_with_what_is_at_work() -> None:
    """The async part of a mixed queue doubles when three quarters of it are at work, once a second at most."""
    async with Bench(worker_queues="mixed") as bench:
        await bench.put("mixed", 200, lane="async")
        assert len(bench.calls.waiting) == 24
        bench.calls.start("async", 11)
        assert await bench.look() == [24]
        bench.calls.start("async", 1)
        assert await bench.look() == [24, 40]
        bench.calls.start("async", 100)
        assert await bench.look(0.9) == [24, 40]
        assert await bench.look(0.2) == [24, 40, 72]


async def test_a_queue_chosen_by_clients() -> None:
    """A queue for which no async task is declared opens as a mixed one once such a task of it is at work."""
    async with Bench(worker_queues="unknown") as bench:
        await bench.put("unknown", 200, lane="async")
        assert await bench.look() == [8]
        bench.calls.start("async", 8)
        assert await bench.look() == [8, 24]
        bench.calls.start("async", 16)
        assert await bench.look() == [8, 24, 40]


async def test_it_says_what_keeps_async_tasks_from_coming() -> None:
    """A mixed queue that is full of messages for children is named after five seconds, once."""
    async with Bench(worker_queues="mixed") as bench:
        await bench.put("mixed", 100)
        bench.calls.start("process", 2)
        for _ in range(8):
            await bench.look()
        [told] = bench.observed.of(events.QueueMixesLanes)
        assert (told.queue, told.held) == ("mixed", 24)


async def test_long_tasks_send_the_rest_back() -> None:
    """When tasks turn out to be long, what waits goes back, and as much is held as can start now."""
    async with Bench() as bench:
        await bench.put("celery", 20)
        bench.calls.start("process", 2)
        bench.consumers.ran("celery", 10.0)
        assert await bench.look() == [8, 2]
        assert [event.count for event in bench.observed.of(events.MessagesReturned)] == [6]
        assert (len(bench.calls.running), len(bench.calls.waiting)) == (2, 2)
        assert await bench.broker.depth("celery") == 16
        assert await bench.look() == [8, 2], "and it stays so"
