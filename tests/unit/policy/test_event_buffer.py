"""The buffer of events: bounded, in order, the newest are kept."""

from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.event_buffer import EventBuffer

events = st.lists(st.binary(min_size=1, max_size=30), max_size=40)


@given(added=events, limit=st.integers(1, 200))
def test_newest_stay(added: list[bytes], limit: int) -> None:
    """The newest events stay, in order, as many as fit; the others are counted."""
    buffer = EventBuffer(limit)
    for event in added:
        buffer.add(event)
    kept = buffer.take(1000)
    assert kept == (added[-len(kept) :] if kept else [])
    assert sum(map(len, kept)) <= limit
    assert buffer.dropped == len(added) - len(kept)
    if len(kept) < len(added) and len(added[-len(kept) - 1]) <= limit:
        assert sum(map(len, added[-len(kept) - 1 :])) > limit


@given(added=events, later=events, count=st.integers(0, 50), limit=st.integers(1, 300))
def test_put_back(added: list[bytes], later: list[bytes], count: int, limit: int) -> None:
    """Events that are put back keep their place and never push newer ones out."""
    buffer = EventBuffer(limit)
    for event in added:
        buffer.add(event)
    waited = added[buffer.dropped :]
    taken = buffer.take(count)
    assert taken == waited[:count]
    for event in later:
        buffer.add(event)
    dropped = buffer.dropped
    rest = buffer.take(1000)
    for event in rest:
        buffer.add(event)
    buffer.put_back(taken)
    returned = len(taken) - (buffer.dropped - dropped)
    assert buffer.take(1000) == [*taken[len(taken) - returned :], *rest]


def test_put_back_drops_oldest() -> None:
    """If there is no room for all that is put back, the oldest of it are dropped."""
    buffer = EventBuffer(4)
    buffer.add(b"dd")
    buffer.put_back([b"a", b"b", b"c"])
    assert (buffer.take(9), buffer.dropped) == ([b"b", b"c", b"dd"], 1)
