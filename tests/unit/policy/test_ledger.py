"""The acknowledgement ledger, by example."""

import pytest

from hybridpool._policy.ledger import MAX_SETTLED_TAGS, AckFrame, Answer, Ledger

ACK, REQUEUE = Answer.ACK, Answer.REQUEUE


def ledger(last: int) -> Ledger:
    """Return a ledger with deliveries 1 to ``last`` out."""
    made = Ledger()
    for tag in range(1, last + 1):
        made.delivered(tag)
    return made


def settled(made: Ledger, *tags: int, answer: Answer = ACK) -> Ledger:
    """Settle the tags in this order."""
    for tag in tags:
        assert made.settle(tag, answer)
    return made


@pytest.mark.parametrize(
    ("tags", "frames"),
    [
        ([], []),
        ([1], [AckFrame(ACK, 1, False)]),
        ([1, 2, 3], [AckFrame(ACK, 3, True)]),
        ([3, 1, 2], [AckFrame(ACK, 3, True)]),
        ([2, 3], [AckFrame(ACK, 2, False), AckFrame(ACK, 3, False)]),
        ([1, 2, 4], [AckFrame(ACK, 2, True), AckFrame(ACK, 4, False)]),
    ],
)
def test_acks_leave_together_only_from_the_lowest(tags: list[int], frames: list[AckFrame]) -> None:
    """Acknowledgements leave as one frame only from the lowest tag on."""
    assert settled(ledger(5), *tags).take() == frames


def test_requeues_split_a_run() -> None:
    """A requeue splits a run of acknowledgements."""
    made = settled(ledger(6), 1, 2, 5)
    settled(made, 3, 4, answer=REQUEUE)
    assert made.take() == [AckFrame(ACK, 2, True), AckFrame(REQUEUE, 4, True), AckFrame(ACK, 5, False)]


def test_run_passes_over_what_left_alone() -> None:
    """A run includes the tags that left alone before."""
    made = settled(ledger(5), 2)
    assert made.take() == [AckFrame(ACK, 2, False)]
    assert settled(made, 1, 3).take() == [AckFrame(ACK, 3, True)]


def test_nothing_is_said_twice() -> None:
    """A tag is answered only once."""
    made = settled(ledger(2), 1)
    assert not made.settle(1, ACK)
    assert not made.settle(1, REQUEUE)
    assert made.take() == [AckFrame(ACK, 1, False)]
    assert not made.settle(1, ACK)
    assert made.take() == []


def test_unknown_tag_is_refused() -> None:
    """An unknown tag is refused."""
    assert not ledger(1).settle(2, ACK)


def test_counts_what_is_out() -> None:
    """The ledger's length counts the deliveries without an answer on the wire."""
    made = settled(ledger(3), 2)
    assert (len(made), made.is_waiting) == (2, True)
    made.take()
    assert (len(made), made.is_waiting) == (2, False)


def test_work_grows_with_messages_only() -> None:
    """The work grows with the messages only, however long the lowest one runs."""
    made = ledger(20_000)
    frames = 0
    for tag in range(2, 20_001):
        made.settle(tag, ACK)
        frames += len(made.take())
    assert frames == 19_999
    assert settled(made, 1).take() == [AckFrame(ACK, 1, False)]
    assert len(made) == 0


def test_memory_of_one_that_is_out_for_long() -> None:
    """A long delivery beside many short ones keeps a bounded number of their tags."""
    ledger = Ledger()
    ledger.delivered(1)
    for tag in range(2, 100_000):
        ledger.delivered(tag)
        ledger.settle(tag, Answer.ACK)
        assert ledger.take() == [AckFrame(Answer.ACK, tag, False)]
        assert len(ledger._order) <= 2 + MAX_SETTLED_TAGS + 1
    ledger.settle(1, Answer.ACK)
    assert ledger.take() == [AckFrame(Answer.ACK, 1, False)]
