"""A page that parent and child share, and that survives the child.

On it stand the number of the call at work, and outcomes that have not been sent yet. So when a child is killed in the
middle of a batch the parent knows exactly which call it was in, which had ended, and which had not begun.

The child's side has one writer: the main thread, in code of `loop.Child`, which lets no handler and no other thread in
between. What may still come at any moment is an exception, raised by a signal handler that a task has left. So every
step can be taken twice: `add` writes the bytes, then the word by which the parent finds them, and last the child's own
memory of both, in one assignment. Broken off before the last step, it does the same again at the same place; after it,
the outcome stands there twice, and the parent takes no notice of the second. Between `message` and `clear` the main
thread adds nothing.

The parent writes one word: the number of a call that it is about to kill the child for. A child that has just done with
that call waits before the next one, and a parent that sees it beyond that call lets it live: the kill hits no other.
"""

import mmap
import os
import struct
import time
from typing import Final, Self

import msgspec

from hybridpool._ipc import frames
from hybridpool._ipc.framing import INLINE

#: words, each written in one go, so that a child killed in the middle leaves the old one or the new one: the number of
#: the call at work; how many outcomes stand below (16 bits), where they end (16), and how often they were wiped
#: off (32); the number of the call that is next; the number of the call to be killed
_HEAD: Final = struct.Struct("@QQQQ")
_WORD: Final = struct.Struct("@Q")
_STARTED, _COUNTS, _NEXT, _MARKED_FOR_KILL = (n * _WORD.size for n in range(4))
#: seconds between two looks of a child that waits for its end
_LOOK: Final = 0.0005
_SIZE: Final = 2 * mmap.PAGESIZE
_ROOM: Final = min(_SIZE - _HEAD.size, INLINE)
#: nothing stands on the page
_EMPTY: Final = _HEAD.size << 16
#: msgpack's "array 16": its mark, then the number of elements
_ARRAY: Final = struct.Struct(">BH")


class SharedPage:
    """One child's page. The child writes, the parent reads when the child is dead."""

    def __init__(self, descriptor: int) -> None:
        """Map a page that `make` made; the descriptor may be closed afterwards."""
        self._page = mmap.mmap(descriptor, _SIZE)
        #: as on the page: where the outcomes end, and how many there are
        self._counts = _EMPTY
        self._wiped = 0

    @classmethod
    def make(cls) -> tuple[Self, int]:
        """Make a page; returns it, and the descriptor to pass to the child and close."""
        descriptor = os.memfd_create("hybridpool-shared_page", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, _SIZE)
            return cls(descriptor), descriptor
        except BaseException:
            os.close(descriptor)
            raise

    # ---- the child ---------------------------------------------------------------------------------------

    def start(self, seq: int) -> None:
        """Note which call is at work from now on; first wait, if this child is to be killed for one before it."""
        page = self._page
        _WORD.pack_into(page, _NEXT, seq)
        while 0 < _WORD.unpack_from(page, _MARKED_FOR_KILL)[0] < seq:
            time.sleep(_LOOK)
        _WORD.pack_into(page, _STARTED, seq)

    def add(self, outcome: bytes) -> bool:
        """Note an outcome, as a packed frame; False if there is no room."""
        counts = self._counts
        start = counts >> 16
        end = start + len(outcome)
        if end > _ROOM:
            return False
        self._page[start:end] = outcome
        counts = end << 16 | (counts & 0xFFFF) + 1
        _WORD.pack_into(self._page, _COUNTS, self._wiped << 32 | counts)
        self._counts = counts
        return True

    @property
    def count(self) -> int:
        """How many outcomes are noted."""
        return self._counts & 0xFFFF

    def message(self) -> bytes:
        """Return the noted outcomes as one message; `clear` when it is sent."""
        counts = self._counts
        return _ARRAY.pack(0xDC, counts & 0xFFFF) + self._page[_HEAD.size : counts >> 16]

    def clear(self) -> None:
        """Forget the outcomes: they are sent."""
        self._counts = _EMPTY
        self._wiped = (self._wiped + 1) & 0xFFFF_FFFF
        _WORD.pack_into(self._page, _COUNTS, self._wiped << 32)

    # ---- the parent --------------------------------------------------------------------------------------

    def mark_for_kill(self, seq: int) -> bool:
        """Say that the child is to be killed for this call; False if it has done with it, and must not be."""
        _WORD.pack_into(self._page, _MARKED_FOR_KILL, seq)
        if _WORD.unpack_from(self._page, _NEXT)[0] <= seq:
            return True
        _WORD.pack_into(self._page, _MARKED_FOR_KILL, 0)
        return False

    @property
    def at_work(self) -> int:
        """The number of the last call that the child has begun; 0: none yet."""
        return int(_WORD.unpack_from(self._page, _STARTED)[0])

    def read(self) -> tuple[int, list[frames.FromChild]]:
        """After the child's death: the last call it began, and the outcomes it had not sent, or just had."""
        started, counts, _, _ = _HEAD.unpack_from(self._page, 0)
        return started, _outcomes(counts, self._page[:])

    def pending_outcomes(self) -> list[frames.FromChild]:
        """While the child lives: the outcomes it has not sent yet; nothing if it is about to change them.

        It will send them all the same.
        """
        counts = _WORD.unpack_from(self._page, _COUNTS)[0]
        page = self._page[:]
        if _WORD.unpack_from(self._page, _COUNTS)[0] != counts:
            return []
        return _outcomes(counts, page)

    def close(self) -> None:
        """Let go of the page."""
        self._page.close()


def _outcomes(counts: int, page: bytes) -> list[frames.FromChild]:
    count, end = counts & 0xFFFF, counts >> 16 & 0xFFFF
    if not count:
        return []
    try:
        return frames.read_from_child(_ARRAY.pack(0xDC, count) + page[_HEAD.size : end])
    except (msgspec.MsgspecError, ValueError):
        # The task has written to memory that is not its own. Those calls are lost with it.
        return []
