"""Which tasks must not be run any more."""

from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.revoked import KEEP_S, RevokedTasks

ids = st.text(alphabet="abc", min_size=1, max_size=2)
#: what happens: an id is revoked, and so many seconds pass
stories = st.lists(st.tuples(ids, st.integers(0, 5)), max_size=30)


@given(story=stories, max_ids=st.integers(1, 5), keep=st.integers(1, 10))
def test_within_bounds(story: list[tuple[str, int]], max_ids: int, keep: int) -> None:
    """The newest revocations are kept, up to the maximum number and age."""
    revoked, now, model = RevokedTasks(max_ids, keep), 0.0, dict[str, float]()
    for one, seconds in story:
        revoked.add([one], now)
        model.pop(one, None)
        model[one] = now
        assert revoked.holds(one, now)
        now += seconds
        assert len(revoked) <= max_ids
        expected = {known for known, since in list(model.items())[-max_ids:] if now - since < keep}
        assert {known for known in model if revoked.holds(known, now)} == expected


@given(story=stories, keep=st.integers(1, 10))
def test_another_life_remembers(story: list[tuple[str, int]], keep: int) -> None:
    """Revocations that are saved and loaded are the same."""
    revoked, now = RevokedTasks(100, keep), 0.0
    for one, seconds in story:
        revoked.add([one], now)
        now += seconds
    later = RevokedTasks(100, keep)
    later.load(revoked.all(now), now)
    assert later.all(now) == revoked.all(now)


def test_what_others_tell_does_not_push_out_what_is_newer() -> None:
    """Older revocations of others do not push out newer ones."""
    revoked = RevokedTasks(2, 100.0)
    revoked.add(["new"], 50.0)
    revoked.load({"old": 1.0, "older": 0.0}, 50.0)
    assert set(revoked.all(50.0)) == {"new", "old"}


@given(st.none() | st.floats(), st.integers(1, 10_000))
def test_an_age_that_cannot_be_true(age: float | None, now: int) -> None:
    """A revocation with an absurd age is remembered, and forgotten after the usual time."""
    revoked = RevokedTasks()
    revoked.learn({"id": age}, float(now))
    known = age is not None and KEEP_S <= age < 30 * 86_400
    assert revoked.holds("id", float(now)) is not known
    assert not revoked.holds("id", now + KEEP_S + 1)


def test_what_others_tell_does_not_keep_it_for_ever() -> None:
    """A revocation that workers tell each other again and again is forgotten in its time."""
    one, two = RevokedTasks(), RevokedTasks()
    one.add(["id"], 0.0)
    for now in range(0, 20_000, 100):
        two.learn(one.ages(float(now)), float(now))
        one.learn(two.ages(float(now)), float(now))
    assert not one.holds("id", 20_000.0)
    assert not two.holds("id", 20_000.0)


def test_a_flood_does_not_push_out_what_was_said_here() -> None:
    """Revocations of others fill the free places and push out none of our own."""
    revoked = RevokedTasks(3, 100.0)
    revoked.add(["mine"], 1.0)
    revoked.learn({f"theirs{number}": None for number in range(50)}, 2.0)
    assert revoked.holds("mine", 2.0)
    assert len(revoked) == 3


def test_ids_of_any_size() -> None:
    """An ID of megabytes is remembered in bounded space."""
    revoked, huge = RevokedTasks(), "x" * 4_000_000
    revoked.add([huge], 1.0)
    assert revoked.holds(huge, 2.0)
    assert not revoked.holds(huge + "x", 2.0)
    assert sum(map(len, revoked.all(2.0))) < 300
    later = RevokedTasks()
    later.load(revoked.all(2.0), 2.0)
    assert later.holds(huge, 2.0)


def test_a_clock_that_is_set_back() -> None:
    """A revocation from before the clock was set back is kept no longer than one from now."""
    revoked = RevokedTasks(10, 100.0)
    revoked.add(["id"], 1_000_000.0)
    assert revoked.holds("id", 50.0)
    revoked.add(["other"], 50.0)
    assert not revoked.holds("id", 151.0)
