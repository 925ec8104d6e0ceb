"""The prefork lane by its public methods alone, without children or with fake ones."""

import os
from collections.abc import AsyncIterator, Sequence

import anyio
import pytest

from hybridpool._ipc.frames import ChildOrders
from hybridpool._lanes.base import Job, Lane
from hybridpool._lanes.prefork.lane import PreforkLane
from hybridpool._outcome import Cancelled, Lost, Outcome
from hybridpool._policy.recycle import RecycleLimits
from hybridpool._policy.time_limits import UNREAD
from hybridpool.errors import PoolClosed
from hybridpool.events import Bus
from tests.unit.lanes.fake_children import FakeZygote, Told, turns, until

Ended = list[tuple[str, Outcome]]


def made() -> PreforkLane:
    """Return a lane without children."""
    return PreforkLane(Bus(), RecycleLimits(), ChildOrders(0, "", False, 0), lambda *_: None)


class Clock:
    """Seconds that the test says, and how often they were asked for."""

    def __init__(self) -> None:
        self.now = 100.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now


def job(name: str, ended: Ended | None = None, priority: int = 0) -> Job:
    """Return a call; how it ends is put into a list."""
    told: Ended = [] if ended is None else ended
    return Job(
        task="t",
        id=name,
        content_type="",
        body=b"",
        priority=priority,
        on_done=lambda one, outcome, *_: told.append((one.id, outcome)),
    )


def ids(jobs: list[Job]) -> list[str]:
    """Return the ids of calls."""
    return [one.id for one in jobs]


async def test_a_prefork_lane_is_a_lane() -> None:
    """The type checker holds it against the protocol; all lanes are used by that alone."""
    lane: Lane = made()
    assert (lane.size, lane.in_flight(), lane.snapshot().children) == (0, [], ())


async def test_withdrawing_all_that_wait() -> None:
    """Withdrawn calls come back in the order in which the lane runs calls, and their `on_done` is not called."""
    lane = made()
    ended: Ended = []
    for name, priority in (("a", 0), ("b", 0), ("c", 5)):
        lane.submit(job(name, ended, priority))
    assert lane.snapshot().queued == 3
    assert ids(lane.withdraw_queued()) == ["c", "a", "b"]
    assert (lane.load, ended) == (0, [])


async def test_withdrawing_some() -> None:
    """Only the calls that are asked for are withdrawn; the others keep their places."""
    lane = made()
    for name in "abcd":
        lane.submit(job(name))
    assert ids(lane.withdraw_queued(lambda one: one.id in "bd")) == ["b", "d"]
    assert ids(lane.withdraw_queued()) == ["a", "c"]


@pytest.mark.parametrize("how", ["withdrawn", "cancelled"])
async def test_taking_the_last_makes_the_lane_empty(how: str) -> None:
    """A task that waits for an empty lane is woken when the last call is taken; for one that is empty none waits."""
    lane = made()
    last = job("a")
    with anyio.fail_after(30):
        await lane.wait_empty()
        lane.submit(last)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lane.wait_empty)
            await anyio.wait_all_tasks_blocked()
            if how == "withdrawn":
                lane.withdraw_queued()
            else:
                lane.cancel(last, 1.0)


async def test_cancelling_what_waits() -> None:
    """A call that waits is cancelled at once, by itself or by the id of its message."""
    lane = made()
    ended: Ended = []
    first, second = job("a", ended), job("b", ended)
    lane.submit(first)
    lane.submit(second)
    lane.cancel(first, 1.0)
    lane.cancel(first, 9.0)
    assert first.grace == 1.0, "what was promised first holds"
    assert lane.cancel_messages(["b", "z"], 1.0) == ["b"]
    assert ended == [("a", Cancelled("")), ("b", Cancelled(""))]
    assert lane.load == 0


async def test_a_lane_that_takes_no_more() -> None:
    """A call that is submitted after `stop_taking` is refused, and those that wait can still be withdrawn."""
    lane = made()
    lane.submit(job("a"))
    lane.stop_taking()
    with pytest.raises(PoolClosed):
        lane.submit(job("b"))
    assert not lane.takes_calls
    assert ids(lane.withdraw_queued()) == ["a"]


async def test_abandoning() -> None:
    """Every call of a lane that is abandoned ends as lost."""
    lane = made()
    ended: Ended = []
    lane.submit(job("a", ended))
    lane.abandon("the pool ended")
    assert ended == [("a", Lost("the pool ended", ""))]
    with pytest.raises(PoolClosed):
        lane.submit(job("b"))


class Forks:
    """A zygote whose children never become ready."""

    def fork(self, name: str, orders: ChildOrders, fds: Sequence[int]) -> None:
        """Fork none, and close what was passed on."""
        for fd in fds:
            os.close(fd)

    def kill(self, pid: int) -> None:
        """Kill none."""

    def alert(self, pid: int) -> None:
        """Alert none."""

    def die(self) -> None:
        """Live on."""


async def test_the_first_reason_to_replace_a_child_stays() -> None:
    """A child that is to be replaced for one reason is not replaced for another, and can be kept."""
    lane = made()
    lane.use_zygote(Forks())
    assert lane.spawn()
    [name] = (child.name for child in lane.snapshot().children)
    lane.retire(name, "too old", once_replaced=True)
    lane.retire(name, "too large", once_replaced=True)
    assert lane.snapshot().children[0].retires_because == "too old"
    lane.keep(name)
    assert lane.snapshot().children[0].retires_because is None
    lane.abandon("the test ended")
    assert not lane.has_children


async def test_a_child_that_is_not_there() -> None:
    """Orders about a child that is gone meanwhile are passed over."""
    lane = made()
    lane.retire("gone", "asked to")
    lane.retire("gone", "asked to", once_replaced=True)
    lane.keep("gone")
    lane.kill("gone")
    lane.kill_for("gone", 1, Cancelled(""))
    lane.give_up("gone", "late")
    assert not lane.has_child("gone")


@pytest.fixture
async def zygote() -> AsyncIterator[FakeZygote]:
    """Return the zygote of a lane of one child, which is not there."""
    lane = made()
    lane.resize(1)
    with FakeZygote(lane) as zygote:
        yield zygote


async def test_begins_are_reported(zygote: FakeZygote) -> None:
    """A submitter that wants to know it is told within moments that its call has begun, and of no other call."""
    told, begun, child = Told(), list[str](), await zygote.child()
    for name in "ab":
        zygote.lane.submit(told.job(name, lane="process", on_begun=lambda one: begun.append(one.id)))
    zygote.lane.submit(told.job("c", lane="process"))
    assert await child.reads() == ["a"]
    await until(lambda: begun == ["a"])
    await child.ends("a")
    assert await child.reads() == ["b", "c"], "the second was short, so the third lies behind it"
    await child.ends("b", "c")
    assert begun in (["a"], ["a", "b"]), "the end of a call may be heard before its begin was seen"
    assert list(told.outcomes) == ["a", "b", "c"]


@pytest.mark.may_block  # it looks, without waiting, what its child has not read
async def test_what_has_not_begun_is_called_back(zygote: FakeZygote) -> None:
    """Calls that a child has not read are asked again whether they may start, if their begin is reported."""
    told, asked, child = Told(), list[str](), await zygote.child()
    assert isinstance(zygote.lane, PreforkLane)

    def may_start(one: Job) -> bool:
        asked.append(one.id)
        return asked.count(one.id) == 1

    for name, begins in (("a", None), ("b", lambda _: None)):
        zygote.lane.submit(told.job(name, lane="process", may_start=may_start, on_begun=begins))
        zygote.lane.recall_unbegun()
        await turns()
        if begins is None:
            assert await child.reads() == ["a"], "the begin of this one is not reported: it stays where it is"
            await child.ends("a")
    assert await child.reads() == []
    assert asked == ["a", "b", "b"]
    assert zygote.lane.load == 0


@pytest.mark.may_block  # it looks, without waiting, what its child has not read
async def test_what_has_not_begun_is_called_back_in_a_stop(zygote: FakeZygote) -> None:
    """A lane that stops calls back what has not begun as well: it is left over, and the child is told to end."""
    told, child = Told(), await zygote.child()
    assert isinstance(zygote.lane, PreforkLane)
    zygote.lane.submit(told.job("a", lane="process", on_begun=lambda _: None))
    await turns()
    zygote.lane.stop_taking()
    zygote.lane.resize(0)
    [name] = (one.name for one in zygote.lane.snapshot().children)
    zygote.lane.retire(name, "shutdown")
    zygote.lane.recall_unbegun()
    await turns()
    assert await child.reads() == []
    assert not zygote.lane.in_flight()
    assert ids(zygote.lane.withdraw_queued()) == ["a"]
    assert told.outcomes == {}


async def test_the_load_is_waited_for() -> None:
    """A wait for another load returns at once if the load is outside, and otherwise when it gets there."""
    lane = made()
    with anyio.fail_after(30):
        await lane.wait_load_outside(1, 5)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lane.wait_load_outside, 0, 0)
            await anyio.wait_all_tasks_blocked()
            lane.submit(job("a"))
    lane.withdraw_queued()


async def test_a_resize_is_a_change() -> None:
    """A new size wakes the supervisors, and is in the snapshot."""
    lane = made()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lane.wait_changed)
            await anyio.wait_all_tasks_blocked()
            lane.resize(3)
    assert (lane.size, lane.snapshot().size) == (3, 3)


@pytest.mark.slow
async def test_a_call_that_was_read_and_not_begun() -> None:
    """A call that its child has read stays there; while it does not begin, the lane looks at it once a second."""
    clock = Clock()
    lane = PreforkLane(Bus(), RecycleLimits(), ChildOrders(0, "", False, 0), lambda *_: None, clock=clock)
    lane.resize(2)
    with FakeZygote(lane) as zygote:
        children = [await zygote.child(), await zygote.child()]
        lane.submit(job("read"))
        await turns()
        for child in children:
            child.read_now(begin=False)
        # The other child may not have it: one works at a time now.
        lane.resize(1)
        clock.now += 2 * UNREAD
        lane.submit(job("waits"))
        await turns()
        clock.looks = 0
        await until(lambda: clock.looks)
        for _ in range(20):
            await turns()
        assert clock.looks < 20
        assert [len(child.calls) for child in children].count(1) == 1
        assert lane.load == 2
