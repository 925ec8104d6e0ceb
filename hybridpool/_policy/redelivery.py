"""What may be delivered again though it was dealt with here, because a connection was lost at the wrong moment.

Two kinds come back: what was at work when the connection went, and what was acknowledged so shortly before that the
broker may not have heard it. Each is expected once, for a while; a message that comes back later, or to another worker,
is run again.

A message that is not among them must not be taken for one of them: it would be acknowledged unrun. A caller may choose
the id of a task, and use it twice; a dead letter that is sent back has the counts of its first delivery. So only those
answers are expected that the broker may not have heard, each for a time of its own, and none under the key of a message
that was seen since.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, TypeVar

from hybridpool._message import Head

S = TypeVar("S")
T = TypeVar("T")

#: seconds; whatever the broker has back it delivers soon, to whoever has room
EXPECTED_FOR: Final = 600.0

#: what tells one delivery of a message from its next attempt: name, id, retries, deaths of its children, and what else
#: the caller knows
Key = tuple[object, ...]


def head_key(head: Head) -> Key:
    """Return what tells a delivery from its next attempt, by its head alone."""
    return head.name, head.id, head.retries, head.lost_before


class ExpectedRedeliveries(Generic[S, T]):
    """Knows again what comes a second time.

    `S` is what a message is known by; its key is made only when a connection was lost, because answers are many.
    """

    def __init__(self, key_of: Callable[[Any], Key] = head_key) -> None:
        """:param key_of: what tells one message from another."""
        self._key_of = key_of
        #: answers that the broker may not have heard: given since it was last asked, and given before
        self._fresh: list[S] = []
        self._asked: list[S] = []
        #: what is expected, in the order of its end: that time, and who has it in hand; None: it is done
        self._expected: dict[Key, list[tuple[float, T | None]]] = {}

    def __len__(self) -> int:
        """How many are expected."""
        return sum(map(len, self._expected.values()))

    @property
    def is_expecting(self) -> bool:
        """Whether anything is expected."""
        return bool(self._expected)

    @property
    def is_unsure(self) -> bool:
        """Whether the broker may not have heard every answer."""
        return bool(self._fresh or self._asked)

    def answered(self, message: S) -> None:
        """Note that a message was acknowledged for good."""
        if self._expected and self._ends_one_in_hand(self._key_of(message)):
            return
        self._fresh.append(message)

    def _ends_one_in_hand(self, key: Key) -> bool:
        """Note that one of those in hand is done, if one is: its message is not here, and comes again."""
        for at, (until, holder) in enumerate(self._expected.get(key, ())):
            if holder is not None:
                self._expected[key][at] = until, None
                return True
        return False

    def ask(self) -> None:
        """Note that the broker is asked now; what is answered later it may not have heard when it speaks."""
        self._asked += self._fresh
        self._fresh = []

    def heard(self) -> None:
        """Note that the broker has heard every answer before it was last asked."""
        self._asked = []

    def forget(self, message: S) -> None:
        """Note that the same message, with the same counts, is meant to come again."""
        self._expected.pop(self._key_of(message), None)

    def lost(self, in_hand: Iterable[tuple[S, T]], now: float, *, waiting: Iterable[S] = ()) -> None:
        """Note that the connection went.

        :param in_hand: what is not acknowledged yet, and who has it.
        :param now: monotonic seconds.
        :param waiting: messages that were here and not begun: they come again, and must be run.
        """
        self._drop_old(now)
        unheard, self._asked, self._fresh = [*self._asked, *self._fresh], [], []
        for message in unheard:
            self._expect(self._key_of(message), now, None)
        for message, holder in in_hand:
            self._expect(self._key_of(message), now, holder)
        for message in waiting:
            self.renewed(message)

    def _expect(self, key: Key, now: float, holder: T | None) -> None:
        """Expect one more message.

        The connection is lost once, and so it is said after each attempt to get another: who has a message in hand has
        it once.
        """
        others = [
            one for one in self._expected.pop(key, ()) if one[0] >= now and (holder is None or one[1] is not holder)
        ]
        # taken out and put back, so that what ends first stands first
        self._expected[key] = [*others, (now + EXPECTED_FOR, holder)]

    def renewed(self, message: S) -> None:
        """Note another message of the same id and counts: what is done under that key is expected no more."""
        key = self._key_of(message)
        held = [one for one in self._expected.get(key, ()) if one[1] is not None]
        if held:
            self._expected[key] = held
        else:
            self._expected.pop(key, None)

    def claim(self, message: S, now: float) -> tuple[bool, T | None]:
        """Tell of a message that came back whether it was expected, and who has it in hand; None: it is done.

        What is in hand is claimed first: its run goes on, and needs a message to acknowledge.
        """
        self._drop_old(now)
        key = self._key_of(message)
        expected = self._expected.get(key)
        if expected is None:
            return False, None
        at = next((at for at, (_, holder) in enumerate(expected) if holder is not None), 0)
        _, holder = expected.pop(at)
        if not expected:
            del self._expected[key]
        return True, holder

    def _drop_old(self, now: float) -> None:
        """Drop what has been expected for too long. A key stands where its last entry was put."""
        old: list[Key] = []
        for key, expected in self._expected.items():
            if expected[-1][0] >= now:
                break
            old.append(key)
        for key in old:
            del self._expected[key]


class Excuses:
    """Messages that came back through no fault of theirs: they waited here, and the connection was lost.

    A quorum queue counts each return, drops the message after 20, and cannot tell these from the returns of a message
    that brings down whoever takes it.
    """

    def __init__(self) -> None:
        #: how often, and until when it is remembered; in the order of that
        self._counts: dict[Key, tuple[int, float]] = {}

    def add(self, key: Key, count: int, now: float) -> None:
        """Note that a message waited here when the connection went.

        :param count: times in a row, this one included.
        """
        while self._counts:
            oldest = next(iter(self._counts))
            if self._counts[oldest][1] >= now:
                break
            del self._counts[oldest]
        self._counts.pop(key, None)
        self._counts[key] = count, now + EXPECTED_FOR

    def claim(self, key: Key, now: float) -> int:
        """Tell of a message that came back how often that is excused, and forget it."""
        count, until = self._counts.pop(key, (0, 0.0))
        return count if until >= now else 0
