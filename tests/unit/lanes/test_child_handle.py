"""What the parent knows of the call that a child runs, by what it hears and by what stands on the shared page."""

import os
import socket
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs
import pytest

from hybridpool._ipc import frames, framing
from hybridpool._ipc.frames import Done, Refused, Returned, RunCall
from hybridpool._ipc.framing import MAX_INLINE_BYTES
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
    child.give([job()], 70.0)
    assert child.head is not None
    assert (child.head.since, child.still_since) == (70.0, 70.0)


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


# ---- what comes over the channel, and what goes back -----------------------------------------------------------


@attrs.frozen
class Ends:
    """A child as the parent sees it, what the child would use, and what the parent has heard."""

    child: ChildHandle
    page: SharedPage
    far: socket.socket
    heard: list[frames.FromChild]


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    """Make the parent's view of an idle child, and the child's own ends of channel and page."""
    heard: list[frames.FromChild] = []
    child = ChildHandle("ForkPoolWorker-1", 3.0, RecycleLimits())
    channel, shared_page = child.open(lambda _, said: heard.extend(said), lambda *_: None, lambda *_: None)
    child.transition(ChildEvent.READY)
    page = SharedPage(shared_page)
    os.close(shared_page)
    with socket.socket(fileno=channel) as far:
        far.setblocking(False)
        yield Ends(child, page, far, heard)
    if child.state is not State.GONE:
        child.remove(set(child.calls), 0.0)
        child.close()
    page.close()


async def test_what_was_sent_is_heard_before_what_is_noted(ends: Ends) -> None:
    """Outcomes in the channel were noted before those on the shared page, and are heard before them."""
    ends.child.give([job(), job(), job()], 0.0)
    for seq in (1, 2, 3):
        ends.page.start(seq)
    ends.page.add(frames.pack(done(2)))
    ends.far.send(frames.pack((done(1),)))
    assert ends.child.check(1.0) == []
    assert ends.child.check(2.0) == [done(2)]
    assert ends.heard == [done(1)]


async def test_calls_of_a_child_that_is_gone(ends: Ends) -> None:
    """The calls that a child had not begun can be run by another; the others died with it."""
    jobs = [job() for _ in range(3)]
    ends.child.give(jobs, 0.0)
    ends.page.start(2)
    back, lost = ends.child.close()
    assert [call.job for call in back] == jobs[2:]
    assert [call.job for call in lost] == jobs[:2]


async def test_calls_that_were_not_read(ends: Ends) -> None:
    """What a child has not read is taken back, and an order behind it stays in the channel."""
    jobs = [job() for _ in range(3)]
    ends.child.give(jobs[:2], 0.0)
    ends.child.give(jobs[2:], 0.0)
    ends.child.tell(frames.Recall())
    ends.child.on_last = True
    # It does not wait, but its socket could: in the loop's thread the suite forbids that.
    assert await anyio.to_thread.run_sync(ends.child.take_unread, 1.0) == jobs
    assert not ends.child.on_last
    assert frames.read_to_child(framing.receive(ends.far)) == [frames.Recall()]


async def test_the_end_waits_for_the_calls(ends: Ends) -> None:
    """The channel of a child that is to exit ends after its last call, whether that is answered or taken back."""
    ends.child.give([job(), job()], 0.0)
    assert framing.receive(ends.far)
    ends.child.end("too many", 1.0)
    assert ends.child.pop_finished(1, 2.0) is not None
    assert ends.child.snapshot().finished_at is None
    with pytest.raises(BlockingIOError):
        framing.receive(ends.far)
    assert len(ends.child.remove({2}, 3.0)) == 1
    assert ends.child.finished_at == 3.0
    assert framing.receive(ends.far) == b""


async def test_the_time_of_a_child_that_is_not_ready() -> None:
    """A child that is to exit before it is ready has the time to exit from its fork on."""
    child = ChildHandle("ForkPoolWorker-1", 3.0, RecycleLimits())
    for fd in child.open(lambda *_: None, lambda *_: None, lambda *_: None):
        os.close(fd)
    child.end("not needed", 9.0)
    assert child.finished_at == 3.0
    child.close()


async def test_descriptors_that_nothing_needs_are_closed(ends: Ends) -> None:
    """A descriptor that came with a message, and is for none of its frames, is closed."""
    read, write = os.pipe()
    ends.child.give([job()], 0.0)
    framing.send(ends.far, frames.pack((done(1),)), [write])
    os.close(write)
    ends.child.drain_outcomes()
    assert ends.heard == [done(1)]
    assert os.read(read, 1) == b"", "the other end is closed"
    os.close(read)


async def test_a_value_in_a_file_is_its_calls(ends: Ends) -> None:
    """A value that came in a file is kept for its call; without a descriptor it is an error that says so."""
    jobs = [job(), job()]
    ends.child.give(jobs, 0.0)
    in_file = [Done(seq, Returned(b"", "", parts=(5,)), 0.0, 0) for seq in (1, 2)]
    file = os.memfd_create("value")
    os.write(file, b"value")
    framing.send(ends.far, frames.pack(in_file), [file])
    os.close(file)
    ends.child.drain_outcomes()
    first, second = ends.heard
    assert first == in_file[0]
    assert jobs[0].blob is not None
    assert isinstance(second, Done)
    assert isinstance(second.outcome, Refused)
    assert "ulimit -n" in second.outcome.reason


async def test_a_thread_that_is_not_answered(ends: Ends) -> None:
    """A thread whose socket was lost on the way cannot be answered; one that waits learns of the end of its child."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    with near:
        framing.send(ends.far, frames.pack([frames.Enqueue(0, b"a")]), (far.fileno(),))
        framing.send(ends.far, frames.pack([frames.Enqueue(0, b"b")]))
        far.close()
        ends.child.drain_outcomes()
        asked = [frame for frame in ends.heard if isinstance(frame, frames.Enqueue)]
        assert [ends.child.is_answerable(frame) for frame in asked] == [True, False]
        ends.child.close()
        assert near.recv(100) == b""


async def test_no_message_is_too_large_for_a_packet(ends: Ends) -> None:
    """Calls that together are too large for one packet go in several, none of them in a file."""
    jobs = [attrs.evolve(job(), body=b"x" * 50_000) for _ in range(4)]
    ends.child.give(jobs, 0.0)
    seqs: list[int] = []
    while len(seqs) < len(jobs):
        with anyio.fail_after(60):
            await anyio.lowlevel.checkpoint()
        try:
            packet = ends.far.recv(MAX_INLINE_BYTES)
        except BlockingIOError:
            continue
        assert len(packet) > 1, "it is in a file"
        seqs += [frame.seq for frame in frames.read_to_child(packet) if isinstance(frame, RunCall)]
    assert seqs == [1, 2, 3, 4]
