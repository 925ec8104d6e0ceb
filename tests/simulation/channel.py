"""A fake child's end of a real channel, and the real shared page, both without anything that could wait."""
# pyright: reportPrivateUsage=false

import os
import socket
from collections.abc import Callable, Sequence

from hybridpool._ipc import frames, framing, shared_page
from hybridpool._ipc.frames import RunCall


class StepPage(shared_page.SharedPage):
    """The shared page, with the steps of `start` apart: that method really sleeps."""

    def announce(self, seq: int) -> None:
        """Say which call is next."""
        shared_page._WORD.pack_into(self._page, shared_page._NEXT, seq)

    def is_to_be_killed(self, seq: int) -> bool:
        """Tell whether this child is to be killed for a call before that one."""
        marked: int = shared_page._WORD.unpack_from(self._page, shared_page._MARKED_FOR_KILL)[0]
        return 0 < marked < seq

    def begin(self, seq: int) -> None:
        """Say which call is at work."""
        shared_page._WORD.pack_into(self._page, shared_page._STARTED, seq)


class FarEnd:
    """What a child reads and writes, and the files that came with its calls."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._files: dict[int, int] = {}

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._socket.fileno()

    def read(self, loses_file: Callable[[], bool]) -> tuple[list[frames.ToChild], bool] | None:
        """Take a message that is there, and whether it brought a file; None at the channel's end.

        :param loses_file: asked for each file: tells whether there is no descriptor for it.
        :raises BlockingIOError: if none is there.
        """
        message, fds = framing.receive_with_fds(self._socket, socket.MSG_DONTWAIT)
        if not len(message):
            return None
        received = frames.read_to_child(message)
        if fds and loses_file():
            for fd in fds:
                os.close(fd)
            fds = []
        for frame, fd in zip(received, fds, strict=False):
            assert isinstance(frame, RunCall)
            self._files[frame.seq] = fd
        return received, bool(fds)

    def write(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """:raises ConnectionError: if the parent is gone."""
        framing.send(self._socket, message, fds, socket.MSG_DONTWAIT)

    def file_of(self, value: bytes) -> int:
        """Put a large value into a file in memory; its descriptor is the caller's to close."""
        file = os.memfd_create("hybridpool-simulated", os.MFD_CLOEXEC)
        os.write(file, value)
        return file

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
