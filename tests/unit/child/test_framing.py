"""Whole messages over real sockets."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridpool._ipc import framing
from hybridpool._ipc.framing import MAX_INLINE_BYTES

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Make both ends of a channel."""
    near, far = framing.socket_pair()
    with near, far:
        yield near, far


def fill(near: socket.socket) -> int:
    """Send until the socket is full; return how many messages went out."""
    for sent in range(1000):
        try:
            framing.send(near, bytes([sent]) * MAX_INLINE_BYTES)
        except BlockingIOError:
            return sent
    raise AssertionError("a socket without end")


def open_fds() -> int:
    """Count what this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "size", [1, 2, 1000, MAX_INLINE_BYTES - 1, MAX_INLINE_BYTES, MAX_INLINE_BYTES + 1, 1_000_000, 20_000_000]
)
def test_any_size_arrives_whole(ends: Ends, size: int) -> None:
    """A message of any size arrives whole."""
    near, far = ends
    message = os.urandom(min(size, 1000)) * -(-size // 1000)
    framing.send(near, message[:size])
    assert bytes(framing.receive(far)) == message[:size]


def test_messages_do_not_run_together(ends: Ends) -> None:
    """Messages arrive one by one, in their order."""
    near, far = ends
    sent = [b"a", b"bb" * MAX_INLINE_BYTES, b"", b"ccc", b"d" * MAX_INLINE_BYTES]
    for message in sent:
        framing.send(near, message)
    assert [bytes(framing.receive(far)) for _ in sent] == sent


def test_a_large_message_does_not_fill_the_socket(ends: Ends) -> None:
    """Large messages do not fill the socket."""
    near, far = ends
    near.setblocking(False)
    for _ in range(5):
        framing.send(near, b"x" * 5_000_000)
    assert sum(len(framing.receive(far)) for _ in range(5)) == 25_000_000


def test_nothing_is_torn_when_the_socket_is_full(ends: Ends) -> None:
    """When the socket is full, no message is cut."""
    near, far = ends
    near.setblocking(False)
    sent = fill(near)
    assert sent >= 2, "two messages must always fit"
    received = [framing.receive(far) for _ in range(sent)]
    assert received == [bytes([number]) * MAX_INLINE_BYTES for number in range(sent)]
    with pytest.raises(BlockingIOError):
        framing.receive(far, socket.MSG_DONTWAIT)


@pytest.mark.parametrize("size", [10, MAX_INLINE_BYTES + 1])
@pytest.mark.parametrize("with_file", [False, True])
def test_sending_without_waiting(ends: Ends, size: int, with_file: bool) -> None:
    """A message for a full socket that blocks is refused if the sender does not wait, and leaves no descriptor."""
    near, _ = ends
    near.setblocking(False)
    fill(near)
    for _ in range(1000):
        try:
            near.send(b"x")
        except BlockingIOError:
            break
    near.setblocking(True)
    before = open_fds()
    with pytest.raises(BlockingIOError):
        framing.send(near, b"x" * size, [near.fileno()] if with_file else [], socket.MSG_DONTWAIT)
    assert open_fds() == before


def test_no_memory_for_a_large_message(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large message for which there is no memory raises OSError, and leaves no descriptor."""

    def write(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = open_fds()
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space left"):
        framing.send(ends[0], b"x" * (MAX_INLINE_BYTES + 1))
    assert open_fds() == before


def test_a_message_survives_its_sender(ends: Ends) -> None:
    """Messages arrive after their sender has closed its end."""
    near, far = ends
    framing.send(near, b"small")
    framing.send(near, b"x" * (MAX_INLINE_BYTES + 1))
    near.close()
    assert framing.receive(far) == b"small"
    assert len(framing.receive(far)) == MAX_INLINE_BYTES + 1
    assert framing.receive(far) == b""


def test_the_end_is_an_empty_message(ends: Ends) -> None:
    """The end of the connection is read as an empty message, again and again."""
    near, far = ends
    near.close()
    assert framing.receive(far) == b""
    assert framing.receive(far) == b""


def test_sending_to_nobody(ends: Ends) -> None:
    """Sending to a closed end raises BrokenPipeError."""
    near, far = ends
    far.close()
    for message in (b"small", b"x" * (MAX_INLINE_BYTES + 1)):
        with pytest.raises(BrokenPipeError):
            framing.send(near, message)


def test_not_waiting(ends: Ends) -> None:
    """Receiving without waiting raises BlockingIOError if there is no message."""
    with pytest.raises(BlockingIOError):
        framing.receive(ends[1], socket.MSG_DONTWAIT)


def test_descriptors_come_along(ends: Ends) -> None:
    """Descriptors arrive with a message, and are not inheritable."""
    near, far = ends
    readable, writable = os.pipe()
    framing.send(near, b"take this", [writable])
    os.close(writable)
    message, fds = framing.receive_with_fds(far)
    assert message == b"take this"
    os.write(fds[0], b"through it")
    assert os.read(readable, 100) == b"through it"
    assert not os.get_inheritable(fds[0])
    for fd in (*fds, readable):
        os.close(fd)


def test_unwanted_descriptors_are_closed(ends: Ends) -> None:
    """Descriptors that the receiver did not ask for are closed."""
    near, far = ends
    readable, writable = os.pipe()
    framing.send(near, b"take this", [writable])
    os.close(writable)
    assert framing.receive(far) == b"take this"
    assert os.read(readable, 1) == b"", "somebody still holds the other end"
    os.close(readable)


def test_large_messages_leave_no_descriptor(ends: Ends) -> None:
    """Large messages leave no descriptor open."""
    near, far = ends
    before = open_fds()
    for _ in range(20):
        framing.send(near, b"x" * (MAX_INLINE_BYTES + 1))
        received = framing.receive(far)
        assert len(received) == MAX_INLINE_BYTES + 1
        del received
    assert open_fds() == before


def test_large_messages_carry_descriptors_too(ends: Ends) -> None:
    """A large message can carry descriptors too."""
    here, there = os.pipe()
    framing.send(ends[0], b"x" * (MAX_INLINE_BYTES + 1), [here, there])
    message, fds = framing.receive_with_fds(ends[1])
    assert bytes(message) == b"x" * (MAX_INLINE_BYTES + 1)
    os.write(fds[1], b"through")
    assert os.read(here, 10) == b"through"
    for fd in (here, there, *fds):
        os.close(fd)


def test_the_mark_with_an_empty_file(ends: Ends) -> None:
    """A large message whose file is empty raises OSError, and the descriptors that came along are closed."""
    read, write = os.pipe()
    file = os.memfd_create("empty")
    socket.send_fds(ends[0], [b"\xc1"], [file, write])
    os.close(file)
    os.close(write)
    with pytest.raises(OSError, match="No data available"):
        framing.receive_with_fds(ends[1])
    assert os.read(read, 1) == b"", "the other end is closed"
    os.close(read)


def test_the_mark_without_its_file(ends: Ends) -> None:
    """A large message whose file the kernel dropped raises OSError."""
    framing.send(ends[0], b"\xc1")
    with pytest.raises(OSError, match="Too many open files"):
        framing.receive(ends[1])
