"""How many calls of one task a lane runs at once, in the lane of prefork children."""

from collections.abc import AsyncIterator

import anyio
import pytest

from hybridpool._ipc.frames import ChildOrders
from hybridpool._lanes.base import Job
from hybridpool._lanes.prefork.lane import PreforkLane
from hybridpool._outcome import Cancelled
from hybridpool._policy.recycle import RecycleLimits
from hybridpool.events import Bus
from tests.unit.lanes.fake_children import FakeZygote, Told, turns

# ---- calls of a task that may run only so many at once -------------------------------------------------------


@pytest.fixture
async def zygote() -> AsyncIterator[FakeZygote]:
    """Return the zygote of a lane of two children, none of which is there."""
    lane = PreforkLane(Bus(), RecycleLimits(), ChildOrders(0, "", False, 0), lambda *_: None)
    lane.resize(2)
    with FakeZygote(lane) as made:
        yield made


def submit(zygote: FakeZygote, told: Told, *ids: str, **options: object) -> list[Job]:
    """Submit calls of the task "t"; by default one at a time."""
    jobs = [told.job(one, **{"lane": "process", "concurrency": 1, **options}) for one in ids]
    for one in jobs:
        zygote.lane.submit(one)
    return jobs


async def test_a_task_with_a_limit_of_its_own(zygote: FakeZygote) -> None:
    """A call beyond its task's own limit leaves the free child to others, and runs when one of them has ended."""
    told, one, other = Told(), await zygote.child(), await zygote.child()
    submit(zygote, told, "a", "b")
    submit(zygote, told, "free", concurrency=None, task="other")
    given = await one.reads() + await other.reads()
    assert sorted(given) == ["a", "free"]
    assert (zygote.lane.load, zygote.lane.snapshot().queued) == (3, 1)
    first = one if "a" in one.calls[1].id else other
    await first.ends("a")
    assert await first.reads() == ["b"]
    assert zygote.lane.load == 2


async def test_what_is_held_back_can_be_cancelled_and_withdrawn(zygote: FakeZygote) -> None:
    """A call that waits for others of its task is cancelled at once, by id too, and can be taken back."""
    told, child = Told(), await zygote.child()
    submit(zygote, told, "a", "b", "c", "d")
    assert await child.reads() == ["a"]
    assert zygote.lane.cancel_messages(["b", "z"], 1.0) == ["b"]
    assert told.outcomes == {"b": Cancelled("")}
    assert [one.id for one in zygote.lane.withdraw_queued(lambda one: one.id == "c")] == ["c"]
    assert zygote.lane.load == 2
    assert [one.id for one in zygote.lane.withdraw_queued()] == ["d"]
    await child.ends("a")
    assert await child.reads() == []
    assert zygote.lane.load == 0


async def test_a_death_frees_its_task(zygote: FakeZygote) -> None:
    """The call that died with its child counts no longer for its task's limit."""
    told, child = Told(), await zygote.child()
    submit(zygote, told, "a", "b")
    await child.reads()
    await child.dies()
    child = await zygote.child()
    assert await child.reads() == ["b"]


async def test_a_call_that_is_given_back_frees_its_task(zygote: FakeZygote) -> None:
    """A call that its child never began is held to the limit anew: it runs again, and then the next one does."""
    told, child = Told(), await zygote.child()
    submit(zygote, told, "a", "b")
    await turns()
    await child.dies()
    child = await zygote.child()
    assert await child.reads() == ["a"]
    await child.ends("a")
    assert await child.reads() == ["b"]
    await child.ends("b")
    assert zygote.lane.load == 0


@pytest.mark.parametrize("how", ["cancelled", "withdrawn"])
async def test_a_call_that_is_taken_back_while_it_waits_frees_its_task(zygote: FakeZygote, how: str) -> None:
    """A call that was let go on, and is taken back before a child is free for it, makes way for the next one."""
    told, child = Told(), await zygote.child()
    submit(zygote, told, "a", "b", "c")
    assert await child.reads() == ["a"]
    zygote.lane.resize(0)
    await child.ends("a")
    if how == "cancelled":
        assert zygote.lane.cancel_messages(["b"], 1.0) == ["b"]
    else:
        assert [one.id for one in zygote.lane.withdraw_queued(lambda one: one.id == "b")] == ["b"]
    zygote.lane.resize(1)
    assert await child.reads() == ["c"]


async def test_a_call_that_must_not_start_frees_its_task(zygote: FakeZygote) -> None:
    """A call that was revoked while it waited does not count for its task's limit."""
    told, child = Told(), await zygote.child()
    submit(zygote, told, "void", may_start=lambda _: False)
    submit(zygote, told, "a", "b")
    assert await child.reads() == ["a"]
    await child.ends("a")
    assert await child.reads() == ["b"]


async def test_what_is_held_back_is_no_reason_for_more_children(zygote: FakeZygote) -> None:
    """The demand, which the number of children follows, does not count calls that no further child could run."""
    told, child = Told(), await zygote.child()
    submit(zygote, told, *"abcde")
    await child.reads()
    assert isinstance(zygote.lane, PreforkLane)
    assert (zygote.lane.load, zygote.lane.demand) == (5, 1)
    with anyio.fail_after(60):
        await zygote.lane.wait_load_outside(2, 9)


async def test_short_calls_keep_their_tasks_limit(zygote: FakeZygote) -> None:
    """A child is given no more short calls at once than their task allows."""
    told, child = Told(), await zygote.child()
    assert isinstance(zygote.lane, PreforkLane)
    zygote.lane._dispatcher.durations.note("t", 0.00001)  # pyright: ignore[reportPrivateUsage]
    # On a busy machine five milliseconds may pass before the fake child reads, and the second would be called back.
    zygote.lane._watchdog.recalls = False  # pyright: ignore[reportPrivateUsage]
    submit(zygote, told, *"abcdef", concurrency=2)
    assert await child.reads() == ["a", "b"]
    await child.ends("a", "b")
    assert sorted(await child.reads()) == ["c", "d"]
