"""The parent's folders of modules (`sys.path`), in memory that the zygote and all children share with it.

A program may add a folder after its pool was opened, and run a function of a module from there. The parent writes the
list when it has changed, before it sends the next call; a child that does not find a module reads it and looks again.

The list stands in one of two halves, and one word says where: the parent writes the half that is not named, then the
word. So a reader sees the old list or the new one; one that is overtaken twice finds that the word has changed.
"""

import marshal
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Final, Self

from hybridpool._ipc.descriptors import number_above_standard

#: where the current list starts (32 bits) and how long it is (32 bits), written in one go; 0: there is none
_WORD: Final = struct.Struct("@Q")
#: bytes of either half: some hundred folders, and less than any sensible limit on the size of files (`ulimit -f`)
_HALF_BYTES: Final = 64 * 1024
_SIZE: Final = 2 * _HALF_BYTES
_FIRST, _SECOND = mmap.PAGESIZE, _HALF_BYTES


class SharedFolders:
    """The list, as seen by either side. The parent writes, everybody reads."""

    def __init__(self, descriptor: int) -> None:
        """Map memory that `make` made; the descriptor may be closed afterwards."""
        self._memory = mmap.mmap(descriptor, _SIZE)

    @classmethod
    def make(cls) -> tuple[Self, int]:
        """Make the memory; return it, and the descriptor to pass on and close."""
        descriptor = number_above_standard(os.memfd_create("hybridpool-folders", os.MFD_CLOEXEC))
        try:
            os.ftruncate(descriptor, _SIZE)
            return cls(descriptor), descriptor
        except BaseException:
            os.close(descriptor)
            raise

    def write(self, folders: Sequence[str]) -> None:
        """Replace the list; one that is too long for its place is not passed on."""
        data = marshal.dumps(list(folders))
        now = int(_WORD.unpack_from(self._memory, 0)[0]) >> 32
        start = _SECOND if now == _FIRST else _FIRST
        if start + len(data) > (_HALF_BYTES if start == _FIRST else _SIZE):
            return
        self._memory[start : start + len(data)] = data
        _WORD.pack_into(self._memory, 0, start << 32 | len(data))

    def read(self) -> list[str] | None:
        """Return the list; None: none was written since the zygote was started."""
        while True:
            word = int(_WORD.unpack_from(self._memory, 0)[0])
            if not word:
                return None
            start, length = word >> 32, word & 0xFFFF_FFFF
            data = self._memory[start : start + length]
            if _WORD.unpack_from(self._memory, 0)[0] == word:
                folders: list[str] = marshal.loads(data)
                return folders

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
