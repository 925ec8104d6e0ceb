"""How many calls may be in a child's channel at once.

One, unless recent calls of that name were short: then so many as are done in some 16 milliseconds, so that the child
never waits for the parent between them, the parent is woken once for many of them, and a call never waits long behind
them.
"""

from typing import Final

#: seconds of work that may lie in a channel
_MAX_PIPELINED_S: Final = 0.016
#: seconds under which a call has others behind it; less than `deadline` gives it until they are called back
MAX_SHORT_CALL_S: Final = 0.004
MAX_DEPTH: Final = 64
#: names remembered; beyond that the memory starts afresh
_MAX_NAMES: Final = 4096


class DurationEstimate:
    """How long calls took lately, by name. It believes bad news at once and good news slowly."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def note(self, name: str, runtime: float) -> None:
        """Take in one call's seconds."""
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
        """Return how many calls of this name may be in a channel; 1 while nothing is known."""
        recent = self._seconds.get(name)
        if recent is None or recent >= MAX_SHORT_CALL_S:
            return 1
        return min(MAX_DEPTH, int(_MAX_PIPELINED_S / max(recent, 1e-6)))
