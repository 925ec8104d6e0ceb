"""Which child gets which call, and how many at once."""

import os
import socket
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import ExitStack

import attrs
import pytest

from hybridpool._ipc.frames import ChildOrders
from hybridpool._lanes.base import Job
from hybridpool._lanes.children.handle import ChildHandle
from hybridpool._lanes.children.registry import ChildRegistry
from hybridpool._lanes.prefork.dispatcher import Dispatcher
from hybridpool._outcome import Cancelled, Outcome
from hybridpool._policy.lifecycle import ChildEvent
from hybridpool._policy.recycle import RecycleLimits
from hybridpool.events import Bus

#: seconds that a call of "brief" takes: many of them may be in one channel
BRIEF = 0.00001

#: on a machine that stands still for a second the watchdog looks whether a child reads its channel
pytestmark = pytest.mark.may_block


def job(
    name: str = "",
    task: str = "brief",
    *,
    priority: int = 0,
    may_start: Callable[[Job], bool] | None = None,
    ended: list[tuple[str, Outcome]] | None = None,
) -> Job:
    """Return a call; how it ends is put into a list."""
    told: list[tuple[str, Outcome]] = [] if ended is None else ended
    return Job(
        task=task,
        id=name,
        content_type="",
        body=b"",
        priority=priority,
        may_start=may_start,
        on_done=lambda one, outcome, *_: told.append((one.id, outcome)),
    )


@attrs.frozen
class Bench:
    """A dispatcher, and children that read nothing."""

    dispatcher: Dispatcher
    registry: ChildRegistry
    left: ExitStack

    def child(self, tasks: int | None = None) -> ChildHandle:
        """Make one more idle child, which is given calls after the others.

        :param tasks: after how many it is replaced.
        """
        child = ChildHandle(f"ForkPoolWorker-{len(self.dispatcher.idle) + 1}", 0.0, RecycleLimits(tasks=tasks))
        channel, page = child.open(lambda *_: None, lambda *_: None, lambda *_: None)
        os.close(page)
        self.left.callback(self.end, child)
        self.left.enter_context(socket.socket(fileno=channel))
        child.transition(ChildEvent.READY)
        self.dispatcher.idle.append(child)
        return child

    @staticmethod
    def end(child: ChildHandle) -> None:
        """Close a child's channel."""
        child.remove(set(child.calls), 0.0)
        child.close()

    def queue(self, *jobs: Job) -> None:
        """Let calls wait, and hand out what can be handed out."""
        self.dispatcher.queue.extend(jobs)
        self.dispatcher.dispatch()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Make a dispatcher for two children."""
    registry = ChildRegistry(Bus(), ChildOrders(0, "", False, 0), RecycleLimits(), lambda *_: None, lambda *_: None)
    dispatcher = Dispatcher(registry, _watch)
    dispatcher.durations.note("brief", BRIEF)
    dispatcher.size = 2
    with ExitStack() as left:
        yield Bench(dispatcher, registry, left)


def _watch(busy: Collection[ChildHandle]) -> None:
    """Watch no child."""


def given(child: ChildHandle) -> list[str]:
    """Return the ids of the calls that a child has."""
    return [call.job.id for call in child.calls.values()]


def waiting(bench: Bench) -> list[str]:
    """Return the ids of the calls that wait."""
    return [one.id for one in bench.dispatcher.queue]


# ---- how many calls a child is given ---------------------------------------------------------------------------------


async def test_brief_calls_are_spread_over_the_children(bench: Bench) -> None:
    """Short calls that wait are handed out at once, some to each child."""
    first, second = bench.child(), bench.child()
    bench.queue(*(job(name) for name in "abcd"))
    assert given(first)[:2] == ["a", "b"]
    assert given(second)[:1] == ["c"]
    assert waiting(bench) == []


async def test_a_call_that_may_take_long_lies_alone(bench: Bench) -> None:
    """No call is put behind one that may take long, and it is put behind no other."""
    bench.dispatcher.size = 1
    child = bench.child()
    bench.queue(job("a"), job("b", "unknown"), job("c"))
    assert (given(child), waiting(bench)) == (["a"], ["b", "c"])
    child.remove({1}, 0.0)
    bench.dispatcher.mark_free(child)
    bench.dispatcher.dispatch()
    assert (given(child), waiting(bench)) == (["b"], ["c"])


async def test_a_child_is_given_no_more_calls_than_it_may_run(bench: Bench) -> None:
    """A child that is replaced after some calls is given no more, and its replacement is asked for with the last."""
    bench.dispatcher.size = 1
    child, changed = bench.child(tasks=3), bench.registry.changed.waiter()
    bench.queue(*(job(name) for name in "abcde"))
    assert (given(child), waiting(bench)) == (["a", "b", "c"], ["d", "e"])
    assert child.on_last
    assert changed.done()


async def test_a_child_is_topped_up_to_the_calls_that_it_may_run(bench: Bench) -> None:
    """Calls are put behind those in flight only as far as the child may run them."""
    bench.dispatcher.size = 1
    child = bench.child(tasks=3)
    bench.queue(job("a"))
    bench.queue(*(job(name) for name in "bcde"))
    assert (given(child), waiting(bench)) == (["a", "b", "c"], ["d", "e"])


@pytest.mark.parametrize("why", ["", "on_last", "recalled", "is_to_be_killed", "retired"])
async def test_a_child_that_is_not_topped_up(bench: Bench, why: str) -> None:
    """No call is put behind those of a child that exits soon, or from which calls were called back."""
    bench.dispatcher.size = 1
    child = bench.child()
    bench.queue(job("a"))
    assert child.head is not None
    child.on_last, child.head.recalled, child.is_to_be_killed = (
        why == name for name in ("on_last", "recalled", "is_to_be_killed")
    )
    if why == "retired":
        child.end("", 0.0)
    bench.queue(job("b"))
    assert given(child) == (["a"] if why else ["a", "b"])


# ---- which child, and which call -------------------------------------------------------------------------------------


async def test_no_more_children_work_than_the_size(bench: Bench) -> None:
    """A spare child is given no call."""
    bench.dispatcher.size = 1
    first, spare = bench.child(), bench.child()
    bench.queue(job("a", "unknown"), job("b", "unknown"))
    assert (given(first), given(spare), waiting(bench)) == (["a"], [], ["b"])


async def test_the_last_to_finish_goes_on_first(bench: Bench) -> None:
    """The child that has just finished is given the next call; one that did not begin its call is given it last."""
    first, second = bench.child(), bench.child()
    bench.queue(job("a", "unknown"))
    bench.queue(job("b", "unknown"))
    for child in (first, second):
        child.remove({1}, 0.0)
        bench.dispatcher.mark_free(child)
    assert list(bench.dispatcher.idle) == [second, first]
    assert bench.dispatcher.has_free
    bench.dispatcher.idle.remove(second)
    second.transition(ChildEvent.CALL)
    second.is_unresponsive = True
    bench.dispatcher.mark_free(second)
    assert list(bench.dispatcher.idle) == [first, second]
    bench.dispatcher.remove(first)
    assert not bench.dispatcher.has_free


async def test_a_call_with_a_higher_priority_goes_first(bench: Bench) -> None:
    """Calls wait by their priority, and those of one priority in the order in which they came."""
    for name, priority in (("a", 1), ("b", 0), ("c", 1), ("d", 2), ("e", 0)):
        bench.dispatcher.add(job(name, priority=priority))
    assert waiting(bench) == ["d", "a", "c", "b", "e"]


async def test_calls_that_come_back_keep_their_order(bench: Bench) -> None:
    """Calls that a child did not begin are the next ones, as if they had not been given; unwanted ones end."""
    bench.dispatcher.size = 1
    ended: list[tuple[str, Outcome]] = []
    child, jobs = bench.child(), [job(name, ended=ended) for name in "abc"]
    bench.queue(*jobs)
    assert {one.child for one in jobs} == {child.name}
    bench.queue(job("d", "unknown"))
    jobs[1].cancelled_at = 0.0
    bench.dispatcher.put_back(child.remove({1, 2, 3}, 0.0))
    assert waiting(bench) == ["a", "c", "d"]
    assert ended == [("b", Cancelled(""))]
    assert {(one.handed_at, one.child) for one in jobs} == {(None, "")}
    assert bench.dispatcher.running == 0


async def test_a_call_that_must_not_start_any_more(bench: Bench) -> None:
    """A call that must not start is passed over; those who wait for an empty lane are told if it was the last."""
    child, empty = bench.child(), bench.dispatcher.emptied.waiter()
    bench.queue(job("a", may_start=lambda _: False))
    assert (given(child), waiting(bench), list(bench.dispatcher.idle)) == ([], [], [child])
    assert empty.done()
    bench.queue(job("b", may_start=lambda _: False), job("c", may_start=lambda _: True))
    assert given(child) == ["c"]
