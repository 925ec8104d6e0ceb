"""What the parent knows of a child's call at work, by what it hears and by what stands on the slate."""

import os
import socket
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from hybridpool.child import frames, wire
from hybridpool.child.frames import Done, Returned
from hybridpool.child.slate import Slate
from hybridpool.lanes.job import Job
from hybridpool.lanes.link import Link
from hybridpool.policy.deadline import STALL
from hybridpool.policy.lifecycle import Happening
from hybridpool.policy.recycle import RecycleLimits


def job() -> Job:
    """Return a call."""
    return Job(task="t", id="", content_type="", body=b"", on_done=lambda *_: None)


def done(seq: int) -> Done:
    """Return an outcome."""
    return Done(seq, Returned(b"", ""), 0.0, 0)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Link, Slate]]:
    """Make the parent's view of an idle child, and the child's view of the page they share."""
    link = Link("ForkPoolWorker-1", 0.0, RecycleLimits())
    channel, slate = link.open(lambda *_: None, lambda *_: None, lambda *_: None)
    link.happens(Happening.READY)
    page = Slate(slate)
    os.close(slate)
    with socket.socket(fileno=channel):
        yield link, page
    link.happens(Happening.RETIRE)
    link.bury()
    page.close()


async def test_time_of_a_call_behind_others(pair: tuple[Link, Slate]) -> None:
    """The limit of a call would begin anew when the outcome of the one before it is heard, hours later."""
    link, page = pair
    link.give([job(), job()], 0.0)
    page.start(1)
    page.add(frames.pack(done(1)))
    page.start(2)
    assert link.look(1.0) == [], "it goes on, and may send it at any moment"
    assert link.look(1.0 + 2 * STALL) == [done(1)]
    assert link.take(1, 50.0) is not None
    assert (link.head_since, link.still_since) == (1.0, 1.0)
    assert link.look(60.0) == [], "it was heard of"


async def test_time_of_a_call_that_came_later(pair: tuple[Link, Slate]) -> None:
    """A child that was paused just before it sent would be killed for a call that it has not seen yet."""
    link, page = pair
    link.give([job()], 0.0)
    page.start(1)
    page.add(frames.pack(done(1)))
    assert link.look(1.0) == []
    assert link.look(50.0) == [done(1)]
    assert link.take(1, 50.0) is not None
    link.happens(Happening.DONE)
    link.give([job()], 50.0)
    assert (link.head_since, link.still_since) == (50.0, 50.0)


async def test_what_a_child_has_sent_is_heard_before_what_it_has_noted() -> None:
    """An outcome on the page does not overtake one that lies in the channel behind log lines."""
    heard: list[frames.FromChild] = []
    link = Link("ForkPoolWorker-1", 0.0, RecycleLimits())
    channel, slate = link.open(lambda _, said: heard.extend(said), lambda *_: None, lambda *_: None)
    link.happens(Happening.READY)
    page = Slate(slate)
    os.close(slate)
    with socket.socket(fileno=channel) as child:
        child.setblocking(False)
        link.give([job(), job(), job()], 0.0)
        lines = [frames.Said(f"line {number}\n") for number in range(5)]
        for frame in (*lines, done(1)):
            wire.send(child, frames.pack((frame,)))
        page.add(frames.pack(done(2)))
        page.start(3)
        assert link.look(1.0) == []
        assert link.look(1.0 + 2 * STALL) == [done(2)]
        assert heard == [*lines, done(1)]
    link.happens(Happening.RETIRE)
    link.bury()
    page.close()


# ---- a child whose word cannot be relied on ----------------------------------------------------------------------


async def test_an_answer_that_is_heard_again(pair: tuple[Link, Slate]) -> None:
    """An outcome that was read from the slate, and then comes as well, is passed over without a fault."""
    link, _ = pair
    link.give([job(), job()], 0.0)
    assert link.take(1, 0.0) is not None
    assert (link.take(1, 0.0), link.take_out_of_turn(1, 0.0), link.fault) == (None, None, None)
    assert link.take(2, 0.0) is not None
    assert (link.take_out_of_turn(2, 0.0), link.fault) == (None, None)
    link.happens(Happening.DONE)


async def test_an_answer_before_which_another_is_missing(pair: tuple[Link, Slate]) -> None:
    """A later answer is taken, and the child's word is not relied on any more."""
    link, _ = pair
    first, second = job(), job()
    link.give([first, second], 0.0)
    assert link.take_out_of_turn(2, 0.0) is second
    assert link.fault == "it answered out of turn: the answer to t before it is missing"
    assert [one for _, one in link.in_hand] == [first]


async def test_an_answer_to_no_call(pair: tuple[Link, Slate]) -> None:
    """An answer to a call that the child was never given is a fault."""
    link, _ = pair
    assert link.take_out_of_turn(7, 0.0) is None
    assert link.fault == "it answered out of turn: it was not given that"


@pytest.mark.parametrize("message", [b"garbage", b"\xc1", b"\x90", b"\x91\xff", b"\x91" * 9999])
async def test_a_message_that_cannot_be_read(message: bytes) -> None:
    """It is told as the child's fault, with the descriptors that came along closed; what follows is heard."""
    link, heard, faults = Link("ForkPoolWorker-1", 0.0, RecycleLimits()), [], []
    channel, slate = link.open(lambda _, said: heard.append(said), lambda _, why: faults.append(why), lambda *_: None)
    os.close(slate)
    read, write = os.pipe()
    with socket.socket(fileno=channel) as far:
        socket.send_fds(far, [message], [write])
        os.close(write)
        far.send(frames.pack((done(1),)))
        link.last_words()
    assert os.read(read, 1) == b"", "nobody holds the other end"
    os.close(read)
    assert len(faults) == 1
    # The second looks as if the message were in the file that came along.
    assert faults[0].startswith(("it sent what is not a message of a child", "its answer could not be taken"))
    assert heard == [[done(1)]]
    link.happens(Happening.READY)
    link.happens(Happening.RETIRE)
    link.bury()


async def test_an_answer_to_a_thread_names_the_error() -> None:
    """What a thread of a task is told of a failed publication is as exact as what its main thread is told."""
    heard: list[frames.FromChild] = []
    link = Link("ForkPoolWorker-1", 0.0, RecycleLimits())
    channel, slate = link.open(lambda _, said: heard.extend(said), lambda *_: None, lambda *_: None)
    os.close(slate)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, socket.socket(fileno=channel) as child:
        child.setblocking(False)
        near.setblocking(False)
        with far:
            wire.send(child, frames.pack([frames.Enqueue(0, b"")]), (far.fileno(),))
        with anyio.fail_after(60):
            while not heard:
                await anyio.lowlevel.checkpoint()
        [asked] = heard
        assert isinstance(asked, frames.Enqueue)
        # It does not wait, but its socket could: in the loop's thread the suite forbids that.
        await anyio.to_thread.run_sync(link.tell, frames.Sent(asked.ticket, "no connection", "BrokerUnavailable"))
        assert frames.read_to_child(near.recv(1024)) == [frames.Sent(0, "no connection", "BrokerUnavailable")]
    link.happens(Happening.READY)
    link.happens(Happening.RETIRE)
    link.bury()
