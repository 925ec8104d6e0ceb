"""What the parent knows of the call that a child runs, by what it hears and by what stands on the shared page."""

import os
import socket
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from hybridpool._ipc import frames, framing
from hybridpool._ipc.frames import Done, Returned
from hybridpool._ipc.shared_page import SharedPage
from hybridpool._lanes.base import Job
from hybridpool._lanes.children.handle import ChildHandle
from hybridpool._outcome import Cancelled
from hybridpool._policy.lifecycle import ChildEvent, State
from hybridpool._policy.recycle import RecycleLimits
from hybridpool._policy.time_limits import STALL


def job() -> Job:
    """Return a call."""
    return Job(task="t", id="", content_type="", body=b"", on_done=lambda *_: None)


def done(seq: int) -> Done:
    """Return an outcome."""
    return Done(seq, Returned(b"", ""), 0.0, 0)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[ChildHandle, SharedPage]]:
    """Make the parent's view of an idle child, and the child's view of the page they share."""
    child = ChildHandle("ForkPoolWorker-1", 0.0, RecycleLimits())
    channel, shared_page = child.open(lambda *_: None, lambda *_: None, lambda *_: None)
    child.transition(ChildEvent.READY)
    page = SharedPage(shared_page)
    os.close(shared_page)
    with socket.socket(fileno=channel):
        yield child, page
    child.transition(ChildEvent.RETIRE)
    child.close()
    page.close()


async def test_time_of_a_call_behind_others(pair: tuple[ChildHandle, SharedPage]) -> None:
    """A call's limits count from when its child was first seen at it, not from when the outcome before is heard."""
    child, page = pair
    child.give([job(), job()], 0.0)
    page.start(1)
    page.add(frames.pack(done(1)))
    page.start(2)
    assert child.check(1.0) == [], "it goes on, and may send it at any moment"
    assert child.check(1.0 + 2 * STALL) == [done(1)]
    assert child.pop_finished(1, 50.0) is not None
    assert child.head is not None
    assert (child.head.since, child.still_since) == (1.0, 1.0)
    assert child.check(60.0) == [], "it was heard of"


async def test_time_of_a_call_that_came_later(pair: tuple[ChildHandle, SharedPage]) -> None:
    """The limits of a call that was given later count from then, however long the child was paused before."""
    child, page = pair
    child.give([job()], 0.0)
    page.start(1)
    page.add(frames.pack(done(1)))
    assert child.check(1.0) == []
    assert child.check(50.0) == [done(1)]
    assert child.pop_finished(1, 50.0) is not None
    child.transition(ChildEvent.DONE)
    child.give([job()], 50.0)
    assert child.head is not None
    assert (child.head.since, child.still_since) == (50.0, 50.0)


# ---- calls in flight -----------------------------------------------------------------------------------------


async def test_what_was_done_about_a_call_ends_with_it(pair: tuple[ChildHandle, SharedPage]) -> None:
    """Recalls, interrupts and the verdict belong to one call in flight: the next one starts without them."""
    child, _ = pair
    child.give([job(), job()], 0.0)
    first, second = child.calls.values()
    assert child.head is first
    first.recalled = first.softened = first.stopped = True
    first.verdict = Cancelled("")
    assert child.pop_finished(first.number, 3.0) is first.job
    assert child.is_at(second.number)
    assert (second.recalled, second.softened, second.stopped, second.verdict) == (False, False, False, None)
    assert second.since == 3.0
    assert child.pop_finished(second.number, 4.0) is second.job
    assert (child.is_at(second.number), child.calls) == (False, {})
    child.transition(ChildEvent.DONE)


async def test_calls_are_removed_by_number(pair: tuple[ChildHandle, SharedPage]) -> None:
    """Calls taken away from a child come back in order, and the first of those that stay is the head."""
    child, _ = pair
    jobs = [job() for _ in range(4)]
    child.give(jobs, 0.0)
    assert child.behind == 3
    assert child.remove({3, 1, 9}, 2.0) == [jobs[0], jobs[2]]
    assert child.is_at(2)
    assert child.calls[2].since == 2.0
    assert len(child.calls) == 2
    assert child.remove({2, 4}, 2.0) == [jobs[1], jobs[3]]
    child.transition(ChildEvent.DONE)


async def test_a_snapshot_does_not_change(pair: tuple[ChildHandle, SharedPage]) -> None:
    """A supervisor holds what was true at one moment, whatever the child does afterwards."""
    child, _ = pair
    child.give([job()], 5.0)
    seen = child.snapshot()
    child.pop_finished(1, 6.0)
    child.transition(ChildEvent.DONE)
    assert (seen.state, seen.in_flight, child.snapshot().in_flight) == (State.BUSY, 1, 0)
    assert seen.describe(7.5) == "ForkPoolWorker-1 (pid 0): busy, t[] for 2.5 s, 0 more in hand"


# ---- a child that cannot be relied on ------------------------------------------------------------------------


async def test_an_answer_that_is_heard_again(pair: tuple[ChildHandle, SharedPage]) -> None:
    """An outcome that was read from the shared page, and then comes as well, is passed over without a fault."""
    child, _ = pair
    child.give([job(), job()], 0.0)
    assert child.pop_finished(1, 0.0) is not None
    assert (child.pop_finished(1, 0.0), child.pop_out_of_turn(1, 0.0), child.fault) == (None, None, None)
    assert child.pop_finished(2, 0.0) is not None
    assert (child.pop_out_of_turn(2, 0.0), child.fault) == (None, None)
    child.transition(ChildEvent.DONE)


async def test_an_answer_before_which_another_is_missing(pair: tuple[ChildHandle, SharedPage]) -> None:
    """A later answer is taken, and what the child says is not relied on any more."""
    child, _ = pair
    first, second = job(), job()
    child.give([first, second], 0.0)
    assert child.pop_out_of_turn(2, 0.0) is second
    assert child.fault == "it answered out of turn: the answer to t before it is missing"
    assert [call.job for call in child.calls.values()] == [first]


async def test_an_answer_to_no_call(pair: tuple[ChildHandle, SharedPage]) -> None:
    """An answer to a call that the child was never given is a fault."""
    child, _ = pair
    assert child.pop_out_of_turn(7, 0.0) is None
    assert child.fault == "it answered out of turn: it was not given that"


@pytest.mark.parametrize("message", [b"garbage", b"\xc1", b"\x90", b"\x91\xff", b"\x91" * 9999])
async def test_a_message_that_cannot_be_read(message: bytes) -> None:
    """It is told as the child's fault, with the descriptors that came along closed; what follows is heard."""
    child, heard, faults = ChildHandle("ForkPoolWorker-1", 0.0, RecycleLimits()), [], []
    channel, shared_page = child.open(
        lambda _, said: heard.append(said), lambda _, why: faults.append(why), lambda *_: None
    )
    os.close(shared_page)
    read, write = os.pipe()
    with socket.socket(fileno=channel) as far:
        socket.send_fds(far, [message], [write])
        os.close(write)
        far.send(frames.pack((done(1),)))
        child.drain_outcomes()
    assert os.read(read, 1) == b"", "the other end is closed"
    os.close(read)
    assert len(faults) == 1
    # The second looks as if the message were in the file that came along.
    assert faults[0].startswith(("it sent what is not a message of a child", "its answer could not be taken"))
    assert heard == [[done(1)]]
    child.transition(ChildEvent.READY)
    child.transition(ChildEvent.RETIRE)
    child.close()


async def test_an_answer_to_a_thread_names_the_error() -> None:
    """What a thread of a task is told of a failed publication is as exact as what its main thread is told."""
    heard: list[frames.FromChild] = []
    child = ChildHandle("ForkPoolWorker-1", 0.0, RecycleLimits())
    channel, shared_page = child.open(lambda _, said: heard.extend(said), lambda *_: None, lambda *_: None)
    os.close(shared_page)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, socket.socket(fileno=channel) as waiter:
        waiter.setblocking(False)
        near.setblocking(False)
        with far:
            framing.send(waiter, frames.pack([frames.Enqueue(0, b"")]), (far.fileno(),))
        with anyio.fail_after(60):
            while not heard:
                await anyio.lowlevel.checkpoint()
        [asked] = heard
        assert isinstance(asked, frames.Enqueue)
        # It does not wait, but its socket could: in the loop's thread the suite forbids that.
        await anyio.to_thread.run_sync(
            child.tell, frames.EnqueueAnswer(asked.ticket, "no connection", "BrokerUnavailable")
        )
        assert frames.read_to_child(near.recv(1024)) == [frames.EnqueueAnswer(0, "no connection", "BrokerUnavailable")]
    child.transition(ChildEvent.READY)
    child.transition(ChildEvent.RETIRE)
    child.close()
