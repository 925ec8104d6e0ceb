"""Which tasks must not be run any more."""

from hypothesis import given
from hypothesis import strategies as st

from hybridpool.policy.revoked import Revoked

ids = st.text(alphabet="abc", min_size=1, max_size=2)
#: what happens: an id is revoked, and so many seconds pass
stories = st.lists(st.tuples(ids, st.integers(0, 5)), max_size=30)


@given(story=stories, most=st.integers(1, 5), keep=st.integers(1, 10))
def test_within_bounds(story: list[tuple[str, int]], most: int, keep: int) -> None:
    """A worker's memory would grow without end, or it would forget what it has just been told."""
    revoked, now, model = Revoked(most, keep), 0.0, dict[str, float]()
    for one, seconds in story:
        revoked.add([one], now)
        model.pop(one, None)
        model[one] = now
        assert revoked.holds(one, now)
        now += seconds
        assert len(revoked) <= most
        expected = {known for known, since in list(model.items())[-most:] if now - since < keep}
        assert {known for known in model if revoked.holds(known, now)} == expected


@given(story=stories, keep=st.integers(1, 10))
def test_another_life_remembers(story: list[tuple[str, int]], keep: int) -> None:
    """A worker that is restarted would run what was revoked before."""
    revoked, now = Revoked(100, keep), 0.0
    for one, seconds in story:
        revoked.add([one], now)
        now += seconds
    later = Revoked(100, keep)
    later.load(revoked.all(now), now)
    assert later.all(now) == revoked.all(now)


def test_what_others_tell_does_not_push_out_what_is_newer() -> None:
    """A worker that hears old news would forget the latest."""
    revoked = Revoked(2, 100.0)
    revoked.add(["new"], 50.0)
    revoked.load({"old": 1.0, "older": 0.0}, 50.0)
    assert set(revoked.all(50.0)) == {"new", "old"}
