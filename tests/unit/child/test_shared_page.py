"""The page that parent and child share."""

import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._ipc import frames
from hybridpool._ipc.frames import Done, Returned
from hybridpool._ipc.shared_page import SharedPage


def done(seq: int, value: bytes = b"5") -> Done:
    """Return an outcome."""
    return Done(seq, Returned(value, ""), 0.5, 0)


@pytest.fixture
def pair() -> Iterator[tuple[SharedPage, SharedPage]]:
    """Return the parent's and the child's view of one page."""
    with_both = made()
    yield with_both
    for shared_page in with_both:
        shared_page.close()


def made() -> tuple[SharedPage, SharedPage]:
    """Make a page and look at it twice."""
    parent, descriptor = SharedPage.make()
    child = SharedPage(descriptor)
    os.close(descriptor)
    return parent, child


def test_a_new_one_says_nothing(pair: tuple[SharedPage, SharedPage]) -> None:
    """A new page has no call and no outcome."""
    parent, child = pair
    assert parent.read() == (0, [])
    assert child.count == 0


def test_survives_the_child(pair: tuple[SharedPage, SharedPage]) -> None:
    """Outcomes on the page can be read after the child has died."""
    parent, child = pair
    child.start(1)
    assert child.add(frames.pack(done(1)))
    child.start(2)
    assert parent.read() == (2, [done(1)])


def test_what_was_sent_is_not_said_again(pair: tuple[SharedPage, SharedPage]) -> None:
    """Outcomes that were sent are cleared."""
    parent, child = pair
    for seq in (1, 2):
        child.start(seq)
        child.add(frames.pack(done(seq)))
    assert frames.read_from_child(child.message()) == [done(1), done(2)]
    child.clear()
    assert (child.count, parent.read()) == (0, (2, []))
    child.add(frames.pack(done(3)))
    assert parent.read() == (2, [done(3)])


def test_is_looked_at_meanwhile(pair: tuple[SharedPage, SharedPage]) -> None:
    """The parent can read the page while the child writes to it."""
    parent, child = pair
    child.start(7)
    assert (parent.at_work, parent.pending_outcomes()) == (7, [])
    child.add(frames.pack(done(7)))
    assert parent.pending_outcomes() == [done(7)]
    child.clear()
    assert parent.pending_outcomes() == []


def test_nothing_is_taken_while_it_changes() -> None:
    """A page that changes while it is read gives no outcome."""
    parent, descriptor = SharedPage.make()
    child = SharedPage(descriptor)

    class Changing(mmap.mmap):
        """A page on which the child writes between two looks of the parent."""

        def __getitem__(self, at: Any) -> Any:
            copy = super().__getitem__(at)
            child.clear()
            child.add(frames.pack(done(2)))
            return copy

    child.add(frames.pack(done(1)))
    parent.close()
    parent._page = Changing(descriptor, 2 * mmap.PAGESIZE)
    os.close(descriptor)
    assert parent.pending_outcomes() == []
    assert child.read() == (0, [done(2)])
    parent.close()
    child.close()


def test_what_is_too_large(pair: tuple[SharedPage, SharedPage]) -> None:
    """An outcome that is larger than the page is refused."""
    parent, child = pair
    child.start(1)
    child.add(frames.pack(done(1)))
    assert not child.add(frames.pack(done(2, b"x" * 100_000)))
    assert parent.read() == (1, [done(1)])


def test_fills_up(pair: tuple[SharedPage, SharedPage]) -> None:
    """A full page refuses further outcomes and keeps the others."""
    parent, child = pair
    seq = 0
    while child.add(frames.pack(done(seq, b"x" * 100))):
        seq += 1
    assert seq == child.count > 50
    assert parent.read()[1] == frames.read_from_child(child.message()) == [done(n, b"x" * 100) for n in range(seq)]


@given(steps=st.lists(st.binary(max_size=3000) | st.none(), max_size=30), seq=st.integers(0, 2**64 - 1))
def test_parent_reads_what_child_wrote(steps: list[bytes | None], seq: int) -> None:
    """The parent reads at each moment what the child has written and not cleared."""
    parent, child = made()
    noted: list[Done] = []
    child.start(seq)
    for number, step in enumerate(steps):
        if step is None:
            child.clear()
            noted = []
        elif child.add(frames.pack(done(number, step))):
            noted.append(done(number, step))
        assert parent.read() == (seq, noted)
        assert child.count == len(noted)
    parent.close()
    child.close()


def test_is_closed_with_both_ends() -> None:
    """A page is closed with its descriptor."""
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208  # descriptors, not files
    for shared_page in made():
        shared_page.close()
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
