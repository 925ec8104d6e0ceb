"""Calls of tasks with a rate limit, held until their turn."""

from collections.abc import Iterator

import anyio
import attrs
import pytest

from hybridpool import events
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._lanes.base import Job
from hybridpool._message import Delivery, Head
from hybridpool._policy.settlement import DeliveryOptions
from hybridpool._worker.rate_limits import RateLimits
from hybridpool._worker.received import Received
from hybridpool._worker.redelivery import RedeliveryTracker

pytestmark = pytest.mark.anyio
OPTIONS = DeliveryOptions(wants_result=False, acks_late=True, max_deliveries=3)
DELIVERY = Delivery(
    queue="q", tag=1, channel=1, redelivered=False, headers={}, content_type=None, content_encoding=None,
    correlation_id=None, reply_to=None, priority=None, exchange="", routing_key="q", body=b"",
)  # fmt: skip


def call(number: int, task: str = "slow") -> Job:
    """Make a call."""
    head = Head(task, f"id-{number}", None, None, None, 0, None, None, None, None, True, 0)
    cargo = Received(DELIVERY, head, OPTIONS)
    return Job(task=task, id=head.id, content_type="", body=b"", on_done=lambda *_: None, cargo=cargo)


@attrs.define
class Bench:
    """Limits over a lane that keeps what it is given."""

    limits: RateLimits
    lane: list[Job]
    #: queues of which another message was wanted in place of one that is held
    replaced: list[str]
    now: float = 100.0

    def start(self) -> str:
        """Have a child take the first call of the lane; returns its id, or "" if it may not start."""
        job = self.lane.pop(0)
        may = self.limits.takes_turn(job)
        self.limits.left_lane(job)
        return job.id if may else ""

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, for the limits and their timers."""
        self.now += seconds
        await anyio.sleep(seconds + 0.01)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Limits: a task that may start fifty times in a second."""
    lane, replaced = list[Job](), list[str]()
    bus = events.Bus()
    tracker = RedeliveryTracker(MemoryBroker(MemoryServer(), lambda _: None), bus, replaced.append)
    made = Bench(RateLimits({"slow": 50.0}, lane.append, tracker, lambda: made.now), lane, replaced)
    yield made
    made.limits.drop()


async def test_one_at_a_time(bench: Bench) -> None:
    """The first call is given to its lane, the others in their order, one at each turn; others pass."""
    for number in range(3):
        bench.limits.submit(call(number))
    bench.limits.submit(call(9, "quick"))
    assert [job.id for job in bench.lane] == ["id-0", "id-9"]
    assert bench.replaced == ["q", "q"]
    assert bench.start() == "id-0"
    assert bench.start() == "id-9"
    assert bench.lane == []
    for number in (1, 2):
        await bench.pass_time(0.02)
        assert bench.start() == f"id-{number}"


async def test_busy_children_do_not_save_turns(bench: Bench) -> None:
    """A call that waited long for a child does not let those behind it start together with it."""
    for number in range(3):
        bench.limits.submit(call(number))
    await bench.pass_time(0.2)
    assert bench.start() == "id-0"
    assert bench.lane == []
    await bench.pass_time(0.02)
    assert bench.start() == "id-1"


async def test_a_call_that_does_not_run(bench: Bench) -> None:
    """A call that was revoked in the lane uses no turn, and the next one follows."""
    for number in range(2):
        bench.limits.submit(call(number))
    bench.limits.left_lane(bench.lane.pop())
    assert bench.start() == "id-1"


async def test_the_limit_changes(bench: Bench) -> None:
    """A new limit counts from the last start; without one all that wait go on, and nothing is limited."""
    for number in range(4):
        bench.limits.submit(call(number))
    assert bench.start() == "id-0"
    bench.limits.set("slow", 1000.0)
    await bench.pass_time(0.002)
    assert bench.start() == "id-1"
    bench.limits.set("slow", 0)
    assert [bench.start(), bench.start()] == ["id-2", "id-3"]
    assert not bench.limits
    assert bench.limits.away("slow") == 0.0


async def test_a_limit_for_what_is_in_the_lane(bench: Bench) -> None:
    """A limit that is set while calls are in the lane holds for them too; a call that had its turn keeps it."""
    jobs = [call(number, "new") for number in range(3)]
    bench.lane += jobs
    bench.limits.set("new", 100.0)
    assert [bench.start(), bench.start(), bench.start()] == ["id-0", "", ""]
    assert {received.head.id for received in bench.limits.held()} == {"id-1", "id-2"}
    # its child gave it back without having begun it
    bench.lane.append(jobs[0])
    assert bench.start() == "id-0"
    await bench.pass_time(0.01)
    assert len(bench.lane) == 1
    assert bench.start() in ("id-1", "id-2")


async def test_what_waits_is_dropped(bench: Bench) -> None:
    """After a lost connection nothing of what waited is started: it comes again."""
    for number in range(3):
        bench.limits.submit(call(number))
    assert bench.start() == "id-0"
    assert {received.head.id for received in bench.limits.drop()} == {"id-1", "id-2"}
    await bench.pass_time(0.05)
    assert bench.lane == []
