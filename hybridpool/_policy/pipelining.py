"""How many calls may be in a child's channel at once.

One, unless recent calls of that name were short: then so many as are done in some 16 milliseconds, so that the child
never waits for the parent between them, the parent is woken once for many of them, and a call never waits long behind
them.
"""

from typing import Final

#: seconds of work that may lie in a channel
_AHEAD: Final = 0.016
#: seconds under which a call has others behind it; less than `deadline` gives it until they are called back
SHORT: Final = 0.004
MOST: Final = 64
#: names remembered; beyond that the memory starts afresh
_NAMES: Final = 4096


class DurationEstimate:
    """How long calls took lately, by name. It believes bad news at once and good news slowly."""

    def __init__(self) -> None:
        self._recent: dict[str, float] = {}

    def note(self, name: str, runtime: float) -> None:
        """Take in one call's seconds."""
        before = self._recent.get(name)
        if before is None:
            if len(self._recent) >= _NAMES:
                self._recent.clear()
            self._recent[name] = runtime
        elif runtime > before:
            self._recent[name] = runtime
        else:
            self._recent[name] = before + (runtime - before) * 0.25

    def depth(self, name: str) -> int:
        """Return how many calls of this name may be in a channel; 1 while nothing is known."""
        recent = self._recent.get(name)
        if recent is None or recent >= SHORT:
            return 1
        return min(MOST, int(_AHEAD / max(recent, 1e-6)))
