"""Decides how large the pool should be.

It grows at once by as many children as calls wait for, up to the ceiling; it shrinks to what the load needs when that
has been too little for `idle` seconds on end, down to the floor. `reconcile` decides which child is
retired, never a busy one.
"""

import sys

import attrs


@attrs.frozen(kw_only=True)
class ScaleLimits:
    floor: int
    ceiling: int
    #: seconds a surplus must last before it is given up
    idle: float


@attrs.frozen
class ScaleMemory:
    """What the policy remembers between decisions."""

    #: since when the load has needed fewer children than there are; None: it needs them all
    surplus_since: float | None = None


@attrs.frozen(kw_only=True)
class ScalePlan:
    size: int
    memory: ScaleMemory
    #: the next decision is due when the load leaves these bounds, both included
    watch: tuple[int, int]
    #: seconds until the next decision is due although the load stays within them; None: it is not
    look_again_in: float | None = None


def decide(*, load: int, size: int, limits: ScaleLimits, memory: ScaleMemory, now: float) -> ScalePlan:
    """Decide on a size.

    :param load: calls that run or wait.
    :param size: children the pool has, or is about to have.
    :param now: seconds of a monotonic clock.
    """
    wanted = min(max(load, limits.floor), limits.ceiling)
    if size > limits.ceiling:
        # the ceiling was lowered
        return _settled(limits.ceiling, limits)
    if wanted >= size:
        return _settled(wanted, limits)
    since = memory.surplus_since if memory.surplus_since is not None else now
    left = limits.idle - (now - since)
    if left > 0:
        return ScalePlan(size=size, memory=ScaleMemory(since), watch=(0, size - 1), look_again_in=left)
    return _settled(wanted, limits)


def _settled(size: int, limits: ScaleLimits) -> ScalePlan:
    """Return a plan to keep this size until the load needs more or fewer children."""
    least = size if size > limits.floor else 0
    most = size if size < limits.ceiling else sys.maxsize
    return ScalePlan(size=size, memory=ScaleMemory(), watch=(least, most))
