"""The parent's folders of modules (`sys.path`), in memory that the zygote and all children share with it.

A program may add a folder after its pool was opened, and run a function of a module from there. The parent writes the
list when it has changed, before it sends the next call; a child that does not find a module reads it and looks again.

The memory has two halves and a position, one 64-bit word, that names the current list. The parent writes the list into
the other half, then the position. So a reader sees the old list or the new one, never a mixture:

    reader: reads position (half 1)     parent: writes half 2, then the position (half 2)
    reader: copies half 1, unchanged: the old list, which is right
    reader: reads position (half 1)     parent: writes half 2, position, then half 1, position
    reader: copies half 1, torn; the position has changed, so it reads again
"""

import marshal
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Final, Self

from hybridpool._ipc.descriptors import move_number_above_standard

#: start (32 bits) and length (32 bits) of the current list, written as one word; 0: there is no list
_POSITION: Final = struct.Struct("@Q")
#: bytes of either half: some hundred folders, and less than any sensible limit on the size of files (`ulimit -f`)
_HALF_BYTES: Final = 64 * 1024
_SIZE_BYTES: Final = 2 * _HALF_BYTES
_FIRST_START, _SECOND_START = mmap.PAGESIZE, _HALF_BYTES


class SharedFolders:
    """The list, on either side. The parent writes; zygote and children read."""

    def __init__(self, descriptor: int) -> None:
        """Map memory that `make` made; the descriptor may be closed afterwards."""
        self._memory = mmap.mmap(descriptor, _SIZE_BYTES)

    @classmethod
    def make(cls) -> tuple[Self, int]:
        """Make the memory; return it, and the descriptor to pass on and close."""
        descriptor = move_number_above_standard(os.memfd_create("hybridpool-folders", os.MFD_CLOEXEC))
        try:
            os.ftruncate(descriptor, _SIZE_BYTES)
            return cls(descriptor), descriptor
        except BaseException:
            os.close(descriptor)
            raise

    def write(self, folders: Sequence[str]) -> None:
        """Replace the list; a list that is too long is not passed on."""
        data = marshal.dumps(list(folders))
        now = int(_POSITION.unpack_from(self._memory, 0)[0]) >> 32
        start = _SECOND_START if now == _FIRST_START else _FIRST_START
        if start + len(data) > (_HALF_BYTES if start == _FIRST_START else _SIZE_BYTES):
            return
        self._memory[start : start + len(data)] = data
        _POSITION.pack_into(self._memory, 0, start << 32 | len(data))

    def read(self) -> list[str] | None:
        """Return the list; None: none was written since the zygote was started."""
        while True:
            word = int(_POSITION.unpack_from(self._memory, 0)[0])
            if not word:
                return None
            start, length = word >> 32, word & 0xFFFF_FFFF
            data = self._memory[start : start + length]
            if _POSITION.unpack_from(self._memory, 0)[0] == word:
                folders: list[str] = marshal.loads(data)
                return folders

    def close(self) -> None:
        """Unmap the memory."""
        self._memory.close()
