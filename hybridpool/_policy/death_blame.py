"""Decides which calls are blamed for the death of a zygote, which kills all children.

A child's own death is its call's. When the zygote dies, the kernel kills every child with it, and at most one of the
calls at work was the cause; no system call tells which. With one call at work, that call is to blame. With several,
none is blamed: its message is run again and its deliveries are not counted, so a task cannot be dead-lettered for what
other tasks do. One worker spares a call only `MAX_UNBLAMED_DEATHS` times, so a call that runs each time the zygote dies
is blamed in the end: such a task is dead-lettered after at most `MAX_UNBLAMED_DEATHS` × workers +
`task_max_deliveries` deaths.
"""

from collections import OrderedDict
from collections.abc import Collection
from typing import Final

#: deaths of the zygote, beside other calls, for which a call is not blamed
MAX_UNBLAMED_DEATHS: Final = 2
#: ids that are remembered; the count of an older id starts again
MAX_REMEMBERED_IDS: Final = 10_000


class DeathBlame:
    """Counts the deaths for which each call was not blamed."""

    def __init__(self) -> None:
        self._unblamed_deaths: OrderedDict[str, int] = OrderedDict()

    def assign_blame(self, at_work: Collection[str], *, killed_by_us: bool) -> frozenset[str]:
        """Record a zygote's death, and return the ids of the calls that are to blame.

        :param at_work: ids of the calls that died with it.
        :param killed_by_us: it did not answer, so the worker killed it.
        """
        if len(at_work) == 1 and not killed_by_us:
            return frozenset(at_work)
        blamed = frozenset(one for one in at_work if self._unblamed_deaths.get(one, 0) >= MAX_UNBLAMED_DEATHS)
        for one in at_work:
            if one not in blamed:
                self._unblamed_deaths[one] = self._unblamed_deaths.pop(one, 0) + 1
        while len(self._unblamed_deaths) > MAX_REMEMBERED_IDS:
            self._unblamed_deaths.popitem(last=False)
        return blamed
