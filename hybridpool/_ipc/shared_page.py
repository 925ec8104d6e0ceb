"""A page that parent and child share, and that survives the child.

It holds the number of the running call, and outcomes that were not sent yet. So when a child is killed in the middle of
a batch, the parent knows which call was running, which had ended, and which had not begun.

Writers. Each word has one writer, and is written at once: a process that is killed in between leaves the old word or
the new one. On the child's side the writer is the main thread, in code of `loop.Child` that no handler and no other
thread interrupts. Only an exception may still come at any moment, from a signal handler that a task has left.

Adding an outcome can therefore be repeated. `add` writes the bytes, then the word that counts them, and last
`self._counts`, in one assignment. An exception

    before the last step: the next attempt writes the same bytes at the same position;
    after the last step:  the outcome is on the page twice, and the parent ignores the second one.

Between `message` and `clear` the main thread adds nothing.

Killing hits the right call. The parent kills a child for a call that may end at this moment; the kill must not hit the
next call. Each side writes its own word first and reads the other's afterwards: the child writes _NEXT and reads
_MARKED_FOR_KILL (`start`), the parent writes _MARKED_FOR_KILL and reads _NEXT (`mark_for_kill`). For call 7 and then 8:

    child writes _NEXT = 8, parent reads it:   the child is beyond 7; the parent removes the mark and does not kill.
    parent reads _NEXT = 7 before that:        its mark 7 was written earlier still, so the child, which reads the mark
                                               after it has written _NEXT = 8, finds it and waits for the kill.

For the child to begin call 8 and be killed for call 7, both reads would have to precede both writes.

A child that runs several calls at once uses other words. It begins calls in the order of their numbers, so `begin`
writes _STARTED alone. _STAGE says which call's code runs at this moment, and counts the steps, so that a call that
holds the loop is told from one that takes many short steps; _BEAT counts the turns of the loop's own timer. A kill of
such a child hits all its calls, and the parent decides what becomes of each (`_policy.death_of_shared`).
"""

import mmap
import os
import struct
import time
from typing import Final, Self

import msgspec

from hybridpool._ipc import frames
from hybridpool._ipc.framing import MAX_INLINE_BYTES

#: four words: the number of the running call; the number of outcomes (16 bits), where they end (16), and how often they
#: were cleared (32); the number of the next call; the number of the call that the child is to be killed for; the call
#: whose code runs (40 bits) and how many steps have begun (24); turns of the loop's timer
_HEADER: Final = struct.Struct("@QQQQQQ")
_WORD: Final = struct.Struct("@Q")
_STARTED, _COUNTS, _NEXT, _MARKED_FOR_KILL, _STAGE, _BEAT = (n * _WORD.size for n in range(6))
#: bits of a call's number in _STAGE
_CALL_BITS: Final = 40
_CALL_MASK: Final = (1 << _CALL_BITS) - 1
_STEP_MASK: Final = (1 << 24) - 1
#: seconds between two readings of the mark by a child that waits to be killed
_POLL_INTERVAL_S: Final = 0.0005
_PAGE_BYTES: Final = 2 * mmap.PAGESIZE
_MAX_END: Final = min(_PAGE_BYTES - _HEADER.size, MAX_INLINE_BYTES)
#: the counts of a page without outcomes
_EMPTY: Final = _HEADER.size << 16
#: the header of msgpack's "array 16": its type byte, then the number of elements
_ARRAY_HEADER: Final = struct.Struct(">BH")


class SharedPage:
    """One child's page. The child writes, the parent reads when the child is dead."""

    def __init__(self, descriptor: int) -> None:
        """Map a page that `make` made; the descriptor may be closed afterwards."""
        self._page = mmap.mmap(descriptor, _PAGE_BYTES)
        #: a copy of the counts on the page: where the outcomes end, and how many there are
        self._counts = _EMPTY
        self._wiped = 0
        self._steps = 0
        self._beats = 0

    @classmethod
    def make(cls) -> tuple[Self, int]:
        """Make a page; return it, and the descriptor to pass to the child and close."""
        descriptor = os.memfd_create("hybridpool-shared-page", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, _PAGE_BYTES)
            return cls(descriptor), descriptor
        except BaseException:
            os.close(descriptor)
            raise

    # ---- the child ---------------------------------------------------------------------------------------

    def start(self, seq: int) -> None:
        """Record that a call begins; wait first, if this child is to be killed for an earlier call."""
        page = self._page
        _WORD.pack_into(page, _NEXT, seq)
        while 0 < _WORD.unpack_from(page, _MARKED_FOR_KILL)[0] < seq:
            time.sleep(_POLL_INTERVAL_S)
        _WORD.pack_into(page, _STARTED, seq)

    def begin(self, seq: int) -> None:
        """Record that a call begins, in a child that runs several at once."""
        _WORD.pack_into(self._page, _STARTED, seq)

    def enter_stage(self, seq: int) -> None:
        """Record that the code of a call runs from now on."""
        self._steps = steps = self._steps + 1 & _STEP_MASK
        _WORD.pack_into(self._page, _STAGE, steps << _CALL_BITS | seq)

    def leave_stage(self) -> None:
        """Record that no call's code runs."""
        _WORD.pack_into(self._page, _STAGE, 0)

    def beat(self) -> None:
        """Record that the loop is still turning."""
        self._beats += 1
        _WORD.pack_into(self._page, _BEAT, self._beats)

    def add(self, outcome: bytes) -> bool:
        """Record an outcome, as a packed frame; False: the page is full."""
        counts = self._counts
        start = counts >> 16
        end = start + len(outcome)
        if end > _MAX_END:
            return False
        self._page[start:end] = outcome
        counts = end << 16 | (counts & 0xFFFF) + 1
        _WORD.pack_into(self._page, _COUNTS, self._wiped << 32 | counts)
        self._counts = counts
        return True

    @property
    def count(self) -> int:
        """The number of recorded outcomes."""
        return self._counts & 0xFFFF

    def message(self) -> bytes:
        """Return the recorded outcomes as one message; call `clear` when it is sent."""
        counts = self._counts
        return _ARRAY_HEADER.pack(0xDC, counts & 0xFFFF) + self._page[_HEADER.size : counts >> 16]

    def clear(self) -> None:
        """Remove the outcomes, after they were sent."""
        self._counts = _EMPTY
        self._wiped = (self._wiped + 1) & 0xFFFF_FFFF
        _WORD.pack_into(self._page, _COUNTS, self._wiped << 32)

    # ---- the parent --------------------------------------------------------------------------------------

    def mark_for_kill(self, seq: int) -> bool:
        """Mark the child to be killed for this call; False: the call has ended, and the child must not be killed."""
        _WORD.pack_into(self._page, _MARKED_FOR_KILL, seq)
        if _WORD.unpack_from(self._page, _NEXT)[0] <= seq:
            return True
        _WORD.pack_into(self._page, _MARKED_FOR_KILL, 0)
        return False

    @property
    def at_work(self) -> int:
        """The number of the last call that the child has begun; 0: none yet."""
        return int(_WORD.unpack_from(self._page, _STARTED)[0])

    @property
    def on_stage(self) -> int:
        """The number of the call whose code runs, or ran when the child died; 0: none, or that of a thread."""
        return int(_WORD.unpack_from(self._page, _STAGE)[0]) & _CALL_MASK

    @property
    def pulse(self) -> tuple[int, int]:
        """What changes as long as the child's loop turns."""
        return int(_WORD.unpack_from(self._page, _STAGE)[0]), int(_WORD.unpack_from(self._page, _BEAT)[0])

    def read(self) -> tuple[int, list[frames.FromChild]]:
        """Return, after the child's death, its last call and the outcomes that it had not sent, or had just sent."""
        started, counts, *_ = _HEADER.unpack_from(self._page, 0)
        return started, _outcomes(counts, self._page[:])

    def pending_outcomes(self) -> list[frames.FromChild]:
        """Return, while the child lives, the outcomes it has not sent yet; none if it changes them at this moment.

        The child still sends them.
        """
        counts = _WORD.unpack_from(self._page, _COUNTS)[0]
        page = self._page[:]
        if _WORD.unpack_from(self._page, _COUNTS)[0] != counts:
            return []
        return _outcomes(counts, page)

    def close(self) -> None:
        """Unmap the page."""
        self._page.close()


def _outcomes(counts: int, page: bytes) -> list[frames.FromChild]:
    count, end = counts & 0xFFFF, counts >> 16 & 0xFFFF
    if not count:
        return []
    try:
        return frames.read_from_child(_ARRAY_HEADER.pack(0xDC, count) + page[_HEADER.size : end])
    except (msgspec.MsgspecError, ValueError):
        # The task has overwritten the page. These outcomes are lost with the child.
        return []
