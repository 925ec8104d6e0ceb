"""What may be delivered again though it was dealt with here, because a connection was lost at the wrong moment.

Two kinds come back: what was at work when the connection went, and what was acknowledged so shortly before that the
broker may not have heard it. Each is expected once, for a while; a message that comes back later, or to another worker,
is run again.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from hybridpool.message import Head

T = TypeVar("T")

#: answers that the broker may not have heard; more than a worker has messages in hand
RECENT: Final = 1000
#: seconds; whatever the broker has back it delivers soon, to whoever has room
EXPECTED_FOR: Final = 600.0

#: what tells one delivery of a message from its next attempt: name, id, retries, deaths of its children
Key = tuple[str, str, int, int]


class Comebacks(Generic[T]):
    """Knows again what comes a second time."""

    def __init__(self) -> None:
        self._recent: deque[Head] = deque(maxlen=RECENT)
        #: what is expected, with who has it in hand; None: it is done
        self._expected: dict[Key, T | None] = {}
        self._until = 0.0

    def __len__(self) -> int:
        """How many are expected."""
        return len(self._expected)

    def answered(self, head: Head) -> None:
        """Note that a message was acknowledged for good."""
        self._recent.append(head)
        if self._expected and (key := _key(head)) in self._expected:
            self._expected[key] = None

    def forget(self, head: Head) -> None:
        """Note that the same message, with the same counts, is meant to come again."""
        self._expected.pop(_key(head), None)
        if head in self._recent:
            self._recent.remove(head)

    def lost(self, in_hand: Iterable[tuple[Head, T]], now: float) -> None:
        """Note that the connection went.

        :param in_hand: what is not acknowledged yet, and who has it.
        :param now: monotonic seconds.
        """
        self._drop_old(now)
        self._expected.update((_key(head), None) for head in self._recent)
        self._recent.clear()
        self._expected.update((_key(head), holder) for head, holder in in_hand)
        self._until = now + EXPECTED_FOR

    def claim(self, head: Head, now: float) -> tuple[bool, T | None]:
        """Tell of a message that came back whether it was expected, and who has it in hand; None: it is done."""
        self._drop_old(now)
        key = _key(head)
        if key not in self._expected:
            return False, None
        return True, self._expected.pop(key)

    def _drop_old(self, now: float) -> None:
        if now > self._until:
            self._expected.clear()


def _key(head: Head) -> Key:
    return head.name, head.id, head.retries, head.lost_before
