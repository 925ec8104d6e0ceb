"""One end of a socket on the loop, over real socket pairs."""

import os
import socket
from collections.abc import AsyncIterator, Iterator
from resource import RLIMIT_NOFILE, getrlimit, setrlimit

import anyio
import pytest

from hybridpool._ipc import framing
from hybridpool._ipc.framing import MAX_INLINE_BYTES
from hybridpool._ipc.transport import SeqpacketTransport
from tests.contract.inbox import Collected

#: seconds; a test that waits longer for anything has failed
PATIENCE = 60.0


class Post:
    """A transport, what came into it, and the other end."""

    def __init__(self) -> None:
        near, self.far = framing.socket_pair()
        self.far.setblocking(False)
        self.inbox: Collected[bytes] = Collected()
        self.ended: Collected[None] = Collected()
        self.transport = SeqpacketTransport(
            near, lambda message, _fds: self.inbox(bytes(message)), lambda _: self.ended(None)
        )

    async def read(self) -> bytes:
        """Read one message at the other end, as soon as it is there."""
        with anyio.fail_after(PATIENCE):
            while True:
                try:
                    return bytes(framing.receive(self.far))
                except BlockingIOError:
                    await anyio.wait_readable(self.far)

    def fill(self) -> list[bytes]:
        """Send until nothing goes out any more, and a little more; return all that was sent."""
        sent = [b"%03d" % number + b"x" * (MAX_INLINE_BYTES - 3) for number in range(12)]
        for message in sent:
            self.transport.send(message)
        return sent


@pytest.fixture
async def post() -> AsyncIterator[Post]:
    """Make a transport."""
    made = Post()
    yield made
    made.transport.close()
    made.far.close()


async def test_sends_at_once(post: Post) -> None:
    """A message is sent at once, without a turn of the loop."""
    post.transport.send(b"now")
    assert framing.receive(post.far) == b"now"


@pytest.mark.may_block  # as below
async def test_receives(post: Post) -> None:
    """Messages from the other end, small and large, are received whole and in order."""
    framing.send(post.far, b"one")
    framing.send(post.far, b"two" * MAX_INLINE_BYTES)
    assert await post.inbox.take(2) == [b"one", b"two" * MAX_INLINE_BYTES]


@pytest.mark.may_block  # the copy of a large message into memory looks like a write to a file
async def test_a_reader_that_does_not_read(post: Post) -> None:
    """Messages to a reader that is behind wait without blocking the loop, and arrive whole and in order."""
    sent = post.fill()
    post.transport.send(b"large" * MAX_INLINE_BYTES)
    post.transport.send(b"last")
    assert [await post.read() for _ in range(14)] == [*sent, b"large" * MAX_INLINE_BYTES, b"last"]


async def test_nobody_overtakes(post: Post) -> None:
    """A message that is sent when there is room again arrives after those that wait."""
    sent = post.fill()
    read = [bytes(framing.receive(post.far))]
    post.transport.send(b"late")
    read += [await post.read() for _ in sent]
    assert read == [*sent, b"late"]


async def test_goes_on_after_a_full_socket(post: Post) -> None:
    """A transport whose socket was full sends what waits, and then sends at once again."""
    for _ in range(3):
        sent = post.fill()
        assert [await post.read() for _ in sent] == sent
    post.transport.send(b"now")
    assert framing.receive(post.far) == b"now"


async def test_descriptors_keep_their_place(post: Post) -> None:
    """A descriptor arrives with its own message, also behind messages that wait, and the sender's copy is closed."""
    sent = post.fill()
    readable, writable = os.pipe()
    post.transport.send(b"take this", [writable])
    assert [await post.read() for _ in sent] == sent
    await anyio.wait_readable(post.far)
    message, fds = framing.receive_with_fds(post.far)
    assert message == b"take this"
    os.write(fds[0], b"x")
    os.close(fds[0])
    assert os.read(readable, 2) == b"x"
    assert os.read(readable, 1) == b"", "the transport still holds its copy"
    os.close(readable)


async def test_descriptors_are_closed_with_the_transport(post: Post) -> None:
    """A transport that is closed closes the descriptors of the messages that still wait."""
    post.fill()
    readable, writable = os.pipe()
    post.transport.send(b"take this", [writable])
    post.transport.close()
    assert os.read(readable, 1) == b""
    os.close(readable)


@pytest.mark.may_block  # as above
async def test_the_other_end_is_gone(post: Post) -> None:
    """The end of the other process is reported exactly once, and messages that are sent later are dropped."""
    post.far.close()
    await post.ended.until(lambda seen: len(seen) == 1)
    post.transport.send(b"to nobody")
    post.transport.send(b"to nobody" * MAX_INLINE_BYTES)
    await anyio.wait_all_tasks_blocked()
    assert len(post.ended.items) == 1


async def test_last_words_come_before_the_end(post: Post) -> None:
    """Messages that a process sent just before it died are received before its end is reported."""
    framing.send(post.far, b"last words")
    post.far.close()
    await post.ended.until(lambda seen: len(seen) == 1)
    assert post.inbox.items == [b"last words"]


async def test_a_descriptor_for_nobody(post: Post) -> None:
    """A descriptor that is sent to a process that has died is closed."""
    post.far.close()
    await post.ended.until(lambda seen: len(seen) == 1)
    readable, writable = os.pipe()
    post.transport.send(b"take this", [writable])
    assert os.read(readable, 1) == b""
    os.close(readable)


async def test_end(post: Post) -> None:
    """The other end reads the end of an ended channel after what was sent before, and can still send."""
    post.transport.send(b"before")
    post.transport.end()
    assert await post.read() == b"before"
    assert await post.read() == b""
    framing.send(post.far, b"goodbye")
    assert await post.inbox.take(1) == [b"goodbye"]


async def test_end_waits_for_what_is_unsent(post: Post) -> None:
    """The end of a channel comes after the messages that wait."""
    sent = post.fill()
    post.transport.end()
    assert [await post.read() for _ in range(13)] == [*sent, b""]


async def test_end_when_the_other_is_gone(post: Post) -> None:
    """A channel whose other end is closed is ended without an error."""
    post.far.close()
    post.transport.end()


async def test_close_ends_the_channel(post: Post) -> None:
    """The other end reads in order what was written before a close, then the end; what still waited is dropped."""
    sent = post.fill()
    post.transport.close()
    read = []
    while message := await post.read():
        read.append(message)
    assert 0 < len(read) < len(sent)
    assert read == sent[: len(read)]


async def test_close_twice(post: Post) -> None:
    """A second close has no effect."""
    post.transport.close()
    post.transport.close()


async def test_drain_reads_what_is_there_now(post: Post) -> None:
    """A drain reads at once every message that has arrived, and a second drain reads none of them again."""
    for number in range(3):
        framing.send(post.far, b"%d" % number)
    post.transport.drain()
    assert post.inbox.items == [b"0", b"1", b"2"]
    post.transport.drain()
    assert len(post.inbox.items) == 3


async def test_drain_to_the_end(post: Post) -> None:
    """A drain of a closed channel reads what is left, reports the end exactly once, and returns."""
    framing.send(post.far, b"last")
    post.far.close()
    post.transport.drain()
    assert (post.inbox.items, len(post.ended.items)) == ([b"last"], 1)
    await anyio.wait_all_tasks_blocked()
    assert len(post.ended.items) == 1


@pytest.fixture
def no_more_descriptors() -> Iterator[None]:
    """Let nothing be opened any more."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    yield
    setrlimit(RLIMIT_NOFILE, (soft, hard))


@pytest.mark.may_block  # as above
async def test_no_descriptor_left_for_a_large_message(post: Post, no_more_descriptors: None) -> None:
    """A large message for which no descriptor is free is sent when one is, and before the messages behind it."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    setrlimit(RLIMIT_NOFILE, (1, hard))
    try:
        post.transport.send(b"x" * (MAX_INLINE_BYTES + 1))
        post.transport.send(b"behind")
    finally:
        setrlimit(RLIMIT_NOFILE, (soft, hard))
    assert await post.read() == b"x" * (MAX_INLINE_BYTES + 1)
    assert await post.read() == b"behind"


async def test_what_comes_after_a_close_is_not_read(post: Post) -> None:
    """A closed transport reports no message, and a later send from the other end fails."""
    framing.send(post.far, b"late")
    post.transport.close()
    await anyio.wait_all_tasks_blocked()
    assert post.inbox.items == []
    with pytest.raises(ConnectionError):
        framing.send(post.far, b"later", flags=socket.MSG_DONTWAIT)
