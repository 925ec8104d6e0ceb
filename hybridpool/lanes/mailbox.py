"""One end of a socket that carries whole messages, read and written by the event loop without ever blocking it."""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from hybridpool.child import frames, wire

#: what passes by itself
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Mailbox:
    """Reads messages as they come and writes them as the other end has room, in order."""

    def __init__(
        self, sock: socket.socket, on_message: Callable[[frames.Message], None], on_end: Callable[[], None]
    ) -> None:
        """Attach to the running loop.

        :param on_message: called on the loop with each message.
        :param on_end: called once, when the other end is gone.
        """
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_end = on_end
        #: messages, and descriptors to pass with them, which are closed once they are passed
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()
        self._ended = False
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Write now, or as soon as there is room. Descriptors to pass along become the mailbox's."""
        if self._ended:
            _close(fds)
            return
        if not self._unsent and self._write(message, fds):
            return
        if not self._unsent:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self._unsent.append((message, fds))

    def end(self) -> None:
        """Let the other end see the end, after what was sent so far; reading goes on."""
        self._closing = True
        if not self._unsent:
            self._shut()

    def drain(self) -> None:
        """Read everything that is there now. For the moment after the other process has died."""
        while not self._ended and self._read():
            continue

    def close(self) -> Sequence[bytes]:
        """Detach and close; returns the messages that were never written."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
        self._ended = True
        unsent = [message for message, _ in self._unsent]
        for _, fds in self._unsent:
            _close(fds)
        self._unsent.clear()
        return unsent

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Take one message; False if there is none."""
        try:
            message = wire.receive(self._sock)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            message = b""
        if message:
            self._on_message(message)
            return True
        if not self._ended:
            self._ended = True
            self._loop.remove_reader(self._sock.fileno())
            self._on_end()
        return False

    def _write(self, message: bytes, fds: Sequence[int]) -> bool:
        """Try to write; False if there is no room. A reader that is gone takes everything and nothing."""
        try:
            wire.send(self._sock, message, fds)
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionError:
            # Nobody will read it. That the other end is gone is learnt by reading, once.
            pass
        except OSError as error:
            if error.errno not in _SHORTAGES:
                raise
            # No descriptor or memory for a large message now; there will be when others are done.
            return False
        _close(fds)
        return True

    def _writable(self) -> None:
        while self._unsent:
            message, fds = self._unsent[0]
            if not self._write(message, fds):
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._sock.fileno())
        if self._closing:
            self._shut()

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            # It is gone already, which is what was wanted.
            return


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
