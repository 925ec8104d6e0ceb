"""Large values: pickled into pieces without a copy, carried as a file in memory, read back from there.

A value whose pickle is large never becomes one string of bytes. The pickler hands out long byte strings as they are,
and buffers (arrays) separately (PEP 574, "out-of-band"); all of it is written to a memfd, whose descriptor
is sent. Writing and reading are system calls, during which other threads run: so a parent that does both in a thread is
never blocked. The reader maps the buffers instead of copying them; the mapping is private, so it may write there.

The file: the pickle, then each buffer, every one at a multiple of 64 bytes. Their sizes travel with the descriptor.
"""

import mmap
import os
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from hybridpool._ipc.framing import MAX_INLINE_BYTES

Buffer = bytes | bytearray | memoryview | pickle.PickleBuffer
#: of each buffer in the file: enough for any type of number and the widest instructions
_ALIGNMENT_BYTES: Final = 64
#: smaller buffers are part of the pickle
_MIN_OUT_OF_BAND_BYTES: Final = 16 * 1024
#: pieces written by one system call (IOV_MAX is 1024)
_MAX_PIECES_PER_WRITE: Final = 512


class LargeObject:
    """A pickle in pieces, and the buffers that belong to it.

    It refers to the memory of the value's arrays, so they must not change before it is written.
    """

    __slots__ = ("_buffers", "_pieces", "sizes")

    def __init__(self, pieces: Sequence[bytes], buffers: Sequence[memoryview]) -> None:
        self._pieces = pieces
        self._buffers = buffers
        #: bytes of the pickle, then of each buffer
        self.sizes = (sum(map(len, pieces)), *(buffer.nbytes for buffer in buffers))

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.sizes)

    def write(self) -> int:
        """Write all to a new memfd; return its descriptor, which the caller must close.

        :raises OSError: if there is no descriptor or no memory.
        """
        file = os.memfd_create("hybridpool-large", os.MFD_CLOEXEC)
        try:
            for start in range(0, len(self._pieces), _MAX_PIECES_PER_WRITE):
                _write_all(file, self._pieces[start : start + _MAX_PIECES_PER_WRITE])
            for (start, _), buffer in zip(_offsets(self.sizes)[1:], self._buffers, strict=True):
                os.lseek(file, start, os.SEEK_SET)
                _write_all(file, (buffer,))
        except BaseException:
            os.close(file)
            raise
        return file

    def mentions(self, word: bytes) -> bool:
        """Tell whether the pickle contains the word outside of long strings and buffers."""
        return any(len(piece) < MAX_INLINE_BYTES and word in piece for piece in self._pieces)


class _PieceSink:
    """A file for a pickler, which keeps the pieces that are written."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Buffer], None]) -> None:
        self.write = write


def dump(value: object, pickler: Callable[..., Any] = pickle.Pickler) -> bytes | LargeObject:
    """Pickle a value: into bytes, or into a `LargeObject` if it is large.

    :param pickler: the class of the pickler.
    """
    pieces: list[bytes] = []
    buffers: list[memoryview] = []

    def keep(piece: Buffer) -> None:
        # A bytearray may be changed, even in its length, before it is written.
        pieces.append(piece if isinstance(piece, bytes) else bytes(piece))

    def keep_out_of_band(buffer: pickle.PickleBuffer) -> bool:
        """Keep a large buffer out of the pickle; True: the pickler shall include it."""
        try:
            raw = buffer.raw()
        except BufferError:  # not in one piece
            return True
        if raw.nbytes < _MIN_OUT_OF_BAND_BYTES:
            return True
        buffers.append(raw)
        return False

    pickler(_PieceSink(keep), pickle.HIGHEST_PROTOCOL, buffer_callback=keep_out_of_band).dump(value)
    large = LargeObject(pieces, buffers)
    if buffers or large.total > MAX_INLINE_BYTES:
        return large
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def load(file: int, sizes: Sequence[int]) -> Any:
    """Read a value back. The descriptor may be closed afterwards."""
    (_, end), *offsets = _offsets(sizes)
    buffers: list[memoryview] = []
    if offsets:
        mapping = memoryview(mmap.mmap(file, offsets[-1][1], access=mmap.ACCESS_COPY))
        buffers = [mapping[start:stop] for start, stop in offsets]
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb", buffering=min(end, MAX_INLINE_BYTES) or 1, closefd=False) as stream:
        return pickle.Unpickler(stream, buffers=buffers).load()


class BodyFiles:
    """The files that hold bodies of a child's calls, by the calls' numbers."""

    def __init__(self) -> None:
        self._files: dict[int, int] = {}

    def keep(self, seq: int, file: int) -> None:
        """Keep the file of a call's body."""
        self._files[seq] = file

    def of(self, seq: int) -> int | None:
        """Return the file of a call; None: the body is in the frame."""
        return self._files.get(seq)

    def drop(self, seq: int) -> None:
        """Close the file of a call that has ended, if it has one."""
        file = self._files.pop(seq, None)
        if file is not None:
            # The task may have closed all descriptors.
            with suppress(OSError):
                os.close(file)


def _offsets(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return start and end of each part of the file."""
    offsets: list[tuple[int, int]] = []
    start = 0
    for size in sizes:
        offsets.append((start, start + size))
        start = -(-(start + size) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    return offsets


def _write_all(file: int, parts: Sequence[bytes | memoryview]) -> None:
    """Write parts one behind the other."""
    views: list[memoryview] = [memoryview(part) for part in parts if len(part)]
    while views:
        written = os.writev(file, views)
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]
