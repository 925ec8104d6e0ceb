"""Decides how far a pool may grow before memory gets scarce.

With much free memory it grows at once. Otherwise it at most doubles, so that the memory of the new children is measured
before more are forked; and it stops where another child as large as the largest would not fit.
"""

from collections.abc import Sequence
from typing import Final

import attrs

MIB: Final = 1024 * 1024
#: bytes that a child is assumed to own before it was measured
_UNMEASURED_CHILD_BYTES: Final = 256 * MIB
#: bytes that each child is assumed to own at least
_MIN_CHILD_BYTES: Final = 16 * MIB


@attrs.frozen(kw_only=True)
class Bound:
    """One limit on memory: of the host, of a cgroup, of the pool's own budget. In bytes."""

    name: str
    limit: int
    used: int
    #: bytes that stay free
    reserve: int

    @property
    def free(self) -> int:
        """Bytes that may still be used."""
        return max(0, self.limit - self.used - self.reserve)


@attrs.frozen(kw_only=True)
class Fit:
    """How large the pool may be now."""

    size: int
    #: more were wanted: decide again soon
    is_short: bool = False
    #: the limit that prevents growth; None: there is memory, or new children are to be measured first
    held_by: str | None = None


def fit(*, size: int, wanted: int, heaviest: int, bounds: Sequence[Bound]) -> Fit:
    """Decide how much of a growth memory allows.

    :param size: children there are.
    :param wanted: children there should be, more than `size`.
    :param heaviest: bytes that the heaviest child owned so far.
    """
    growth = wanted - size
    tightest = min(bounds, key=lambda bound: bound.free, default=None)
    if tightest is None or tightest.free >= 2 * growth * max(heaviest, _UNMEASURED_CHILD_BYTES):
        return Fit(size=wanted)
    each = max(heaviest, _MIN_CHILD_BYTES)
    fits = tightest.free // each
    step = min(growth, fits, max(1, size))
    if step == growth:
        return Fit(size=wanted)
    held_by = None
    if fits <= step:
        held_by = f"{tightest.free / MIB:.0f} MiB are left of {tightest.name}, and a child owns up to {each / MIB:.0f}"
    return Fit(size=size + step, is_short=True, held_by=held_by)
