"""The acknowledgement ledger of one channel: which deliveries are out, and how little must be said to settle them.

It promises that the broker hears each settled tag exactly once, that tags settled without a gap from the lowest one
still out leave as one answer with ``multiple``, and that such an answer never covers a tag which is not settled or
is settled the other way. Every call is O(1) amortised. What it keeps is bounded by the deliveries that are out, also
when one is out for long beside many that come and go. It sends nothing.
"""

import enum
from collections import deque
from typing import Final, NamedTuple

#: tags that are settled and kept, beyond as many as there are of deliveries out
MAX_SETTLED: Final = 256


class Answer(enum.Enum):
    """What became of a delivery."""

    ACK = "ack"
    #: back to its place in the queue
    REQUEUE = "requeue"
    #: dropped, or dead-lettered if its queue says so
    REJECT = "reject"


class WireAnswer(NamedTuple):
    """One frame to send; ``multiple`` covers every tag up to and including ``tag`` that was not answered before."""

    kind: Answer
    tag: int
    multiple: bool


class Ledger:
    """Deliveries of one channel from their arrival to the answer."""

    def __init__(self) -> None:
        #: tags from the lowest unsettled one up, in order of arrival; the head is popped once it is settled, and what
        #: was settled behind an unsettled head is left out now and then
        self._order: deque[int] = deque()
        #: no answer yet, for the tags still out; the answer, from `settle` until its frame is taken
        self._answers: dict[int, Answer | None] = {}
        #: settled since the last `take`
        self._fresh: list[int] = []

    def __len__(self) -> int:
        """How many deliveries are not settled."""
        return len(self._answers) - len(self._fresh)

    @property
    def is_waiting(self) -> bool:
        """Whether `take` would return anything."""
        return bool(self._fresh)

    def delivered(self, tag: int) -> None:
        """Note a delivery. Tags of one channel only rise."""
        self._order.append(tag)
        self._answers[tag] = None

    def settle(self, tag: int, answer: Answer) -> bool:
        """Note the answer to a delivery; tell whether it counts.

        The first answer wins: a second one for the same tag, or one for a tag never delivered, is refused, because a
        broker closes the channel on either.
        """
        if self._answers.get(tag, answer) is not None:
            return False
        self._answers[tag] = answer
        self._fresh.append(tag)
        return True

    def take(self) -> list[WireAnswer]:
        """Return the answers to send now, in the order in which they must be sent, and forget them."""
        if not self._fresh:
            return []
        frames = self._take_head()
        answers = self._answers
        for tag in self._fresh:
            answer = answers.pop(tag, None)
            if answer is not None:
                frames.append(WireAnswer(answer, tag, False))
        self._fresh.clear()
        if len(self._order) > 2 * len(answers) + MAX_SETTLED:
            # at least half of it goes, so each tag is looked at once or twice in all
            self._order = deque(tag for tag in self._order if tag in answers)
        return frames

    def _take_head(self) -> list[WireAnswer]:
        """Pop everything settled at the head, as runs of one kind.

        A tag that left alone earlier is in ``_order`` but no longer in ``_answers``: a run may pass over it, since the
        broker does not have it out any more.
        """
        frames: list[WireAnswer] = []
        order, answers = self._order, self._answers
        kind: Answer | None = None
        last = length = 0
        while order:
            tag = order[0]
            if tag in answers:
                answer = answers[tag]
                if answer is None:
                    break
                if answer is not kind:
                    if kind is not None:
                        frames.append(WireAnswer(kind, last, length > 1))
                    kind, length = answer, 0
                del answers[tag]
                last = tag
                length += 1
            order.popleft()
        if kind is not None:
            frames.append(WireAnswer(kind, last, length > 1))
        return frames
