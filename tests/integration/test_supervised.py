"""A real lane with its supervisors: real zygote, real children, no broker."""

import os
import re
import signal
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import attrs
import psutil
import pytest

from hybridpool import events
from hybridpool._child.log_formats import FORMAT
from hybridpool._ipc.codec import JSON, decode, encode
from hybridpool._ipc.frames import ChildOrders, Enqueue, EnqueueAnswer
from hybridpool._lanes.base import Job
from hybridpool._lanes.supervised import LaneConfig, SupervisedLanes
from hybridpool._lanes.zygote_keeper import ZygoteKeeper
from hybridpool._outcome import Cancelled, Lost, Outcome, Raised, Refused, Returned, TimedOut
from hybridpool._policy.autoscale import ScaleLimits
from hybridpool._policy.recycle import RecycleLimits
from hybridpool.errors import PoolClosed
from tests.contract.inbox import Collected, Events

# starting a zygote reads the pipe on which exec would tell its failure, and a large message is written into memory
pytestmark = pytest.mark.may_block

#: seconds; a test that waits longer for anything has failed
PATIENCE = 60.0
ORDERS = ChildOrders(log_level=20, log_format=FORMAT, redirect_stdouts=True, memory_watch=0)
Answer = Callable[[EnqueueAnswer], None]


@attrs.frozen(eq=False)
class Ended:
    """How a call ended."""

    job: Job
    outcome: Outcome
    child: str

    @property
    def value(self) -> Any:
        """What it returned."""
        assert isinstance(self.outcome, Returned), self.outcome
        return decode(self.outcome.value)


class Bench:
    """A pool, its events, its ended calls, and the processes that wait at the gate."""

    def __init__(self, keeper: ZygoteKeeper, config: LaneConfig, bus: events.Bus) -> None:
        self.keeper = keeper
        self.observed = Events()
        self.ended: Collected[Ended] = Collected()
        self.gate: Collected[tuple[Enqueue, Answer]] = Collected()
        self._ids = count(1)
        bus.subscribe(self.observed)
        self.supervised = SupervisedLanes(
            keeper, {"process": config}, bus, lambda frame, answer: self.gate((frame, answer))
        )

    def submit(self, task: str, *args: object, hard: float | None = None, soft: float | None = None) -> Job:
        """Give a call to the pool."""
        job = Job(
            task=task,
            id=f"call-{next(self._ids)}",
            content_type=JSON,
            body=encode([args, {}, None]),
            hard_limit=hard,
            soft_limit=soft,
            on_done=lambda job, outcome, child, _: self.ended(Ended(job, outcome, child)),
        )
        self.supervised.submit(job)
        return job

    async def run(self, task: str, *args: object) -> Ended:
        """Run one call to its end."""
        self.submit(task, *args)
        [ended] = await self.ended.take(1, PATIENCE)
        return ended

    async def at_the_gate(self, number: int) -> None:
        """Wait until exactly so many calls wait at the gate."""
        await self.gate.until(lambda waiting: len(waiting) >= number, PATIENCE)
        assert len(self.gate.items) == number

    def release(self) -> None:
        """Let everyone at the gate go on."""
        waiting, self.gate.items = self.gate.items, []
        for frame, answer in waiting:
            answer(EnqueueAnswer(frame.ticket, None))

    async def idle(self, number: int) -> None:
        """Wait until the pool is nothing but so many idle children."""
        with anyio.fail_after(PATIENCE):
            lane = self.supervised.lane
            while len((seen := lane.snapshot()).idle) != number or len(seen.children) != number:
                await lane.wait_changed(0.05)

    async def gone(self, name: str) -> events.ChildGone:
        """Wait until a child is gone."""
        await self.observed.until(
            lambda _: any(event.child == name for event in self.observed.of(events.ChildGone)), PATIENCE
        )
        return next(event for event in self.observed.of(events.ChildGone) if event.child == name)

    def pids(self) -> dict[str, int]:
        """Return name and pid of the children."""
        return {child.name: child.pid for child in self.supervised.lane.snapshot().children}


@asynccontextmanager
async def bench(
    size: int,
    *,
    app: str = "tests.apps.pooled:app",
    recycle: RecycleLimits | None = None,
    scale: ScaleLimits | None = None,
    orders: ChildOrders = ORDERS,
    ready: bool = True,
    spares: int = 0,
) -> AsyncGenerator[Bench]:
    """Have a pool; its children are killed in the end."""
    bus = events.Bus()
    keeper = ZygoteKeeper(app, (), bus)
    await keeper.start()
    limits = recycle or RecycleLimits()
    config = LaneConfig(size=size, scale=scale, recycle=limits, orders=orders, start_timeout=PATIENCE, spares=spares)
    made = Bench(keeper, config, bus)
    async with made.supervised:
        if ready:
            await made.idle(size + spares)
        try:
            yield made
        finally:
            with anyio.move_on_after(PATIENCE, shield=True) as in_time:
                await made.supervised.kill()
        assert not in_time.cancelled_caught, "the children cannot be killed"


@pytest.fixture
async def two() -> AsyncIterator[Bench]:
    """Have a pool of two."""
    async with bench(2) as made:
        yield made


class Fifo:
    """A gate that needs no answer of the parent."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        # for reading and writing, so that opening does not wait for the other side
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def open_up(self) -> None:
        """Let one task through."""
        os.write(self.fd, b".")


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """Make a gate."""
    made = Fifo(tmp_path / "gate")
    yield made
    os.close(made.fd)


def open_fds() -> int:
    """Count what this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def stopped(pids: Iterable[int]) -> None:
    """Stop children, so that they read nothing more."""
    processes = [psutil.Process(pid) for pid in pids]
    for process in processes:
        process.suspend()
    with anyio.fail_after(PATIENCE):
        while {process.status() for process in processes} != {psutil.STATUS_STOPPED}:
            await anyio.lowlevel.checkpoint()


# ---- calls -----------------------------------------------------------------------------------------------------------


async def test_calls_run_and_results_come(two: Bench) -> None:
    """A hundred calls run, each returns its own value, and the dispatcher is empty afterwards."""
    jobs = [two.submit("add", number) for number in range(100)]
    ended = await two.ended.take(100, PATIENCE)
    assert {one.job.id: one.value for one in ended} == {job.id: number + 1 for number, job in enumerate(jobs)}
    assert {one.child for one in ended} <= {"ForkPoolWorker-1", "ForkPoolWorker-2"}
    assert (two.supervised.lane.in_flight(), two.supervised.lane.load) == ([], 0)


async def test_a_call_that_fails_costs_nothing_else(two: Bench) -> None:
    """A call that fails, is refused, or names an unknown task costs no child."""
    failed, refused, unknown = [await two.run(*words) for words in (("fail",), ("add",), ("gone",))]
    assert isinstance(failed.outcome, Raised)
    assert failed.outcome.text == "ValueError('wrong')"
    assert isinstance(refused.outcome, Refused)
    assert isinstance(unknown.outcome, Refused)
    assert (await two.run("add", 2)).value == 3
    assert two.observed.of(events.ChildGone) == []


async def test_calls_run_at_the_same_time(two: Bench) -> None:
    """Two children run two calls at the same time, and the third call waits."""
    for _ in range(3):
        two.submit("hold")
    await two.at_the_gate(2)
    seen = two.supervised.lane.snapshot()
    assert (seen.running, seen.queued, two.supervised.lane.load) == (2, 1, 3)
    two.release()
    await two.at_the_gate(1)
    two.release()
    await two.ended.take(3, PATIENCE)


async def test_an_exception_with_a_strange_text(two: Bench) -> None:
    """An exception with surrogates in its text fails its call and costs no child."""
    assert isinstance((await two.run("echo", "name-\udc80")).outcome, Returned)
    raised = (await two.run("add", 1, "\udc80")).outcome
    assert isinstance(raised, Raised)
    refused = (await two.run("echo", "\udc80", 2)).outcome
    assert isinstance(refused, Refused)
    assert two.observed.of(events.ChildGone) == []


@pytest.mark.parametrize("size", [1_000_000, 20_000_000])
async def test_large_payloads(two: Bench, size: int) -> None:
    """Arguments and results of megabytes arrive complete."""
    ended = await two.run("echo", "x" * size)
    assert len(ended.value) == size
    assert len((await two.run("blow_up", size)).value) == size


async def test_many_large_payloads_at_once(two: Bench) -> None:
    """Twenty large calls at the same time all end."""
    for _ in range(20):
        two.submit("echo", "x" * 1_000_000)
    assert {len(one.value) for one in await two.ended.take(20, PATIENCE)} == {1_000_000}


async def test_fifty_children() -> None:
    """Fifty children start and run fifty calls at the same time."""
    async with bench(50) as many:
        for _ in range(50):
            many.submit("hold")
        await many.at_the_gate(50)
        many.release()
        ended = await many.ended.take(50, PATIENCE)
        assert len({one.child for one in ended}) == 50


# ---- what a child is -------------------------------------------------------------------------------------------------


async def test_each_child_is_for_itself() -> None:
    """A child has its own channel, session and group, no standard input, and no descriptor of a sibling."""
    async with bench(4) as four:
        for _ in range(4):
            four.submit("self_portrait")
        await four.at_the_gate(4)
        four.release()
        portraits = [one.value for one in await four.ended.take(4, PATIENCE)]
    sockets = [[child for child in one["fds"].values() if child.startswith("socket:")] for one in portraits]
    assert [len(set(found)) for found in sockets] == [1, 1, 1, 1], "its own end of its channel, and nothing else"
    assert len({found[0] for found in sockets}) == 4
    for one in portraits:
        assert one["fds"]["0"] == "/dev/null"
        assert one["stdin"] == ""
        assert one["group"] == one["session"] == one["pid"]
        assert one["threads"] == 1
        others = [child for fd, child in one["fds"].items() if int(fd) > 2 and child.startswith(("pipe:", "/memfd:"))]
        assert others == [f"/memfd:hybridpool-{name} (deleted)" for name in ("folders", "shared-page")], "nothing else"


async def test_chance_differs(two: Bench) -> None:
    """Two children draw different random numbers."""
    for _ in range(2):
        two.submit("chance")
    await two.at_the_gate(2)
    two.release()
    one, other = [ended.value for ended in await two.ended.take(2, PATIENCE)]
    assert one != other


async def test_what_children_say(two: Bench) -> None:
    """What a child logs arrives under the child's name."""
    two.submit("hold_at", "/dev/null")
    await two.observed.see(events.ChildLogged, 1, PATIENCE)
    [said] = two.observed.of(events.ChildLogged)
    assert said.text.endswith(f"WARNING/{said.child}] entered\n")


# ---- recycling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "limit"), [(1, 1), (1, 3), (2, 3), (3, 2)])
async def test_recycling_counts_exactly(size: int, limit: int) -> None:
    """A child runs exactly `max_tasks_per_child` calls, exits with 0, and its name is not used again."""
    async with bench(size, recycle=RecycleLimits(tasks=limit)) as made:
        for _ in range(24):
            made.submit("who")
        ended = await made.ended.take(24, PATIENCE)
        counts: Counter[str] = Counter()
        for one in ended:
            counts[one.child] += 1
            assert one.value == [one.child, counts[one.child]], "it had a call that nobody knows of"
        assert max(counts.values()) == limit
        # Calls that are called back from behind a slow one make its child stay, and its replacement too many.
        retired = [
            event for event in made.observed.of(events.ChildRetired) if event.reason != "more children than needed"
        ]
        assert {event.reason for event in retired} == {f"max_tasks_per_child: {limit} tasks"}
        assert {event.child for event in retired} == {child for child, number in counts.items() if number == limit}
        for event in retired:
            gone = await made.gone(event.child)
            assert (gone.cause, gone.expected) == ("exit code 0", True)
        await made.idle(size)
        born = [event.child for event in made.observed.of(events.ChildSpawned)]
        # in the order in which they were ordered, but for those that were forked at the same moment
        assert len(set(born)) == len(born)
        assert all(re.fullmatch(r"ForkPoolWorker-[1-9]\d*", name) for name in born)


async def test_the_replacement_is_ready_before_the_old_one_goes() -> None:
    """The replacement is ready before a child on its last call goes, and no more calls run at once than allowed."""
    async with bench(2, recycle=RecycleLimits(tasks=1)) as made:
        for _ in range(6):
            made.submit("hold")
        for _ in range(3):
            await made.at_the_gate(2)
            with anyio.fail_after(PATIENCE):
                # both are on their last call, so two more stand by
                while len(made.supervised.lane.snapshot().idle) != 2:
                    await made.supervised.lane.wait_changed(0.05)
            assert len(made.supervised.lane.in_flight()) == 2
            assert len(made.gate.items) == 2
            made.release()
        ended = await made.ended.take(6, PATIENCE)
        assert len({one.child for one in ended}) == 6


async def test_one_stands_by() -> None:
    """A spare child stands by without working, and takes over when a child retires."""
    async with bench(2, recycle=RecycleLimits(tasks=2), spares=1) as made:
        for _ in range(12):
            made.submit("hold")
        for _ in range(6):
            await made.at_the_gate(2)
            assert sum(bool(child.in_flight) for child in made.supervised.lane.snapshot().children) == 2
            made.release()
        ended = await made.ended.take(12, PATIENCE)
        assert set(Counter(one.child for one in ended).values()) <= {1, 2}
        await made.idle(3)
        made.supervised.lane.resize(1)
        await made.idle(2)
        made.supervised.lane.resize(0)
        await made.idle(0)


async def test_recycling_by_memory() -> None:
    """A child above its memory limit is replaced, and one below it is not."""
    orders = attrs_orders(memory_watch=1)
    async with bench(1, recycle=RecycleLimits(memory=10**15), orders=orders) as made:
        await made.run("add", 1)
        assert made.observed.of(events.ChildRetired) == []
    async with bench(1, recycle=RecycleLimits(memory=1), orders=orders) as made:
        first = await made.run("add", 1)
        second = await made.run("add", 1)
        assert (first.child, second.child) == ("ForkPoolWorker-1", "ForkPoolWorker-2")
        assert made.observed.of(events.ChildRetired)[0].reason.startswith("max_memory_per_child: ")


def attrs_orders(*, memory_watch: int) -> ChildOrders:
    """Return the orders with a watch on memory."""
    return ChildOrders(ORDERS.log_level, ORDERS.log_format, ORDERS.redirect_stdouts, memory_watch)


# ---- size ------------------------------------------------------------------------------------------------------------


async def test_resize(two: Bench) -> None:
    """A running pool can grow, shrink, and shrink to nothing; a call then waits until there is a child."""
    two.supervised.lane.resize(4)
    await two.idle(4)
    two.supervised.lane.resize(1)
    await two.idle(1)
    assert len(two.observed.of(events.ChildRetired)) == 3
    assert all(event.expected for event in two.observed.of(events.ChildGone))
    two.supervised.lane.resize(0)
    await two.idle(0)
    two.submit("add", 1)
    two.supervised.lane.resize(1)
    assert (await two.ended.take(1, PATIENCE))[0].value == 2


async def test_shrinking_spares_the_busy(two: Bench) -> None:
    """Shrinking waits for running calls, and then runs no more calls at once than the new size."""
    for _ in range(3):
        two.submit("hold")
    await two.at_the_gate(2)
    two.supervised.lane.resize(1)
    # so that the headcount has been checked while no child was idle
    await anyio.wait_all_tasks_blocked()
    two.release()
    await two.at_the_gate(1)
    assert len(two.supervised.lane.in_flight()) == 1, "not more at once than the new size"
    two.release()
    ended = await two.ended.take(3, PATIENCE)
    assert all(isinstance(one.outcome, Returned) for one in ended)
    await two.idle(1)


async def test_autoscale() -> None:
    """An autoscaled lane grows with its load and shrinks without load."""
    async with bench(1, scale=ScaleLimits(floor=1, ceiling=3, idle=0.1)) as made:
        for _ in range(5):
            made.submit("hold")
        await made.at_the_gate(3)
        made.release()
        await made.at_the_gate(2)
        made.release()
        await made.ended.take(5, PATIENCE)
        await made.idle(1)
        scaled = made.observed.of(events.PoolScaled)
        assert (scaled[0].before, max(event.after for event in scaled), scaled[-1].after) == (1, 3, 1)


async def test_autoscale_after_deaths() -> None:
    """An autoscaled lane shrinks also after its last calls were lost with their children."""
    async with bench(1, scale=ScaleLimits(floor=1, ceiling=3, idle=0.1)) as made:
        for _ in range(3):
            made.submit("hold")
        await made.at_the_gate(3)
        made.gate.items.clear()
        for pid in made.pids().values():
            os.kill(pid, signal.SIGKILL)
        await made.ended.take(3, PATIENCE)
        await made.idle(1)


async def test_retiring_a_busy_child(two: Bench, fifo: Fifo) -> None:
    """A busy child that retires finishes its call, exits with 0, and is replaced."""
    job = two.submit("hold_at", fifo.path)
    await two.observed.see(events.ChildLogged, 1, PATIENCE)
    [busy] = [child for child in two.supervised.lane.snapshot().children if child.in_flight]
    two.supervised.lane.retire(busy.name, "asked to")
    two.supervised.lane.retire(busy.name, "asked to, again")
    fifo.open_up()
    [ended] = await two.ended.take(1, PATIENCE)
    assert (ended.job, ended.value, ended.child) == (job, "done", busy.name)
    gone = await two.gone(busy.name)
    assert (gone.cause, gone.expected) == ("exit code 0", True)
    await two.idle(2)
    assert [event.reason for event in two.observed.of(events.ChildRetired)] == ["asked to"]


async def test_a_retiring_child_may_still_ask(two: Bench, fifo: Fifo) -> None:
    """A task in a child that retires may still send a task."""
    two.submit("hold_at", fifo.path, "publish this")
    await two.observed.see(events.ChildLogged, 1, PATIENCE)
    [busy] = [child for child in two.supervised.lane.snapshot().children if child.in_flight]
    two.supervised.lane.retire(busy.name, "shutdown")
    fifo.open_up()
    await two.at_the_gate(1)
    two.release()
    [ended] = await two.ended.take(1, PATIENCE)
    assert ended.value == "done"


async def test_nothing_is_imported_in_a_child(two: Bench) -> None:
    """No module is imported in a child that the zygote could have imported before."""
    assert (await two.run("late_modules")).value == []


# ---- several calls in one channel ------------------------------------------------------------------------------------


async def practised(made: Bench, task: str, *args: object) -> None:
    """Have a task run a few times, so that it is known to be brief."""
    for _ in range(100):
        made.submit(task, *args)
    await made.ended.take(100, PATIENCE)


async def test_brief_calls_run_once_each() -> None:
    """Thousands of brief calls run exactly once each."""
    async with bench(2) as two:
        for _ in range(3):
            jobs = [two.submit("add", number) for number in range(2000)]
            ended = await two.ended.take(2000, PATIENCE)
            assert {one.job.id: one.value for one in ended} == {job.id: number + 1 for number, job in enumerate(jobs)}
        assert two.supervised.lane.load == 0


async def test_calls_behind_a_long_one_run_elsewhere() -> None:
    """Calls behind a long one are called back and run in another child."""
    async with bench(2) as two:
        await practised(two, "outlast", 0)
        long = two.submit("outlast", 2 * PATIENCE)
        brief = [two.submit("outlast", 0) for _ in range(30)]
        ended = await two.ended.take(30, PATIENCE)
        assert {one.job for one in ended} == set(brief)
        two.supervised.lane.cancel(long, PATIENCE)
        assert [one.job for one in await two.ended.take(1, PATIENCE)] == [long]
        assert two.supervised.lane.load == 0


async def test_what_is_done_before_one_that_hears_nothing() -> None:
    """Outcomes before a call that hears no signal arrive at once, and its hard limit holds."""
    async with bench(1) as one:
        await practised(one, "wander", 1)
        quick = [one.submit("wander", 1) for _ in range(3)]
        stuck = one.submit("wander", 10**11, hard=0.3)
        behind = one.submit("wander", 1)
        ended = await one.ended.take(5, PATIENCE)
        assert [done.job for done in ended] == [*quick, stuck, behind], "one would wait for what comes after it"
        assert [type(done.outcome) for done in ended] == [Returned] * 3 + [TimedOut, Returned]
        assert one.supervised.lane.load == 0


async def test_a_death_costs_one_call_of_many() -> None:
    """A death loses one call of those in the child's channel; the others run."""
    async with bench(1) as one:
        await practised(one, "leave_if", 0)
        jobs = [one.submit("leave_if", int(number % 10 == 5)) for number in range(50)]
        ended = await one.ended.take(50, PATIENCE)
        lost = [done.job for done in ended if isinstance(done.outcome, Lost)]
        assert lost == [job for number, job in enumerate(jobs) if number % 10 == 5]
        assert {done.job for done in ended} == set(jobs)


async def test_recycling_counts_exactly_with_many_at_once() -> None:
    """A child runs exactly `max_tasks_per_child` calls though several travel together."""
    async with bench(2, recycle=RecycleLimits(tasks=7), spares=1) as made:
        counts: Counter[str] = Counter()
        for _ in range(10):
            for _ in range(50):
                made.submit("who")
            for one in await made.ended.take(50, PATIENCE):
                counts[one.child] += 1
                assert one.value == [one.child, counts[one.child]], "it had a call that nobody knows of"
        assert max(counts.values()) == 7
        await made.idle(3)
        full = {child for child, number in counts.items() if number == 7}
        retired = {event.child: event.reason for event in made.observed.of(events.ChildRetired)}
        assert {retired[child] for child in full} == {"max_tasks_per_child: 7 tasks"}
        # one whose last calls were called back has been replaced before its time, so one is too many for a moment
        assert {retired[child] for child in retired.keys() - full} <= {"more children than needed"}


async def test_leaving_in_the_middle_tells_all_that_travelled_together() -> None:
    """A lane left by an exception ends all calls, also those in a child's channel that had not begun."""
    bus = events.Bus()
    keeper = ZygoteKeeper("tests.apps.pooled:app", (), bus)
    await keeper.start()
    config = LaneConfig(size=1, scale=None, recycle=RecycleLimits(), orders=ORDERS, start_timeout=PATIENCE, spares=0)
    made = Bench(keeper, config, bus)
    try:
        async with made.supervised:
            await made.idle(1)
            await practised(made, "outlast", 0)
            for seconds in (*[0] * 30, 60, *[0] * 30):
                made.submit("outlast", seconds)
            await anyio.lowlevel.checkpoint()
            raise Enough
    except* Enough:
        # as it was meant
        pass
    assert len(await made.ended.take(61, PATIENCE)) == 61


# ---- limits and second thoughts --------------------------------------------------------------------------------------


async def test_over_the_soft_limit(two: Bench) -> None:
    """A task over its soft limit gets SoftTimeLimitExceeded, and its child lives on."""
    two.submit("outlast", 60.0, soft=0.1, hard=PATIENCE)
    [ended] = await two.ended.take(1, PATIENCE)
    assert isinstance(ended.outcome, Raised)
    assert ended.outcome.kind == "SoftTimeLimitExceeded"
    assert two.observed.of(events.ChildGone) == []


async def test_over_the_hard_limit(two: Bench) -> None:
    """A task that ignores its soft limit is killed at its hard limit, and its child is replaced."""
    two.submit("outlast", 60.0, "go on", soft=1.0, hard=2.0)
    [ended] = await two.ended.take(1, PATIENCE)
    assert ended.outcome == TimedOut(2.0, ended.child)
    assert (await two.gone(ended.child)).cause == "signal 9 (SIGKILL)"
    await two.idle(2)


async def test_within_the_limits(two: Bench) -> None:
    """A limit does not hit the next task of the same child."""
    for _ in range(20):
        two.submit("outlast", 0.02, soft=3.0, hard=3.5)
    ended = await two.ended.take(20, PATIENCE)
    assert {one.value for one in ended} == {"nothing"}
    # the last of them is long past its limits, and another call runs
    two.submit("outlast", 4.0)
    [last] = await two.ended.take(1, PATIENCE)
    assert last.value == "nothing"
    assert two.observed.of(events.ChildGone) == []


async def test_cancelling_what_waits(two: Bench) -> None:
    """A cancelled call that waits ends at once and never runs."""
    for _ in range(2):
        two.submit("hold")
    await two.at_the_gate(2)
    waiting = two.submit("hold")
    two.supervised.lane.cancel(waiting, 1.0)
    [ended] = await two.ended.take(1, PATIENCE)
    assert (ended.job, ended.outcome) == (waiting, Cancelled(""))
    two.release()
    await two.ended.take(2, PATIENCE)
    assert two.supervised.lane.load == 0


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.1])
async def test_cancelling_what_runs(two: Bench, delay: float) -> None:
    """A cancelled call that runs stops, costs no child, and ends once."""
    for _ in range(20 if delay < 0.1 else 1):
        job = two.submit("outlast", 60.0)
        await anyio.sleep(delay)
        two.supervised.lane.cancel(job, PATIENCE)
        two.supervised.lane.cancel(job, PATIENCE)
        [ended] = await two.ended.take(1, PATIENCE / 2)
        if not isinstance(ended.outcome, Cancelled):
            assert isinstance(ended.outcome, Raised)
            assert ended.outcome.kind == "TaskCancelled"
    assert two.observed.of(events.ChildGone) == []
    assert (await two.run("add", 1)).value == 2


async def test_cancelling_what_does_not_stop(two: Bench) -> None:
    """A cancelled call that ignores it is killed after the grace."""
    job = two.submit("outlast", 60.0, "go on")
    await two.observed.see(events.ChildLogged, 1, PATIENCE)
    two.supervised.lane.cancel(job, 0.1)
    [ended] = await two.ended.take(1, PATIENCE)
    assert ended.outcome == Cancelled(ended.child)
    await two.gone(ended.child)


async def test_cancelling_what_travels_behind_another() -> None:
    """Cancelled calls behind a running one end soon and never run, and the running one is not hit."""
    async with bench(1) as one:
        await practised(one, "outlast", 0)
        long = one.submit("outlast", 0.3)
        behind = [one.submit("outlast", 60.0) for _ in range(3)]
        # they are in the channel now, and the first has not been called back from behind yet
        await anyio.sleep(0.001)
        for job in behind:
            one.supervised.lane.cancel(job, PATIENCE)
        ended = await one.ended.take(4, PATIENCE / 2)
        assert {done.job for done in ended} == {long, *behind}
        assert next(done.value for done in ended if done.job is long) == "nothing"
        assert one.observed.of(events.ChildGone) == []


# ---- death -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("die",), "signal 9 (SIGKILL)"),
        (("die", int(signal.SIGSEGV)), "signal 11 (SIGSEGV)"),
        (("leave", 3), "exit code 3"),
        (("leave", 0), "exit code 0"),
    ],
)
async def test_a_child_that_dies_in_a_call(two: Bench, words: tuple[Any, ...], cause: str) -> None:
    """A call whose child dies ends once as lost, with the cause, and the child is replaced."""
    ended = await two.run(*words)
    assert isinstance(ended.outcome, Lost)
    assert ended.outcome.cause.startswith(cause)
    assert ended.outcome.child == ended.child
    gone = await two.gone(ended.child)
    assert gone.cause.startswith(cause)
    assert not gone.expected
    await two.idle(2)
    assert (await two.run("add", 1)).value == 2
    assert len(two.supervised.lane.in_flight()) == 0


async def test_killing_every_child_loses_each_call_once(two: Bench) -> None:
    """Killing all children loses each running call once, and those that wait run."""
    running = [two.submit("hold") for _ in range(2)]
    waiting = [two.submit("add", number) for number in range(10)]
    await two.at_the_gate(2)
    two.gate.items.clear()
    for pid in two.pids().values():
        os.kill(pid, signal.SIGKILL)
    ended = await two.ended.take(12, PATIENCE)
    lost = [one.job for one in ended if isinstance(one.outcome, Lost)]
    assert sorted(job.id for job in lost) == sorted(job.id for job in running)
    assert {one.job.id for one in ended} == {job.id for job in running + waiting}


async def test_a_call_that_was_not_read_runs_elsewhere(two: Bench) -> None:
    """A call that a dying child has not read runs in another child, once."""
    pids = two.pids()
    await stopped(pids.values())
    jobs = [two.submit("add", number) for number in range(4)]
    assert len(two.supervised.lane.in_flight()) == 2
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    ended = await two.ended.take(4, PATIENCE)
    assert {one.job.id: one.value for one in ended} == {job.id: number + 1 for number, job in enumerate(jobs)}
    assert not {one.child for one in ended} & pids.keys()
    assert len(two.supervised.lane.in_flight()) == 0


async def test_large_calls_that_were_not_read_run_elsewhere(two: Bench) -> None:
    """A large call that a dying child has not read runs in another child."""
    await stopped(two.pids().values())
    for _ in range(2):
        two.submit("echo", "x" * 1_000_000)
    for pid in two.pids().values():
        os.kill(pid, signal.SIGKILL)
    assert {len(one.value) for one in await two.ended.take(2, PATIENCE)} == {1_000_000}


async def test_what_a_task_started_goes_with_its_child(two: Bench) -> None:
    """A process that a task started is killed with its child."""
    ended = await two.run("bring_up")
    process = psutil.Process(ended.value)
    two.supervised.lane.kill(ended.child)
    await two.gone(ended.child)
    with anyio.fail_after(PATIENCE):
        while process.is_running():
            await anyio.lowlevel.checkpoint()


async def test_no_zombies(two: Bench) -> None:
    """Dead children are reaped."""
    for _ in range(5):
        await two.run("die")
    await two.idle(2)
    family = psutil.Process(two.keeper.pid).children(recursive=True)
    assert sorted(process.pid for process in family) == sorted(two.pids().values())
    assert psutil.STATUS_ZOMBIE not in {process.status() for process in family}


async def test_the_zygote_dies(two: Bench) -> None:
    """After the zygote's death the running call is lost, and a new zygote starts new children."""
    two.submit("hold")
    await two.at_the_gate(1)
    two.gate.items.clear()
    before = two.pids()
    os.kill(two.keeper.pid, signal.SIGKILL)
    [ended] = await two.ended.take(1, PATIENCE)
    assert isinstance(ended.outcome, Lost)
    await two.observed.see(events.ZygoteLost, 1, PATIENCE)
    await two.idle(2)
    assert not before.keys() & two.pids().keys()
    assert (await two.run("add", 1)).value == 2


# ---- the way out -----------------------------------------------------------------------------------------------------


async def test_draining(two: Bench, fifo: Fifo) -> None:
    """Draining refuses new calls, returns those not begun, and waits for those that run."""
    two.submit("hold_at", fifo.path)
    await two.observed.see(events.ChildLogged, 1, PATIENCE)
    waiting = [two.submit("hold"), two.submit("add", 1)]
    await two.at_the_gate(1)
    two.release()
    assert two.supervised.stop_taking() in ([], waiting[1:])
    with pytest.raises(PoolClosed):
        two.submit("add", 1)
    assert not await two.supervised.drain(0.05)
    fifo.open_up()
    assert await two.supervised.drain(PATIENCE)
    assert not two.supervised.lane.has_children
    assert all(isinstance(one.outcome, Returned) for one in two.ended.items)


async def test_killing(two: Bench) -> None:
    """A cold stop kills all children at once, and their calls are lost."""
    two.submit("hold")
    await two.at_the_gate(1)
    pids = two.pids()
    with anyio.fail_after(PATIENCE):
        await two.supervised.kill()
    [ended] = await two.ended.take(1, PATIENCE)
    assert isinstance(ended.outcome, Lost)
    assert not any(map(psutil.pid_exists, pids.values()))


async def test_killing_children_that_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold stop ends at once while children that were just ordered hang in worker_process_init."""
    monkeypatch.setenv("UNBORN", "hangs")
    async with bench(2, app="tests.apps.unborn:app", ready=False) as made:
        with anyio.fail_after(PATIENCE):
            while not made.supervised.lane.has_children:
                await anyio.lowlevel.checkpoint()
            assert set(made.pids().values()) == {0}, "the zygote has not told their pids yet"
            await made.supervised.kill()


async def test_killing_many_children_that_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold stop of many starting children is not taken for failed starts."""
    monkeypatch.setenv("UNBORN", "hangs")
    async with bench(12, app="tests.apps.unborn:app", ready=False) as made:
        await made.observed.see(events.ChildSpawned, 12, PATIENCE)
        with anyio.fail_after(PATIENCE):
            await made.supervised.kill()
        assert made.observed.of(events.ChildStartFailed) == []


async def test_starts_that_fail_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed starts are repeated with growing pauses, and their event says why."""
    monkeypatch.setenv("UNBORN", "fails")
    async with bench(2, app="tests.apps.unborn:app", ready=False) as made:
        await made.observed.see(events.ChildStartFailed, 2, PATIENCE)
        for event in made.observed.of(events.ChildStartFailed):
            assert "RuntimeError: no database" in event.cause
        assert len(made.observed.of(events.ChildSpawned)) <= 4


class Enough(Exception):
    """Ends a pool in the middle."""


async def left_in_the_middle() -> tuple[Bench, list[int]]:
    """Leave a pool by an exception, with a call in hand and one that waits; return it and its children's pids."""
    bus = events.Bus()
    keeper = ZygoteKeeper("tests.apps.pooled:app", (), bus)
    await keeper.start()
    config = LaneConfig(size=1, scale=None, recycle=RecycleLimits(), orders=ORDERS, start_timeout=PATIENCE, spares=0)
    made = Bench(keeper, config, bus)
    pids: list[int] = []
    try:
        async with made.supervised:
            await made.idle(1)
            pids.extend(made.pids().values())
            made.submit("hold")
            await made.at_the_gate(1)
            raise Enough
    except* Enough:
        # as it was meant
        pass
    return made, pids


async def test_leaving_in_the_middle_leaves_no_child() -> None:
    """A lane left by an exception leaves no child running."""
    _, pids = await left_in_the_middle()
    assert not any(map(psutil.pid_exists, pids))


async def test_leaving_in_the_middle_is_told() -> None:
    """A running call ends as lost when its lane is left by an exception."""
    made, _ = await left_in_the_middle()
    [ended] = await made.ended.take(1, PATIENCE)
    assert isinstance(ended.outcome, Lost)


async def test_leaving_in_the_middle_leaves_nothing_open() -> None:
    """A lane left by an exception leaves no descriptor open."""
    await left_in_the_middle()
    before = open_fds()
    await left_in_the_middle()
    assert open_fds() == before
