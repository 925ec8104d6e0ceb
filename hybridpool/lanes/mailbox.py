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

from hybridpool.child import frames, wire
from hybridpool.lanes.freight import Freight

#: what passes by itself, and seconds until it is tried again
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS)
_LATER: Final = 0.05
#: empty messages in a row after which nothing is expected behind them any more: an end looks the same
_EMPTY_MESSAGES: Final = 64
#: messages that are read in one turn of the loop, beyond the usual one
_AT_ONCE: Final = 1000
_INT: Final = struct.Struct("@i")
#: a message, and descriptors that came along, which are the listener's to close
Hears = Callable[[frames.Message, Sequence[int]], None]


class _Letter(NamedTuple):
    message: bytes
    #: to pass along, and to close once they are passed
    fds: Sequence[int]
    #: whose file is to go along, once it is written
    freight: Freight | None
    #: called in place of sending if it can never be sent
    on_failure: Callable[[OSError], None] | None = None


class Mailbox:
    """Reads messages as they come and writes them as the other end has room, in order."""

    def __init__(self, sock: socket.socket, on_message: Hears, on_end: Callable[[OSError | None], None]) -> None:
        """Attach to the running loop.

        :param on_message: called on the loop with each message.
        :param on_end: called once, when the other end is gone, or with the error why what it said could not be taken.
        """
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_end = on_end
        self._unsent: deque[_Letter] = deque()
        self._ended = False
        self._closing = False
        self._watching = False
        self._owner = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(
        self,
        message: bytes,
        fds: Sequence[int] = (),
        freight: Freight | None = None,
        on_failure: Callable[[OSError], None] | None = None,
    ) -> None:
        """Write now, or as soon as there is room. Descriptors to pass along become the mailbox's.

        :param on_failure: called, in this turn of the loop or a later one, if the message is so large that it needs a
            file, and there can never be one.
        """
        letter = _Letter(message, fds, freight, on_failure)
        if self._ended:
            _close(fds)
        elif self._unsent:
            self._unsent.append(letter)
        elif freight is not None or not self._write(letter):
            self._unsent.append(letter)
            self._pump()

    def end(self) -> None:
        """Let the other end see the end, after what was sent so far; reading goes on."""
        self._closing = True
        if not self._unsent:
            self._shut()

    def read_all(self) -> bool:
        """Read what is there now; False if there is more than can be read at once."""
        for _ in range(_AT_ONCE):
            if self._ended:
                return True
            waiting = _INT.unpack(fcntl.ioctl(self._sock, termios.FIONREAD, bytes(_INT.size)))[0]
            if not waiting:
                return True
            self._readable()
        return False

    def drain(self) -> None:
        """Read everything that is there now. For the moment after the other process has died.

        A message that cannot be taken, or is empty, is passed over: others may stand behind it.
        """
        empty = 0
        while self._sock.fileno() >= 0 and empty < _EMPTY_MESSAGES:
            why: OSError | None = None
            try:
                message, fds = wire.receive_with_fds(self._sock)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                message, fds, why = b"", [], error
            if message:
                self._on_message(message, fds)
            else:
                empty += 1
                self._note_end(why)

    def cut(self) -> None:
        """Let the other end see the end at once, also where another process holds this end as well."""
        if not self._ended:
            self._shut()

    def unread_bytes(self) -> int:
        """Tell how much of what was written the other end has not read, with the kernel's own part."""
        if self._sock.fileno() < 0:
            return 0
        found: int = _INT.unpack(fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(_INT.size)))[0]
        return found

    def close(self) -> None:
        """Detach and close; what was not written never will be."""
        if self._sock.fileno() >= 0:
            # A copy of this process, made by fork, shares what the loop listens with: it must not unregister there.
            if os.getpid() == self._owner:
                self._loop.remove_reader(self._sock.fileno())
                self._watch(False)
            self._sock.close()
        self._ended = True
        for letter in self._unsent:
            _close(letter.fds)
        self._unsent.clear()

    def _readable(self) -> None:
        """Take one message."""
        why: OSError | None = None
        try:
            message, fds = wire.receive_with_fds(self._sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            message, fds, why = b"", [], error
        if message:
            self._on_message(message, fds)
        else:
            self._note_end(why)

    def _note_end(self, why: OSError | None) -> None:
        if not self._ended:
            self._ended = True
            self._loop.remove_reader(self._sock.fileno())
            self._on_end(why)

    def _pump(self) -> None:
        """Write what can be written, in order."""
        while self._unsent:
            letter = self._unsent[0]
            if letter.freight is not None and letter.freight.file is None and letter.freight.failure is None:
                self._watch(False)
                letter.freight.prepare(self._pump)
                return
            if not self._write(letter):
                return
            self._unsent.popleft()
        self._watch(False)
        if self._closing and not self._ended:
            self._shut()

    def _write(self, letter: _Letter) -> bool:
        """Try to write; False if that is to be tried again later. A reader that is gone takes everything."""
        fds = letter.fds
        if letter.freight is not None:
            if letter.freight.file is None:
                if letter.freight.failure is None:
                    return False
                self._give_up(letter, letter.freight.failure)
                return True
            fds = (*fds, letter.freight.file)
        try:
            wire.send(self._sock, letter.message, fds)
        except (BlockingIOError, InterruptedError):
            self._watch(True)
            return False
        except ConnectionError:
            # Nobody will read it. That the other end is gone is learnt by reading, once.
            pass
        except OSError as error:
            if error.errno not in _SHORTAGES:
                self._give_up(letter, error)
                return True
            # No descriptor or memory for a large message now; there will be when others are done.
            self._watch(False)
            self._loop.call_later(_LATER, self._pump)
            return False
        _close(letter.fds)
        return True

    def _give_up(self, letter: _Letter, error: OSError) -> None:
        """A message can never be sent: no file may be so large (RLIMIT_FSIZE), or no memory is to be had."""
        _close(letter.fds)
        if letter.on_failure is None:
            raise error
        self._loop.call_soon(letter.on_failure, error)

    def _watch(self, wanted: bool) -> None:  # its name says what it is
        """Wait for room, or do not."""
        if wanted is not self._watching:
            self._watching = wanted
            if wanted:
                self._loop.add_writer(self._sock.fileno(), self._pump)
            else:
                self._loop.remove_writer(self._sock.fileno())

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            # It is gone already, which is what was wanted.
            return


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
