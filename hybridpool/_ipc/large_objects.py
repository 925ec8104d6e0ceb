"""Large values: pickled into pieces without a copy, carried as a file in memory, read back from there.

A value whose pickle is large never becomes one string of bytes. The pickler hands out long byte strings as they are,
and buffers (arrays) apart from the pickle (PEP 574, "out-of-band"); all of it is written to a memfd, whose descriptor
travels. Writing and reading are system calls, during which other threads run: so a parent that does both in a thread
is never held up. The reader maps the buffers instead of copying them; the mapping is its own, it may write there.

The file: the pickle, then each buffer, every one at a multiple of 64 bytes. Their sizes travel with the descriptor.
"""

import mmap
import os
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from hybridpool._ipc.framing import INLINE

Buffer = bytes | bytearray | memoryview | pickle.PickleBuffer
#: where arrays may begin, for any kind of number and the widest instructions
_ALIGN: Final = 64
#: buffers below this stand in the pickle
_APART: Final = 16 * 1024
#: at most so many pieces in one system call (IOV_MAX is 1024)
_MANY: Final = 512


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
        """Write all to a new memfd; returns its descriptor, which is the caller's to close.

        :raises OSError: if there is no descriptor or no memory.
        """
        file = os.memfd_create("hybridpool-bulk", os.MFD_CLOEXEC)
        try:
            for start in range(0, len(self._pieces), _MANY):
                _write_all(file, self._pieces[start : start + _MANY])
            for (start, _), buffer in zip(_places(self.sizes)[1:], self._buffers, strict=True):
                os.lseek(file, start, os.SEEK_SET)
                _write_all(file, (buffer,))
        except BaseException:
            os.close(file)
            raise
        return file

    def mentions(self, word: bytes) -> bool:
        """Tell whether the word stands in the pickle itself, outside of long strings and buffers."""
        return any(len(piece) < INLINE and word in piece for piece in self._pieces)


class _Gather:
    """The file that a pickler writes to: it keeps what it is given."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Buffer], None]) -> None:
        self.write = write


def dump(value: object, pickler: Callable[..., Any] = pickle.Pickler) -> bytes | LargeObject:
    """Pickle a value: into bytes, or into a `LargeObject` if it is large.

    :param pickler: the class to do it with.
    """
    pieces: list[bytes] = []
    buffers: list[memoryview] = []

    def keep(piece: Buffer) -> None:
        # A bytearray may be changed, even in its length, before it is written.
        pieces.append(piece if isinstance(piece, bytes) else bytes(piece))

    def apart(buffer: pickle.PickleBuffer) -> bool:
        """Keep a large buffer; True: put it into the pickle."""
        try:
            raw = buffer.raw()
        except BufferError:  # not in one piece
            return True
        if raw.nbytes < _APART:
            return True
        buffers.append(raw)
        return False

    pickler(_Gather(keep), pickle.HIGHEST_PROTOCOL, buffer_callback=apart).dump(value)
    bulk = LargeObject(pieces, buffers)
    if buffers or bulk.total > INLINE:
        return bulk
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def load(file: int, sizes: Sequence[int]) -> Any:
    """Read a value back. The descriptor may be closed afterwards."""
    (_, end), *places = _places(sizes)
    buffers: list[memoryview] = []
    if places:
        page = memoryview(mmap.mmap(file, places[-1][1], access=mmap.ACCESS_COPY))
        buffers = [page[start:stop] for start, stop in places]
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb", buffering=min(end, INLINE) or 1, closefd=False) as stream:
        return pickle.Unpickler(stream, buffers=buffers).load()


class Files:
    """The files of a child's calls, by their numbers."""

    def __init__(self) -> None:
        self._files: dict[int, int] = {}

    def keep(self, seq: int, file: int) -> None:
        """Keep the file in which a call's body came."""
        self._files[seq] = file

    def of(self, seq: int) -> int | None:
        """Return the file of a call; None if its body stands in its frame."""
        return self._files.get(seq)

    def drop(self, seq: int) -> None:
        """Close the file of a call that is done with, if it has one."""
        file = self._files.pop(seq, None)
        if file is not None:
            # The task may have closed it, with all others.
            with suppress(OSError):
                os.close(file)


def _places(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return start and end of each part of the file."""
    places: list[tuple[int, int]] = []
    start = 0
    for size in sizes:
        places.append((start, start + size))
        start = -(-(start + size) // _ALIGN) * _ALIGN
    return places


def _write_all(file: int, parts: Sequence[bytes | memoryview]) -> None:
    """Write parts one behind the other."""
    views: list[memoryview] = [memoryview(part) for part in parts if len(part)]
    while views:
        written = os.writev(file, views)
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]
