"""How many calls may be sent to a child before it has answered the first.

One, unless recent calls of that name were short: then as many as take some 16 milliseconds. So the child never waits
for the parent between them, the parent is woken once for many of them, and a call never waits long behind others.
"""

from typing import Final

#: seconds of work that may be queued for a child
_MAX_PIPELINED_S: Final = 0.016
#: seconds under which calls may be queued behind a call; `deadline` recalls them later than that
MAX_SHORT_CALL_S: Final = 0.004
MAX_DEPTH: Final = 64
#: remembered names; beyond that all are forgotten
_MAX_NAMES: Final = 4096


class DurationEstimate:
    """Estimates how long calls take, by name. A longer call counts at once, a shorter one slowly."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def note(self, name: str, runtime: float) -> None:
        """Record the seconds of one call."""
        before = self._seconds.get(name)
        if before is None:
            if len(self._seconds) >= _MAX_NAMES:
                self._seconds.clear()
            self._seconds[name] = runtime
        elif runtime > before:
            self._seconds[name] = runtime
        else:
            self._seconds[name] = before + (runtime - before) * 0.25

    def depth(self, name: str) -> int:
        """Return how many calls of this name may be sent to a child; 1 for an unknown name."""
        recent = self._seconds.get(name)
        if recent is None or recent >= MAX_SHORT_CALL_S:
            return 1
        return min(MAX_DEPTH, int(_MAX_PIPELINED_S / max(recent, 1e-6)))
