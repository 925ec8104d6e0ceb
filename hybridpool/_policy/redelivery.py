"""Which messages the broker may deliver again although they were run here: a connection was lost in between.

Two kinds come back: messages whose tasks ran when the connection was lost, and messages that were acknowledged so
shortly before that the broker may not have read it. Each is expected once, for a while; a message that comes back
later, or to another worker, is run again.

A message that is not among them must not be mistaken for one of them: it would be acknowledged and not run. A caller
may choose the id of a task, and use it twice; a dead letter that is sent back has the counts of its first delivery. So
a message is expected only if the broker may not have read its acknowledgement, each for a time of its own, and not
under the key of a message that was seen since.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, TypeVar

from hybridpool._message import Head

S = TypeVar("S")
T = TypeVar("T")

#: seconds; the broker delivers a requeued message soon, to a consumer that has room
EXPECTED_FOR: Final = 600.0

#: what distinguishes a delivery of a message from its next attempt: name, id, retries, deaths of children, and further
#: values of the caller's
Key = tuple[object, ...]


def head_key(head: Head) -> Key:
    """Return what distinguishes a delivery from its next attempt, by its head alone."""
    return head.name, head.id, head.retries, head.lost_before


class ExpectedRedeliveries(Generic[S, T]):
    """Recognises messages that come a second time.

    `S` identifies a message; its key is made only when a connection was lost, because acknowledgements are many.
    """

    def __init__(
        self, key_of: Callable[[Any], Key] = head_key, id_of: Callable[[Any], str] = lambda head: head.id
    ) -> None:
        """Expect nothing yet.

        :param key_of: what distinguishes one message from another; it may be expensive, as a hash of the whole message.
        :param id_of: the id of its task; it is cheap, and looked up first.
        """
        self._key_of = key_of
        self._id_of = id_of
        #: messages whose acknowledgement the broker may not have read: given since the last request, and before it
        self.fresh: list[S] = []
        self._asked: list[S] = []
        #: expected messages, in the order of the end of that: when, and the run in progress; None: it is done
        self._expected: dict[Key, list[tuple[float, T | None]]] = {}
        #: ids of all of these, and perhaps of some that are not expected any more
        self.ids: set[str] = set()

    def __len__(self) -> int:
        """How many are expected."""
        return sum(map(len, self._expected.values()))

    @property
    def is_unsure(self) -> bool:
        """Whether the broker may not have read every acknowledgement."""
        return bool(self.fresh or self._asked)

    def answered(self, message: S) -> None:
        """Note that a message was acknowledged for good."""
        if self._may_expect(message) and self._ends_one_in_hand(self._key_of(message)):
            return
        self.fresh.append(message)

    def _may_expect(self, message: S) -> bool:
        """Tell whether a message can be one of the expected: after an outage all others come here as well."""
        return bool(self.ids) and self._id_of(message) in self.ids

    def _ends_one_in_hand(self, key: Key) -> bool:
        """Note that a run in progress has ended, if there is one: its message is the broker's, and comes again."""
        for at, (until, holder) in enumerate(self._expected.get(key, ())):
            if holder is not None:
                self._expected[key][at] = until, None
                return True
        return False

    def ask(self) -> None:
        """Note that a request is sent now; its answer tells nothing of later acknowledgements."""
        self._asked += self.fresh
        self.fresh = []

    def heard(self) -> None:
        """Note that the last request was answered: the broker has read every acknowledgement before it."""
        self._asked = []

    def forget(self, message: S) -> None:
        """Note that the same message, with the same counts, is to come again and be run."""
        if self._may_expect(message):
            self._expected.pop(self._key_of(message), None)

    def lost(self, in_hand: Iterable[tuple[S, T]], now: float, *, waiting: Iterable[S] = ()) -> None:
        """Note that the connection was lost, or that an attempt to make another failed.

        :param in_hand: messages that are not acknowledged yet, and the run of each.
        :param now: monotonic seconds.
        :param waiting: messages that were here and not begun: they come again, and must be run.
        """
        self._drop_old(now)
        unheard, self._asked, self.fresh = [*self._asked, *self.fresh], [], []
        for message in unheard:
            self._expect(message, now, None)
        for message, holder in in_hand:
            self._expect(message, now, holder)
        for message in waiting:
            self.renewed(message)

    def _expect(self, message: S, now: float, holder: T | None) -> None:
        """Expect one more message.

        `lost` is called again after each attempt to connect that fails, and each run is expected only once. So a run in
        progress stays expected for as long as there is no connection.
        """
        key = self._key_of(message)
        self.ids.add(self._id_of(message))
        others = [
            one for one in self._expected.pop(key, ()) if one[0] >= now and (holder is None or one[1] is not holder)
        ]
        # taken out and put back, so that what ends first stands first
        self._expected[key] = [*others, (now + EXPECTED_FOR, holder)]

    def renewed(self, message: S) -> None:
        """Note another message of the same id and counts: one that is done under that key is not expected any more."""
        if not self._may_expect(message):
            return
        key = self._key_of(message)
        held = [one for one in self._expected.get(key, ()) if one[1] is not None]
        if held:
            self._expected[key] = held
        else:
            self._expected.pop(key, None)

    def claim(self, message: S, now: float) -> tuple[bool, T | None]:
        """Tell of a message that came back whether it was expected, and which run it belongs to; None: it is done.

        A run in progress is served first: it needs a message to acknowledge.
        """
        self._drop_old(now)
        if not self._may_expect(message):
            return False, None
        key = self._key_of(message)
        expected = [one for one in self._expected.get(key, ()) if one[0] >= now]
        if not expected:
            return False, None
        at = next((at for at, (_, holder) in enumerate(expected) if holder is not None), 0)
        _, holder = expected.pop(at)
        if expected:
            self._expected[key] = expected
        else:
            del self._expected[key]
        return True, holder

    def _drop_old(self, now: float) -> None:
        """Drop messages that have been expected for too long. A key stands where its last entry was put."""
        old: list[Key] = []
        for key, expected in self._expected.items():
            if expected[-1][0] >= now:
                break
            old.append(key)
        for key in old:
            del self._expected[key]
        if not self._expected:
            self.ids.clear()


class Excuses:
    """Messages that came back only because the connection was lost while they waited here.

    A quorum queue counts each return and drops the message after 20; it cannot distinguish them from the returns of a
    message that brings down its workers.
    """

    def __init__(self) -> None:
        #: how many times in a row, and until when that is remembered; in the order of that time
        self._counts: dict[Key, tuple[int, float]] = {}

    def add(self, key: Key, count: int, now: float) -> None:
        """Note that a message waited here when the connection was lost.

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
        """Return how many returns of a message that came back are excused, and forget them."""
        count, until = self._counts.pop(key, (0, 0.0))
        return count if until >= now else 0
