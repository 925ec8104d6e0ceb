"""A lane whose children run several calls at once, with children that are no processes."""

import errno
from collections.abc import AsyncIterator

import attrs
import pytest

from hybridpool import events
from hybridpool._ipc import frames
from hybridpool._ipc.blobs import OutgoingBlob
from hybridpool._ipc.frames import CallsGivenBack, ChildOrders, Done, Raised, Returned
from hybridpool._ipc.large_objects import LargeObject
from hybridpool._lanes.base import Job, Lane
from hybridpool._lanes.shared.lane import SharedLane
from hybridpool._lanes.shared.options import SharedOptions
from hybridpool._outcome import Cancelled, Lost, Refused, TimedOut
from hybridpool._policy.death_of_shared import MAX_BESIDE, MAX_SUSPECTED
from hybridpool._policy.lifecycle import State
from hybridpool._policy.recycle import RecycleLimits
from hybridpool.errors import PoolClosed
from hybridpool.events import Bus
from tests.unit.lanes.fake_children import FakeChild, FakeZygote, Told, turns, until

ENDED = Returned(b"", "")


@attrs.frozen
class Parts:
    """A lane with its children, and what it tells."""

    lane: SharedLane
    zygote: FakeZygote
    told: Told
    heard: list[object]

    def submit(self, *ids: str, **options: object) -> list[Job]:
        """Submit calls."""
        jobs = [self.told.job(one, **options) for one in ids]
        for job in jobs:
            self.lane.submit(job)
        return jobs


def made(*, slots: int = 3, limits: RecycleLimits | None = None, drain: float = 30.0) -> Parts:
    """Make a lane without children."""
    bus, heard = Bus(), list[object]()
    bus.subscribe(heard.append)
    # Without a loop: what holds one is not looked for.
    options = SharedOptions(has_loop=False, drain_timeout=drain)
    orders = ChildOrders(0, "", False, 0, lane="async", slots=slots)
    lane = SharedLane(bus, limits or RecycleLimits(), orders, lambda *_: None, options)
    lane.resize(1)
    return Parts(lane, FakeZygote(lane), Told(), heard)


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    """Return a lane of three slots a child."""
    lane = made()
    with lane.zygote:
        yield lane


# ---- which child gets which call -----------------------------------------------------------------------------


async def test_a_shared_lane_is_a_lane(parts: Parts) -> None:
    """The type checker holds it against the protocol; all lanes are used by that alone."""
    lane: Lane = parts.lane
    assert (lane.size, lane.in_flight()) == (1, [])


async def test_the_child_with_the_fewest_calls_is_first(parts: Parts) -> None:
    """Calls are spread evenly, and one goes to the child that has the fewest."""
    one, other = await parts.zygote.child(), await parts.zygote.child()
    parts.submit("a", "b", "c", "d")
    assert (await one.reads(), await other.reads()) == (["a", "c"], ["b", "d"])
    await other.ends("d", "b")
    parts.submit("e")
    assert (await one.reads(), await other.reads()) == (["a", "c"], ["e"])


async def test_no_more_calls_than_slots(parts: Parts) -> None:
    """A call beyond the slots waits until another one has ended, whichever that is."""
    child = await parts.zygote.child()
    parts.submit("a", "b", "c", "d", "e")
    assert await child.reads() == ["a", "b", "c"]
    assert (parts.lane.load, parts.lane.snapshot().queued, parts.lane.snapshot().running) == (5, 2, 3)
    await child.ends("b")
    assert await child.reads() == ["a", "c", "d"]
    assert parts.told.outcomes == {"b": ENDED}


async def test_a_higher_priority_goes_first(parts: Parts) -> None:
    """Of the calls that wait, those of a higher priority are given to a child first, in their order."""
    parts.submit("a", "b")
    parts.submit("c", "d", priority=5)
    child = await parts.zygote.child()
    assert await child.reads() == ["c", "d", "a"]


async def test_a_call_that_must_not_start(parts: Parts) -> None:
    """A call that has been dealt with elsewhere takes no slot, and the next one does."""
    parts.submit("void", concurrency=1, may_start=lambda _: False)
    parts.submit("a", concurrency=1)
    child = await parts.zygote.child()
    assert await child.reads() == ["a"]
    assert parts.lane.load == 1


async def test_many_calls_come_in_several_messages() -> None:
    """More calls than go into one message arrive all the same, in their order."""
    parts = made(slots=200)
    ids = [f"{number:03}" for number in range(150)]
    with parts.zygote:
        child = await parts.zygote.child()
        parts.submit(*ids)
        assert await child.reads() == ids


async def test_a_child_that_retires_is_given_nothing(parts: Parts) -> None:
    """A child that retires finishes its calls, ends, and is given no more."""
    child = await parts.zygote.child()
    parts.submit("a", "b")
    await child.reads()
    parts.lane.retire(child.name, "asked to")
    parts.submit("c")
    await child.reads()
    await child.ends("b")
    assert (await child.reads(), child.has_ended) == (["a"], False)
    await child.ends("a")
    assert (await child.reads(), child.has_ended) == ([], True)
    assert parts.lane.load == 1


# ---- calls of a task that may run only so many at once -------------------------------------------------------


async def test_a_task_with_a_limit_of_its_own(parts: Parts) -> None:
    """Calls beyond their task's own limit leave the slots to others, and run, oldest first, when one has ended."""
    child = await parts.zygote.child()
    parts.submit("a", "b", "c", concurrency=1)
    parts.submit("other", task="other")
    assert await child.reads() == ["a", "other"]
    assert parts.lane.load == 4
    assert parts.lane.snapshot().queued == 2
    await child.ends("a")
    assert await child.reads() == ["other", "b"]


async def test_what_is_held_back_can_be_cancelled_and_withdrawn(parts: Parts) -> None:
    """A call that waits for others of its task is cancelled at once, by id too, and can be taken back."""
    child = await parts.zygote.child()
    parts.submit("a", "b", "c", "d", concurrency=1)
    assert await child.reads() == ["a"]
    assert parts.lane.cancel_messages(["b", "z"], 1.0) == ["b"]
    assert parts.told.outcomes == {"b": Cancelled("")}
    assert [job.id for job in parts.lane.withdraw_queued(lambda job: job.id == "c")] == ["c"]
    await child.ends("a")
    assert await child.reads() == ["d"]
    assert parts.lane.load == 1


async def test_a_death_frees_its_task(parts: Parts) -> None:
    """The calls that died with a child count no longer for their task's limit."""
    child = await parts.zygote.child()
    parts.submit("a", "b", concurrency=1, may_rerun=False)
    await child.reads()
    await child.dies()
    assert isinstance(parts.told.outcomes["a"], Lost)
    child = await parts.zygote.child()
    assert await child.reads() == ["b"]


# ---- deaths --------------------------------------------------------------------------------------------------


async def test_the_guilty_call_is_lost_and_its_neighbours_run_again(parts: Parts) -> None:
    """The call whose code ran when its child died is lost; the others run again, in their order, before the rest."""
    child = await parts.zygote.child()
    parts.submit("a", "poison", "b", "late")
    await child.reads()
    await child.dies(of="poison", status=11)
    lost = parts.told.outcomes.pop("poison")
    assert isinstance(lost, Lost)
    assert (lost.cause, lost.child) == ("signal 11 (SIGSEGV)", child.name)
    assert parts.told.outcomes == {}
    assert events.CallsRestarted(child.name, child.pid, 2, "signal 11 (SIGSEGV)") in parts.heard
    child = await parts.zygote.child()
    assert await child.reads() == ["a", "b", "late"]
    await child.ends("late", "b", "a")
    assert parts.told.outcomes == {"a": ENDED, "b": ENDED, "late": ENDED}
    assert parts.lane.load == 0


async def test_calls_that_were_not_begun_are_not_suspected(parts: Parts) -> None:
    """A call that a dead child had not begun runs again, and the death does not count for it."""
    child = await parts.zygote.child()
    [begun] = parts.submit("begun")
    await child.reads()
    [unread] = parts.submit("unread", may_rerun=False)
    await turns()
    await child.dies()
    assert (begun.suspected, unread.suspected) == (1, 0)
    child = await parts.zygote.child()
    assert await child.reads() == ["begun", "unread"]


async def test_a_call_that_must_not_run_twice_is_lost_with_its_child(parts: Parts) -> None:
    """A call that was acknowledged early, or is a pool's, is lost with its child, whoever was guilty."""
    child = await parts.zygote.child()
    parts.submit("once", may_rerun=False)
    parts.submit("again")
    await child.reads()
    await child.dies(of="again")
    assert all(isinstance(parts.told.outcomes[one], Lost) for one in ("once", "again"))


async def test_an_outcome_that_stood_on_the_page(parts: Parts) -> None:
    """A call that had ended before its child died has its outcome, and does not run again."""
    child = await parts.zygote.child()
    parts.submit("a", "b")
    await child.reads()
    child.page.add(frames.pack(Done(child.number_of("b"), ENDED, 0.0, 0)))
    await child.dies()
    assert parts.told.outcomes == {"b": ENDED}
    child = await parts.zygote.child()
    assert await child.reads() == ["a"]


async def test_a_suspect_runs_apart(parts: Parts) -> None:
    """A call that was in too many deaths runs alone in a child of its own, where a death is its own."""
    parts.submit("poison", "a")
    for _ in range(MAX_SUSPECTED):
        child = await parts.zygote.child()
        assert await child.reads() == ["poison", "a"]
        await child.dies()
    alone = parts.zygote.latest
    assert alone.name in {one.name for one in parts.lane.snapshot().children if one.is_apart}
    common = await parts.zygote.child()
    parts.submit("new")
    assert await common.reads() == ["new"], "those under suspicion do not run beside others"
    await alone.is_ready()
    assert await alone.reads() == ["poison"]
    assert parts.told.outcomes == {}
    await alone.dies()
    assert isinstance(parts.told.outcomes.pop("poison"), Lost)
    await parts.zygote.latest.is_ready()
    assert await parts.zygote.latest.reads() == ["a"]
    await parts.zygote.latest.ends("a")
    assert parts.told.outcomes == {"a": ENDED}


async def test_the_innocent_runs_apart_after_many_deaths(parts: Parts) -> None:
    """A neighbour of very many guilty calls is started beside others no more than `MAX_BESIDE` times."""
    [innocent] = parts.submit("innocent")
    for number in range(MAX_BESIDE):
        child = await parts.zygote.child()
        parts.submit(f"poison-{number}")
        assert "innocent" in await child.reads()
        await child.dies(of=f"poison-{number}")
    assert innocent.is_apart
    assert "innocent" not in parts.told.outcomes


async def test_the_zygotes_death_is_no_call(parts: Parts) -> None:
    """When the zygote dies with all its children, the call whose code ran is not taken for the cause."""
    child = await parts.zygote.child()
    at_work, _ = parts.submit("at work", "waits")
    await child.reads()
    child.page.enter_stage(child.number_of("at work"))
    assert sorted(parts.lane.zygote_died()) == ["at work", "waits"]
    parts.lane.lose_zygote("signal 9 (SIGKILL)", blamed=())
    child.close()
    assert parts.told.outcomes == {}
    assert (at_work.suspected, at_work.beside) == (0, 1)
    parts.lane.use_zygote(parts.zygote)
    child = await parts.zygote.child()
    assert await child.reads() == ["at work", "waits"]


async def test_what_a_dying_lane_does_with_its_calls(parts: Parts) -> None:
    """A lane that takes no more calls starts none again: all end as lost."""
    child = await parts.zygote.child()
    parts.submit("a", "b")
    await child.reads()
    parts.submit("unread")
    await turns()
    parts.lane.stop_taking()
    with pytest.raises(PoolClosed):
        parts.submit("c")
    await child.dies()
    assert {one: type(outcome) for one, outcome in parts.told.outcomes.items()} == dict.fromkeys(
        ("a", "b", "unread"), Lost
    )
    assert parts.lane.load == 0


async def test_abandoning(parts: Parts) -> None:
    """Every call of a lane that is abandoned ends as lost, those that run apart included."""
    child = await parts.zygote.child()
    parts.submit("a", "b", concurrency=1)
    parts.submit("c", is_apart=True)
    await child.reads()
    parts.lane.abandon("the pool ended")
    assert {one: type(outcome) for one, outcome in parts.told.outcomes.items()} == dict.fromkeys("abc", Lost)


async def test_a_child_that_writes_what_has_no_place(parts: Parts) -> None:
    """A child that cannot be relied on is killed, and its calls are suspected and run again."""
    child = await parts.zygote.child()
    parts.submit("a", "b")
    await child.reads()
    await child.says(CallsGivenBack([1]))
    assert child.is_killed
    await child.dies()
    assert parts.told.outcomes == {}
    child = await parts.zygote.child()
    assert await child.reads() == ["a", "b"]


# ---- calls that run apart ------------------------------------------------------------------------------------


async def test_the_child_for_calls_apart(parts: Parts) -> None:
    """One child runs the calls that run apart, one after the other, and goes with the last of them."""
    parts.submit("a", "b", is_apart=True)
    await turns()
    [alone] = parts.zygote.children.values()
    await alone.is_ready()
    assert await alone.reads() == ["a"]
    await alone.ends("a")
    assert await alone.reads() == ["b"]
    await alone.ends("b")
    await alone.reads()
    assert alone.has_ended
    assert len(parts.zygote.children) == 1


async def test_a_call_apart_that_is_withdrawn(parts: Parts) -> None:
    """A child whose only call is withdrawn before it is ready goes again."""
    [job] = parts.submit("a", is_apart=True)
    await turns()
    parts.lane.cancel(job, 1.0)
    await parts.zygote.latest.is_ready()
    await parts.zygote.latest.reads()
    assert parts.zygote.latest.has_ended
    assert parts.told.outcomes == {"a": Cancelled("")}


async def test_a_call_apart_keeps_its_tasks_limit(parts: Parts) -> None:
    """A call that runs apart waits for others of its task, and runs apart after that."""
    common = await parts.zygote.child()
    parts.submit("a", concurrency=1)
    parts.submit("apart", concurrency=1, is_apart=True)
    assert await common.reads() == ["a"]
    await parts.zygote.latest.is_ready()
    await parts.zygote.latest.dies(status=0)
    await common.ends("a")
    assert await common.reads() == []
    await parts.zygote.latest.is_ready()
    assert await parts.zygote.latest.reads() == ["apart"]


async def test_a_call_apart_that_must_not_start(parts: Parts) -> None:
    """A call that was revoked while it waited to run apart is not started."""
    parts.submit("void", is_apart=True, may_start=lambda _: False)
    parts.submit("a", is_apart=True)
    await turns()
    await parts.zygote.latest.is_ready()
    assert await parts.zygote.latest.reads() == ["a"]


# ---- recycling -----------------------------------------------------------------------------------------------


async def test_recycling_by_count() -> None:
    """A child that has run enough takes calls until another one is ready, which is given the calls from then on."""
    parts = made(limits=RecycleLimits(tasks=2))
    with parts.zygote:
        old = await parts.zygote.child()
        parts.submit("a", "b", "long")
        await old.reads()
        await old.ends("a", "b")
        parts.submit("c")
        assert await old.reads() == ["long", "c"]
        [seen] = parts.lane.snapshot().children
        assert (seen.is_being_replaced, seen.state) == (True, State.BUSY)
        assert seen.retires_because == "max_tasks_per_child: 2 tasks"
        new = await parts.zygote.child()
        parts.submit("d")
        assert (await old.reads(), await new.reads()) == (["long", "c"], ["d"])
        parts.submit("e", "f", "g")
        assert (await old.reads(), await new.reads()) == (["long", "c", "g"], ["d", "e", "f"]), "none waits for room"


# ---- limits --------------------------------------------------------------------------------------------------


async def test_limits_stop_only_their_call(parts: Parts) -> None:
    """A soft limit is told to its call, then the hard one; if it stops, it has timed out, and its neighbours go on."""
    child = await parts.zygote.child()
    parts.submit("a", soft_limit=0.01, hard_limit=0.05)
    parts.submit("b")
    await child.reads()
    number = child.number_of("a")
    await until(lambda: _has_heard_both(child))
    assert [(one.seq, one.why) for one in child.interrupts] == [
        (number, "soft time limit"),
        (number, "hard time limit"),
    ]
    stopped = Raised("TaskCancelled", "hybridpool.errors", b"[]", "", "")
    await child.says(Done(number, stopped, 0.1, 0))
    assert parts.told.outcomes == {"a": TimedOut(0.05, child.name, is_killed=False)}
    assert not child.is_killed


def _has_heard_both(child: FakeChild) -> bool:
    child.read_now()
    return len(child.interrupts) == 2


async def test_a_call_that_does_not_stop_is_given_up(parts: Parts) -> None:
    """A call that does not stop ends for its submitter; its child takes no more, and goes with its last call."""
    child = await parts.zygote.child()
    [stubborn] = parts.submit("stubborn")
    parts.submit("b")
    await child.reads()
    parts.lane.cancel(stubborn, 0.0)
    assert parts.told.outcomes == {"stubborn": Cancelled(child.name)}
    [seen] = parts.lane.snapshot().children
    assert (seen.state, child.is_killed) == (State.RETIRING, False)
    assert [job.id for job in parts.lane.in_flight()] == ["b"]
    assert parts.lane.snapshot().running == 2, "its slot stays taken"
    assert parts.lane.load == 1, "nobody waits for it any more"
    await child.ends("b")
    assert child.is_killed
    await child.dies(of="stubborn")
    assert parts.told.outcomes == {"stubborn": Cancelled(child.name), "b": ENDED}
    assert parts.lane.load == 0


async def test_a_call_that_stops_late_condemns_no_other() -> None:
    """A child is not killed for a call that was given up and has ended since: its other calls come to their end."""
    parts = made()
    with parts.zygote:
        child = await parts.zygote.child()
        [late] = parts.submit("late")
        parts.submit("long")
        await child.reads()
        parts.lane.cancel(late, 0.0)
        await child.ends("late")
        assert parts.told.outcomes == {"late": Cancelled(child.name)}
        [seen] = parts.lane._dispatcher.children()  # pyright: ignore[reportPrivateUsage]
        assert (seen.condemned, seen.given_up) == (None, set())
        await child.ends("long")
        await child.reads()
        assert (child.has_ended, child.is_killed) == (True, False)


async def test_a_condemned_child_does_not_drain_for_ever() -> None:
    """A condemned child is killed after its time; the calls that were left run again, and none of them is guilty."""
    parts = made(drain=0.01)
    with parts.zygote:
        child = await parts.zygote.child()
        [stubborn] = parts.submit("stubborn")
        [neighbour] = parts.submit("neighbour")
        await child.reads()
        parts.lane.cancel(stubborn, 0.0)
        await until(lambda: child.is_killed)
        await child.dies(of="neighbour")
        assert parts.told.outcomes == {"stubborn": Cancelled(child.name)}
        assert (neighbour.beside, neighbour.suspected) == (1, 0)
        child = await parts.zygote.child()
        assert await child.reads() == ["neighbour"]


async def test_a_call_that_was_to_stop_is_not_started_again(parts: Parts) -> None:
    """A call that was told to stop, and whose child then dies of another, has ended: it does not run again."""
    child = await parts.zygote.child()
    [unwanted] = parts.submit("unwanted")
    parts.submit("poison")
    await child.reads()
    parts.lane.cancel(unwanted, 30.0)
    await child.dies(of="poison")
    assert parts.told.outcomes["unwanted"] == Cancelled(child.name)
    assert parts.lane.load == 0


class _TooLarge(LargeObject):
    """A value for which there is no room."""

    def write(self) -> int:
        """:raises OSError: always."""
        raise OSError(errno.EFBIG, "File too large")


async def test_a_worker_that_stops_is_no_time_limit(parts: Parts) -> None:
    """Calls that are told to stop because the worker stops end as lost, also those with a limit of their own."""
    child = await parts.zygote.child()
    [limited] = parts.submit("limited", soft_limit=60.0, hard_limit=60.0)
    parts.submit("stops")
    await child.reads()
    parts.lane.stop_calls()
    assert not parts.lane._dispatcher.children()[0].timers  # pyright: ignore[reportPrivateUsage]
    await child.reads()
    assert [one.why for one in child.interrupts] == ["the worker stops", "the worker stops"]
    await child.says(Done(2, Raised("TaskCancelled", "hybridpool.errors", b"[]", "", ""), 0.1, 0))
    assert parts.told.outcomes == {"stops": Lost("the worker stops", child.name)}
    parts.lane.cancel(limited, 0.0)
    assert parts.told.outcomes["limited"] == Cancelled(child.name)


async def test_a_call_that_cannot_be_handed_over(parts: Parts) -> None:
    """A call that is too large for any child is refused, and the calls that came with it run."""
    child = await parts.zygote.child()
    parts.submit("large", body=OutgoingBlob(_TooLarge((b"x" * 200_000,), ())))
    parts.submit("a")
    await until(lambda: "large" in parts.told.outcomes)
    assert isinstance(parts.told.outcomes["large"], Refused)
    assert await child.reads() == ["a"]
    assert parts.lane.snapshot().children[0].state is State.BUSY
    await child.ends("a")
    assert (parts.lane.load, parts.lane.snapshot().children[0].state) == (0, State.IDLE)
