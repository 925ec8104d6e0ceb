"""How many messages of a queue to hold, from how long its tasks take: ``worker_prefetch_multiplier = auto``.

A message that waits here for a child saves that child a round trip to the broker, but no other worker can have it. So
a worker holds what its children run in a few round trips. For tasks under some two milliseconds that is 64 for each
child, beyond which nothing is gained; for long tasks it is what can start now, and other workers get the rest.

While nothing is known of the tasks it is a small number. It grows quickly when tasks turn out to be short, and it
shrinks when they are long. A call that runs for a second is long, although its runtime is not known yet: the child that
runs it needs no other message meanwhile.
"""

import math
from typing import Final

import attrs

#: messages for each child while nothing is known of their tasks
FIRST_PER_CHILD: Final = 4
#: messages for each child, at most; with more of them no-op tasks are not faster
MAX_PER_CHILD: Final = 64
#: AMQP has 16 bits for a prefetch
MAX_HOLD: Final = 65_535
#: round trips during which children have work without a further message
ROUND_TRIPS: Final = 4
#: bounds of that, in seconds: the broker and this process may be busy for some moments, however short the way is
MIN_WINDOW_S: Final = 0.1
MAX_WINDOW_S: Final = 1.0
#: seconds; a call that has run for so long is long
LONG_CALL_S: Final = 1.0
#: seconds between two changes of a queue's hold
MIN_BETWEEN_CHANGES_S: Final = 1.0
#: a hold changes when it should be so many times larger, or smaller; the gap between the two keeps it from swinging
#: with tasks of changing lengths
GROWS_FROM: Final = 1.5
SHRINKS_FROM: Final = 2.0
#: share of the estimate that one call makes
_WEIGHT: Final = 1 / 64
#: seconds of work, beyond the hold, that may wait here after it has shrunk; more goes back to the queue
MAX_SURPLUS_S: Final = 1.0


@attrs.frozen(kw_only=True)
class Children:
    """What the children are doing."""

    #: children that work at once now, and the number to which they may grow
    size: int
    ceiling: int
    #: those of them whose call has run for `LONG_CALL_S`
    on_long_calls: int = 0

    @property
    def can_start(self) -> int:
        """Messages that can start now. One beyond the size can, where the pool may grow: it is what makes it grow."""
        return max(1, self.size, self.ceiling)

    @property
    def free(self) -> int:
        """Children that may want another message soon."""
        return max(0, self.size - self.on_long_calls)


def target(children: Children, runtime: float | None, round_trip: float) -> int:
    """Return how many messages should be held, running ones included.

    :param runtime: seconds that a call of this queue takes on average; None: not known.
    :param round_trip: seconds from an acknowledgement to what the broker sends for it; 0: not known.
    """
    if runtime is None:
        per_child: float = FIRST_PER_CHILD
    else:
        window = min(MAX_WINDOW_S, max(MIN_WINDOW_S, ROUND_TRIPS * round_trip))
        per_child = min(MAX_PER_CHILD, 1 + window / max(runtime, 1e-9))
    busy = children.size - children.free
    return min(MAX_HOLD, max(children.can_start, busy + round(children.free * per_child)))


class QueuePace:
    """The hold of one queue. `note` is called for each call that has ended, `decide` now and then."""

    def __init__(self) -> None:
        #: seconds that a call takes on average, the latest ones counting most; None: none has ended
        self.runtime: float | None = None
        #: messages to hold; 0: nothing was decided yet
        self.hold = 0
        self._changed_at = -math.inf
        #: since when the hold is what it is
        self._since = -math.inf
        #: calls that have ended: in all, and since the hold was changed
        self._ended = 0
        self._ended_since = 0
        #: so many of the latter are enough to grow at once; 0: it cannot grow
        self._enough = 0

    def note(self, runtime: float) -> bool:
        """Record the seconds of one call; return whether `decide` should be called now."""
        self._ended_since += 1
        if self.runtime is None:
            self.runtime, self._ended = runtime, 1
        elif self._ended < 1 / _WEIGHT:
            self._ended += 1
            self.runtime += (runtime - self.runtime) / self._ended
        else:
            self.runtime += (runtime - self.runtime) * _WEIGHT
        return self._ended_since == self._enough

    def decide(self, children: Children, round_trip: float, now: float) -> int:
        """Return how many messages to hold; `hold` is the number of before.

        :param now: monotonic seconds.
        """
        wanted = target(children, self.runtime, round_trip)
        if not self.hold:
            self._set(wanted, children, now)
        elif now - self._changed_at >= MIN_BETWEEN_CHANGES_S:
            chosen = self._choose(wanted, children, now)
            if chosen != self.hold:
                self._changed_at = now
                self._set(chosen, children, now)
        return self.hold

    def _set(self, hold: int, children: Children, now: float) -> None:
        self.hold, self._since = hold, now
        self._ended_since = 0
        most = min(MAX_HOLD, max(children.can_start, children.size * MAX_PER_CHILD))
        self._enough = most if hold * GROWS_FROM <= most else 0

    def _choose(self, wanted: int, children: Children, now: float) -> int:
        hold = self.hold
        if hold < children.can_start:
            return wanted
        if wanted >= hold * GROWS_FROM:
            if self._ended_since >= wanted:
                # As many calls as would be held were short: this is no accident.
                return wanted
            if self._ended_since and now - self._since >= MIN_BETWEEN_CHANGES_S:
                return min(wanted, 2 * hold)
        if wanted * SHRINKS_FROM <= hold or (wanted == children.can_start and self._is_long(children)):
            return wanted
        return hold

    def _is_long(self, children: Children) -> bool:
        return not children.free or (self.runtime is not None and self.runtime >= LONG_CALL_S)

    def gives_back(self, waiting: int, children: Children) -> bool:
        """Tell whether messages that wait here after the hold has shrunk go back, so that other workers can have them.

        :param waiting: how many do, beyond the hold or within it.
        """
        if not children.free:
            return waiting > 0
        return waiting * (self.runtime or 0.0) / children.free > MAX_SURPLUS_S
