"""A fake child's end of a real channel, and the real shared page, both without anything that could wait."""
# pyright: reportPrivateUsage=false

import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

from hybridpool._ipc import frames, framing, shared_page
from hybridpool._ipc.frames import Done, Returned, RunCall

F = TypeVar("F", bound=frames.Frame)


class StepPage(shared_page.SharedPage):
    """The shared_page, with the steps of `start` apart: that method would really sleep."""

    def announce(self, seq: int) -> None:
        """Say which call is next."""
        shared_page._WORD.pack_into(self._page, shared_page._NEXT, seq)

    def is_to_be_killed(self, seq: int) -> bool:
        """Tell whether this child is to be killed for a call before that one."""
        doomed: int = shared_page._WORD.unpack_from(self._page, shared_page._MARKED_FOR_KILL)[0]
        return 0 < doomed < seq

    def begin(self, seq: int) -> None:
        """Say which call is at work."""
        shared_page._WORD.pack_into(self._page, shared_page._STARTED, seq)


class FarEnd:
    """What a child reads and writes, and what it has read."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._files: dict[int, int] = {}
        self.inbox: deque[frames.ToChild] = deque()

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._socket.fileno()

    def read(self) -> bool:
        """Take a message that is there; False at the channel's end.

        :raises BlockingIOError: if none is there.
        """
        message, fds = framing.receive_with_fds(self._socket, socket.MSG_DONTWAIT)
        if not len(message):
            return False
        said = frames.read_to_child(message)
        for frame, fd in zip(said, fds, strict=False):
            assert isinstance(frame, RunCall)
            self._files[frame.seq] = fd
        self.inbox.extend(said)
        return True

    def write(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """:raises ConnectionError: if the parent is gone."""
        framing.send(self._socket, message, fds, socket.MSG_DONTWAIT)

    def write_large(self, done: Done, value: bytes) -> None:
        """Write an outcome whose value goes along in a file."""
        file = os.memfd_create("hybridpool-simulated", os.MFD_CLOEXEC)
        try:
            os.write(file, value)
            outcome = Returned(b"", "", (len(value),))
            self.write(frames.pack((Done(done.seq, outcome, done.runtime, done.owned),)), (file,))
        finally:
            os.close(file)

    def pick(self, kind: type[F]) -> list[F]:
        """Take all frames of a kind out of what was read."""
        found: list[F] = [frame for frame in self.inbox if isinstance(frame, kind)]
        self.inbox = deque(frame for frame in self.inbox if not isinstance(frame, kind))
        return found

    def drop_file(self, seq: int) -> None:
        """Let go of what a call brought along."""
        file = self._files.pop(seq, None)
        if file is not None:
            os.close(file)

    def close(self) -> None:
        """Let go of everything."""
        for seq in list(self._files):
            self.drop_file(seq)
        self._socket.close()
