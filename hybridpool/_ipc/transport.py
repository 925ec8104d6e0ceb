"""One end of a socket that carries whole messages, read and written by the event loop without ever blocking it."""

import asyncio
import errno
import fcntl
import os
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from hybridpool._ipc import frames, framing
from hybridpool._ipc.blobs import OutgoingBlob

#: what passes by itself, and seconds until it is tried again
_TRANSIENT_ERRNOS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS)
_RETRY_DELAY_S: Final = 0.05
#: empty messages in a row after which nothing is expected behind them any more: an end looks the same
_MAX_EMPTY_MESSAGES: Final = 64
#: messages that are read in one turn of the loop, beyond the usual one
_MAX_MESSAGES_AT_ONCE: Final = 1000
_INT: Final = struct.Struct("@i")
#: called with a message and its descriptors, which it must close
OnMessage = Callable[[frames.Message, Sequence[int]], None]


class _Pending(NamedTuple):
    message: bytes
    #: to pass along, and to close once they are passed
    fds: Sequence[int]
    #: the large body whose file is sent along, once it is written
    blob: OutgoingBlob | None
    #: called in place of sending if it can never be sent
    on_failure: Callable[[OSError], None] | None = None


class SeqpacketTransport:
    """Reads messages as they arrive, and writes messages in order, as the socket has room for them."""

    def __init__(self, sock: socket.socket, on_message: OnMessage, on_end: Callable[[OSError | None], None]) -> None:
        """Attach to the running loop.

        :param on_message: called on the loop with each message.
        :param on_end: called once, when the other end is closed, or with the error of receiving a message.
        """
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_end = on_end
        self._unsent: deque[_Pending] = deque()
        self._ended = False
        self._closing = False
        self._is_watching = False
        self._owner = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._receive)

    def send(
        self,
        message: bytes,
        fds: Sequence[int] = (),
        blob: OutgoingBlob | None = None,
        on_failure: Callable[[OSError], None] | None = None,
    ) -> None:
        """Write now, or as soon as there is room. The transport closes the descriptors that it passes along.

        :param on_failure: called, in this turn of the loop or a later one, if the message is so large that it needs a
            file, and there can never be one.
        """
        pending = _Pending(message, fds, blob, on_failure)
        if self._ended:
            _close(fds)
        elif self._unsent:
            self._unsent.append(pending)
        elif blob is not None or not self._write(pending):
            self._unsent.append(pending)
            self._write_pending()

    def end(self) -> None:
        """Close the writing side after what was sent so far; reading goes on."""
        self._closing = True
        if not self._unsent:
            self._shut()

    def read_all(self) -> bool:
        """Read what is there now; False if there is more than can be read at once."""
        for _ in range(_MAX_MESSAGES_AT_ONCE):
            if self._ended:
                return True
            waiting = _INT.unpack(fcntl.ioctl(self._sock, termios.FIONREAD, bytes(_INT.size)))[0]
            if not waiting:
                return True
            self._receive()
        return False

    def drain(self) -> None:
        """Read all that is there now, after the other process has died.

        A message that cannot be received, or is empty, is skipped: others may follow.
        """
        empty = 0
        while self._sock.fileno() >= 0 and empty < _MAX_EMPTY_MESSAGES:
            is_heard = self._receive()
            if is_heard is None:
                return
            empty += not is_heard

    def end_now(self) -> None:
        """Close the writing side at once, also if another process has a copy of this socket."""
        if not self._ended:
            self._shut()

    def unread_bytes(self) -> int:
        """Return how many written bytes the other end has not read, the kernel's overhead included."""
        if self._sock.fileno() < 0:
            return 0
        found: int = _INT.unpack(fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(_INT.size)))[0]
        return found

    def close(self) -> None:
        """Detach and close; messages that were not written are dropped."""
        if self._sock.fileno() >= 0:
            # A process forked from this one shares the loop's epoll instance, and must not unregister sockets there.
            if os.getpid() == self._owner:
                self._loop.remove_reader(self._sock.fileno())
                self._watch_writable(False)
            self._sock.close()
        self._ended = True
        for pending in self._unsent:
            _close(pending.fds)
        self._unsent.clear()

    def _receive(self) -> bool | None:
        """Take one message; False: it was empty, or could not be received; None: there is none."""
        why: OSError | None = None
        try:
            message, fds = framing.receive_with_fds(self._sock)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            message, fds, why = b"", [], error
        if not message:
            self._note_end(why)
            return False
        self._on_message(message, fds)
        return True

    def _note_end(self, why: OSError | None) -> None:
        if not self._ended:
            self._ended = True
            self._loop.remove_reader(self._sock.fileno())
            self._on_end(why)

    def _write_pending(self) -> None:
        """Write what can be written, in order."""
        while self._unsent:
            pending = self._unsent[0]
            if pending.blob is not None and pending.blob.file is None and pending.blob.failure is None:
                self._watch_writable(False)
                pending.blob.prepare(self._write_pending)
                return
            if not self._write(pending):
                return
            self._unsent.popleft()
        self._watch_writable(False)
        if self._closing and not self._ended:
            self._shut()

    def _write(self, pending: _Pending) -> bool:
        """Try to write; False: try again later. If the other end is closed, the message is dropped: True."""
        fds = pending.fds
        if pending.blob is not None:
            if pending.blob.file is None:
                if pending.blob.failure is None:
                    return False
                self._give_up(pending, pending.blob.failure)
                return True
            fds = (*fds, pending.blob.file)
        try:
            framing.send(self._sock, pending.message, fds)
        except (BlockingIOError, InterruptedError):
            self._watch_writable(True)
            return False
        except ConnectionError:
            # The other end is closed; `_receive` reports that, once.
            pass
        except OSError as error:
            if error.errno not in _TRANSIENT_ERRNOS:
                self._give_up(pending, error)
                return True
            # No descriptor or memory for a large message now; there will be when other calls end.
            self._watch_writable(False)
            self._loop.call_later(_RETRY_DELAY_S, self._write_pending)
            return False
        _close(pending.fds)
        return True

    def _give_up(self, pending: _Pending, error: OSError) -> None:
        """Report a message that cannot be sent, as no file may be so large (RLIMIT_FSIZE), or for lack of memory."""
        _close(pending.fds)
        if pending.on_failure is None:
            raise error
        self._loop.call_soon(pending.on_failure, error)

    def _watch_writable(self, wanted: bool) -> None:
        """Start or stop waiting for room in the socket."""
        if wanted is not self._is_watching:
            self._is_watching = wanted
            if wanted:
                self._loop.add_writer(self._sock.fileno(), self._write_pending)
            else:
                self._loop.remove_writer(self._sock.fileno())

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            # It is closed already.
            return


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
