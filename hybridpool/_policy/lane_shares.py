"""How the lanes of a worker share the prefetch of a queue.

Tasks of the process lane may be held in advance (`pace`, `prefetch`). The async and the thread lane run many calls at
once, so a queue of theirs is held as far as their slots go: what cannot start is left to other workers.

The broker does not know which message is for which lane. In a queue that carries messages of several lanes, those of
the process lane could fill all places that were meant for the others. So the part of the others begins small, and
grows with what is at work there.
"""

import math
from typing import Final

from hybridpool._policy.pace import MAX_HOLD

#: messages for the async and thread lanes of a queue that has tasks of the process lane too
FIRST_SLOTS: Final = 16
#: the part doubles when this share of it is at work
GROWS_AT: Final = 0.75
#: it is halved when less than this share of it has been at work for so many seconds
SHRINKS_UNDER: Final = 0.25
SHRINKS_AFTER_S: Final = 60.0
#: seconds for which messages of the process lane must be in the way of the others before a line says so; and seconds
#: until the next such line
BLOCKED_FOR_S: Final = 5.0
WARNED_EVERY_S: Final = 600.0


def shared_hold(process: int | None, weight: int, slots: int) -> int:
    """Return the prefetch of a queue; 0: no limit.

    :param process: messages for the process lane; 0: no limit; None: the queue has no tasks of that lane.
    :param weight: of the queue among the others; slots are not multiplied by it.
    :param slots: messages for the other lanes.
    """
    if process == 0:
        return 0
    return min(MAX_HOLD, max(1, (process or 0) * weight + slots))


class SlotWindow:
    """The part of the async and thread lanes in the prefetch of a queue that has tasks of the process lane too."""

    def __init__(self, slots: int) -> None:
        """:param slots: of these lanes together; the part is never larger."""
        self._slots = slots
        self.part = min(FIRST_SLOTS, slots)
        self._quiet_since: float | None = None

    def decide(self, at_work: int, now: float) -> int:
        """Return the part.

        :param at_work: calls of this queue that these lanes run.
        :param now: monotonic seconds.
        """
        least = min(FIRST_SLOTS, self._slots)
        if at_work >= self.part * GROWS_AT:
            self.part, self._quiet_since = min(2 * self.part, self._slots), None
        elif at_work >= self.part * SHRINKS_UNDER or self.part == least:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since >= SHRINKS_AFTER_S:
            self.part, self._quiet_since = max(least, self.part // 2), now
        return self.part


class HeadOfLine:
    """Notices that messages of the process lane keep those of the other lanes from coming."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._warned_at = -math.inf

    def decide(self, *, held: int, share: int, has_room: bool, now: float) -> bool:
        """Tell whether to say so now.

        :param held: messages of the process lane that are here, running ones included.
        :param share: as many of them as should be.
        :param has_room: the other lanes could run more calls.
        :param now: monotonic seconds.
        """
        if held <= share or not has_room:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        if now - self._since < BLOCKED_FOR_S or now - self._warned_at < WARNED_EVERY_S:
            return False
        self._warned_at = now
        return True
