"""Which calls answer for a death that took more than one child.

A child's own death is its call's. When the zygote dies, the kernel kills every child with it, and at most one of the
calls at work was the cause; no system call tells which. With one call at work, that call is to blame. With several,
each is let off: its message is run again and its deliveries are not counted, so a task cannot be dead-lettered for what
its neighbours do. A call is let off only `MAX_LET_OFF` times by one worker, so a call that is there each time the
zygote dies is blamed in the end: such a task is dead-lettered after at most `MAX_LET_OFF` × workers +
`task_max_deliveries` deaths.
"""

from collections import OrderedDict
from collections.abc import Collection
from typing import Final

#: deaths of the zygote, beside other calls, for which a call is not blamed
MAX_LET_OFF: Final = 2
#: ids that are remembered; a call beyond them begins anew
MAX_REMEMBERED: Final = 10_000


class DeathBlame:
    """Remembers how often each call was let off."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, int] = OrderedDict()

    def blamed(self, at_work: Collection[str], *, killed_by_us: bool) -> frozenset[str]:
        """Take note of a zygote's death, and return the ids of the calls that are to blame.

        :param at_work: ids of the calls that died with it.
        :param killed_by_us: it did not answer, so the worker killed it.
        """
        if len(at_work) == 1 and not killed_by_us:
            return frozenset(at_work)
        blamed = frozenset(one for one in at_work if self._times.get(one, 0) >= MAX_LET_OFF)
        for one in at_work:
            if one not in blamed:
                self._times[one] = self._times.pop(one, 0) + 1
        while len(self._times) > MAX_REMEMBERED:
            self._times.popitem(last=False)
        return blamed
