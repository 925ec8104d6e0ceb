"""The acknowledgement ledger of one channel: the unsettled deliveries, and the fewest frames that settle them.

Guarantees: each settled tag is acknowledged exactly once; tags that are settled without a gap from the lowest unsettled
one are acknowledged by one frame with ``multiple``; such a frame never covers a tag that is unsettled or settled
differently. Each call is O(1) amortised. Memory is bounded by the number of unsettled deliveries, also when one stays
unsettled for long beside many others. The ledger does no I/O.
"""

import enum
from collections import deque
from typing import Final, NamedTuple

#: settled tags that are kept, beyond the number of unsettled deliveries
MAX_SETTLED_TAGS: Final = 256


class Answer(enum.Enum):
    """How a delivery was settled."""

    ACK = "ack"
    #: back to its place in the queue
    REQUEUE = "requeue"
    #: dropped, or dead-lettered if its queue says so
    REJECT = "reject"


class AckFrame(NamedTuple):
    """One frame to send; ``multiple`` covers every tag up to and including ``tag`` that was not answered before."""

    kind: Answer
    tag: int
    multiple: bool


class Ledger:
    """Deliveries of one channel from their arrival to the answer."""

    def __init__(self) -> None:
        #: tags from the lowest unsettled one up, in order of arrival; the head is popped once it is settled, and tags
        #: that were settled behind an unsettled head are removed from time to time
        self._order: deque[int] = deque()
        #: None for unsettled tags; the answer, from `settle` until its frame is taken
        self._answers: dict[int, Answer | None] = {}
        #: settled since the last `take`
        self._newly_settled: list[int] = []

    def __len__(self) -> int:
        """How many deliveries are not settled."""
        return len(self._answers) - len(self._newly_settled)

    @property
    def is_waiting(self) -> bool:
        """Whether `take` would return a frame."""
        return bool(self._newly_settled)

    def delivered(self, tag: int) -> None:
        """Record a delivery. The tags of a channel only rise."""
        self._order.append(tag)
        self._answers[tag] = None

    def settle(self, tag: int, answer: Answer) -> bool:
        """Record the answer to a delivery; return whether it counts.

        The first answer wins: a second one for the same tag, or one for a tag never delivered, is refused, because a
        broker closes the channel on either.
        """
        if self._answers.get(tag, answer) is not None:
            return False
        self._answers[tag] = answer
        self._newly_settled.append(tag)
        return True

    def take(self) -> list[AckFrame]:
        """Return the frames to send now, in the order in which they must be sent, and forget them."""
        if not self._newly_settled:
            return []
        frames = self._take_head()
        answers = self._answers
        for tag in self._newly_settled:
            answer = answers.pop(tag, None)
            if answer is not None:
                frames.append(AckFrame(answer, tag, False))
        self._newly_settled.clear()
        if len(self._order) > 2 * len(answers) + MAX_SETTLED_TAGS:
            # at least half of it goes, so each tag is looked at once or twice in all
            self._order = deque(tag for tag in self._order if tag in answers)
        return frames

    def _take_head(self) -> list[AckFrame]:
        """Pop everything settled at the head, as runs of one kind.

        A tag that was acknowledged alone earlier is in ``_order`` but not in ``_answers``: a run may cover it, as the
        broker has settled it.
        """
        frames: list[AckFrame] = []
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
                        frames.append(AckFrame(kind, last, length > 1))
                    kind, length = answer, 0
                del answers[tag]
                last = tag
                length += 1
            order.popleft()
        if kind is not None:
            frames.append(AckFrame(kind, last, length > 1))
        return frames
