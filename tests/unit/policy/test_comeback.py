"""What may be delivered again though it was dealt with."""

from hypothesis import given
from hypothesis import strategies as st

from hybridpool.message import Head
from hybridpool.policy.comeback import EXPECTED_FOR, RECENT, Comebacks


def head(task_id: str = "a", *, retries: int = 0, lost: int = 0) -> Head:
    """Return the head of a message."""
    return Head("shop.add", task_id, None, None, None, retries, None, None, None, None, False, lost)


def test_nothing_is_expected_while_the_connection_holds() -> None:
    """A message given back by us, and delivered again, would be taken for done."""
    comebacks = Comebacks[str]()
    comebacks.answered(head())
    assert comebacks.claim(head(), 0.0) == (False, None)


def test_each_is_expected_once() -> None:
    """A message that a client sends a second time would be dropped."""
    comebacks = Comebacks[str]()
    comebacks.answered(head("done"))
    comebacks.lost([(head("at work"), "holder")], 0.0)
    assert comebacks.claim(head("done"), 1.0) == (True, None)
    assert comebacks.claim(head("done"), 1.0) == (False, None)
    assert comebacks.claim(head("at work"), 1.0) == (True, "holder")
    assert comebacks.claim(head("at work"), 1.0) == (False, None)


def test_expected_after_one_loss_only() -> None:
    """What was acknowledged long ago would be expected after every loss, and a client's second message be dropped."""
    comebacks = Comebacks[str]()
    comebacks.answered(head())
    comebacks.lost([], 0.0)
    assert comebacks.claim(head(), 1.0) == (True, None)
    comebacks.lost([], 2.0)
    assert comebacks.claim(head(), 3.0) == (False, None)


def test_next_attempt_is_another() -> None:
    """A retry, or the run after a child's death, would be dropped."""
    comebacks = Comebacks[str]()
    comebacks.lost([(head(), "holder")], 0.0)
    assert comebacks.claim(head(retries=1), 1.0) == (False, None)
    assert comebacks.claim(head(lost=1), 1.0) == (False, None)
    assert len(comebacks) == 1


def test_done_after_the_loss() -> None:
    """It would be waited for by nobody."""
    comebacks = Comebacks[str]()
    comebacks.lost([(head(), "holder")], 0.0)
    comebacks.answered(head())
    assert comebacks.claim(head(), 1.0) == (True, None)


def test_not_expected_for_ever() -> None:
    """A dead letter that an operator sends again would be dropped an hour later."""
    comebacks = Comebacks[str]()
    comebacks.lost([(head(), "holder")], 0.0)
    assert comebacks.claim(head(), EXPECTED_FOR + 1.0) == (False, None)
    assert not len(comebacks)


def test_meant_to_come_again() -> None:
    """A message that is given back would be taken for done."""
    comebacks = Comebacks[str]()
    message = head()
    comebacks.answered(message)
    comebacks.forget(message)
    comebacks.lost([], 0.0)
    assert comebacks.claim(message, 1.0) == (False, None)
    comebacks.lost([(message, "holder")], 0.0)
    comebacks.forget(message)
    assert comebacks.claim(message, 1.0) == (False, None)


@given(st.integers(0, 3 * RECENT))
def test_memory_is_bounded(count: int) -> None:
    """A worker would remember every task that it ever ran."""
    comebacks = Comebacks[str]()
    for number in range(count):
        comebacks.answered(head(str(number)))
    comebacks.lost([], 0.0)
    assert len(comebacks) == min(count, RECENT)
    assert not count or comebacks.claim(head(str(count - 1)), 0.0) == (True, None)
