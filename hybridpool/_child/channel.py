"""A child's end of its channel: whole messages, written from any thread, read by the main thread alone.

One message is one packet, and the kernel takes a packet whole. So several threads, a signal handler, and even a process
that a task has forked may write, without a lock, as long as each of them writes messages of its own. The page of
outcomes (`shared_page`) may not be shared so; it belongs to `loop.Child`.

Why a write fails is told apart here: the parent is gone · the task has closed our descriptor · the kernel is short of
memory for a moment · there can be no file for a large message.
"""

import errno
import mmap
import os
import socket
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from hybridpool._child.process_state import DEFAULT_HANDLER, Handler, get_handler, set_handler
from hybridpool._ipc import frames, framing
from hybridpool._ipc.frames import Enqueue, EnqueueAnswer, Message
from hybridpool._ipc.framing import MAX_INLINE_BYTES

#: exit status: the parent is gone, so no message would be read
PARENT_GONE: Final = 1
#: errors of a send that mean that the parent is gone, that the descriptor is not ours, and that pass by themselves
_GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED, errno.ESHUTDOWN)
_SHORTAGES: Final = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE)
#: seconds until a send that the kernel had no memory for is tried again, at first and at most
_FIRST_RETRY_PAUSE_S: Final = 0.005
_MAX_RETRY_PAUSE_S: Final = 0.5
#: socket(7), since Linux 4.12: a number that no other socket has; asm-generic/socket.h
_SO_COOKIE: Final = 57
_COOKIE_BYTES: Final = 8
#: madvise(2), since Linux 4.14: a forked process finds zeros
_MADV_WIPEONFORK: Final = 18


class ChannelClosed(Exception):
    """The task has closed the descriptor of its child's channel, or has put another file in its place."""

    def __str__(self) -> str:
        return "the task has closed the descriptor by which its child talks to its parent"


class ForkMark:
    """Tells a process from its copies: `page[0]` is 1 in the process that made the mark, and 0 in all that it forks.

    The kernel wipes the page at each fork, also one by a library in C. `page` is public because it is read after each
    call: an index costs a third of a method call, and a hundredth of `os.getpid`, which is a system call.
    """

    def __init__(self) -> None:
        self.page = page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page[0] = 1
        # An older kernel does not know that; then the hook below is all, which forks by `os.fork` pass.
        with suppress(OSError):
            page.madvise(_MADV_WIPEONFORK)
        mark = weakref.ref(self)

        def copied() -> None:
            made = mark()
            if made is not None:
                made.page[0] = 0
                _give_back_handlers(made.handlers)

        #: signal handlers that a forked process must not keep, by signal
        self.handlers: dict[int, Handler] = {}
        os.register_at_fork(after_in_child=copied)


def _give_back_handlers(handlers: dict[int, Handler]) -> None:
    """Give signals their default meaning back where the handler is still ours.

    It must not wait until the handler runs and looks at the mark: that is between two bytecodes, and a forked process
    that is busy in C code would not end when it is told to (`multiprocessing.Process.terminate`).
    """
    for number, handler in handlers.items():
        if get_handler(number) is handler:
            set_handler(number, DEFAULT_HANDLER)


class Channel:
    """A child's end of the socket to its parent."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._cookie = _cookie(sock)
        # A second descriptor of the same socket. It is given up for a moment to have one for the file of a large
        # message when the task has left none.
        self._reserve: int | None = os.dup(sock.fileno())

    @property
    def is_ours(self) -> bool:
        """The descriptor still stands for the channel; a task may have closed it, and opened another file."""
        return _cookie(self._socket) == self._cookie

    def write(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Write one message whole; a parent that is gone ends the process.

        :param fds: to go along; they stay the caller's.
        :raises ChannelClosed: if the task has closed the channel.
        :raises OSError: if the message is large, and there can be no file for it; nothing was sent.
        """
        if not self.is_ours:
            raise ChannelClosed
        if len(message) <= MAX_INLINE_BYTES:
            self._send(message, fds)
            return
        file = self.file_of(message)
        try:
            self._send(framing.FILE_MARKER, (file, *fds))
        finally:
            os.close(file)
            self.keep_reserve()

    def ask_apart(self, frame: Enqueue) -> EnqueueAnswer:
        """Have the parent publish a message, and wait for its answer on a socket of its own; from any thread.

        :param frame: with the ticket 0.

        :raises ChannelClosed: if the task has closed the channel.
        :raises OSError: if there is no descriptor, or no file, for it.
        """
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with near:
            # A task may have set a default timeout for sockets.
            near.settimeout(None)
            with far:
                self.write(frames.pack((frame,)), (far.fileno(),))
            answer = near.recv(MAX_INLINE_BYTES)
        if not answer:
            return EnqueueAnswer(0, "the parent has no descriptor left to answer by (ulimit -n), or is gone")
        [sent] = frames.read_to_child(answer)
        assert isinstance(sent, EnqueueAnswer)
        return sent

    def close(self) -> None:
        """Close the descriptor in reserve; the channel itself is the caller's."""
        self._give_up_reserve()

    def file_of(self, message: bytes) -> int:
        """Put a large message into a file in memory, and return its descriptor.

        :raises OSError: if there is no memory, the file may not be so large, or there is no descriptor left.
        """
        return self.with_reserve(lambda: framing.write_memfd(message))

    def with_reserve(self, make: Callable[[], int]) -> int:
        """Return the descriptor that `make` makes; if there is none left, the one in reserve is given up for it.

        :raises OSError: as `make`.
        """
        try:
            return make()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._give_up_reserve():
                raise
            return make()

    def keep_reserve(self) -> None:
        """Have a descriptor in reserve again, after the file was closed."""
        if self._reserve is None:
            try:
                self._reserve = os.dup(self._socket.fileno())
            except OSError:
                # None is left. The next large message will not find one either, and says so.
                return

    def _give_up_reserve(self) -> bool:
        reserve, self._reserve = self._reserve, None
        if reserve is None:
            return False
        # The task may have closed it, and its number may be another file's by now.
        try:
            kept = socket.socket(fileno=reserve)
        except OSError:
            return False
        if _cookie(kept) == self._cookie:
            kept.close()
            return True
        kept.detach()
        return False

    def read(self, flags: int = 0) -> tuple[Message, list[int]]:
        """Take one message, and the descriptors that came with it; empty when the parent has ended the channel.

        :raises BlockingIOError: if nothing is there, and `flags` say not to wait.
        :raises ChannelClosed: if the task has closed the channel.
        :raises OSError: if it came in a file, and there is no descriptor left for that; the message is lost then.
        """
        while True:
            try:
                return framing.receive_with_fds(self._socket, flags)
            except BlockingIOError:
                if flags:
                    raise
                # The flag of not waiting belongs to all descriptors of a socket, and the task has set it on another.
                os.set_blocking(self._socket.fileno(), True)
            except OSError as error:
                if error.errno in (errno.EBADF, errno.ENOTSOCK):
                    raise ChannelClosed from None
                if error.errno in _GONE:
                    return b"", []
                raise

    def _send(self, packet: bytes, fds: Sequence[int]) -> None:
        pause = _FIRST_RETRY_PAUSE_S
        while True:
            try:
                framing.send(self._socket, packet, fds)
            except BlockingIOError:
                os.set_blocking(self._socket.fileno(), True)
            except OSError as error:
                if error.errno is None:
                    raise  # not of ours: a handler's TimeoutError
                if error.errno in _GONE:
                    os._exit(PARENT_GONE)
                if error.errno not in _SHORTAGES:
                    raise ChannelClosed from error
                # Memory in the kernel, or descriptors of this user that are under way to others. The task's own
                # limits go on meanwhile.
                time.sleep(pause)
                pause = min(2 * pause, _MAX_RETRY_PAUSE_S)
            else:
                return


def _cookie(sock: socket.socket) -> bytes | None:
    """Return a number that no other socket has; None if its descriptor is closed, or another file's.

    A kernel that does not know the option gives None for every socket, and no difference is found.
    """
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, _COOKIE_BYTES)
    except OSError:
        return None
