"""Which calls are blamed for a zygote's death."""

from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.death_blame import MAX_REMEMBERED_IDS, MAX_UNBLAMED_DEATHS, DeathBlame

ids = st.sampled_from("abcdef")
crowds = st.lists(ids, unique=True, max_size=6)


def test_a_call_alone_is_to_blame() -> None:
    """A call that was alone at work is blamed for the death of the zygote."""
    assert DeathBlame().assign_blame(["a"], killed_by_us=False) == {"a"}


def test_a_neighbour_is_let_off() -> None:
    """A call that had other neighbours at each death is not blamed."""
    let_off = DeathBlame()
    for neighbour in range(MAX_UNBLAMED_DEATHS):
        assert let_off.assign_blame(["long", f"killer-{neighbour}"], killed_by_us=False) == frozenset()


@given(st.lists(st.tuples(crowds, st.booleans()), max_size=40))
def test_a_call_that_is_always_there_is_blamed_in_the_end(deaths: list[tuple[list[str], bool]]) -> None:
    """A call is let off a bounded number of times, whatever its neighbours and whichever process killed the zygote."""
    let_off, spared = DeathBlame(), 0
    for neighbours, is_ours in deaths:
        at_work = ["killer", *neighbours]
        spared += "killer" not in let_off.assign_blame(at_work, killed_by_us=is_ours)
    assert spared <= MAX_UNBLAMED_DEATHS


@given(st.lists(st.tuples(crowds, st.booleans()), max_size=40))
def test_only_those_at_work_are_blamed(deaths: list[tuple[list[str], bool]]) -> None:
    """Only calls at work are blamed, and with neighbours only after they were let off as often as allowed."""
    let_off, seen = DeathBlame(), dict.fromkeys("abcdef", 0)
    for at_work, is_ours in deaths:
        blamed = let_off.assign_blame(at_work, killed_by_us=is_ours)
        assert blamed <= set(at_work)
        if len(at_work) > 1 or is_ours:
            assert all(seen[one] >= MAX_UNBLAMED_DEATHS for one in blamed)
            for one in set(at_work) - blamed:
                seen[one] += 1


def test_memory_is_bounded() -> None:
    """A bounded number of calls is remembered."""
    let_off = DeathBlame()
    for number in range(2 * MAX_REMEMBERED_IDS):
        let_off.assign_blame([f"{number}", f"{number}'"], killed_by_us=False)
    assert len(let_off._unblamed_deaths) <= MAX_REMEMBERED_IDS


def test_the_last_that_were_let_off_are_remembered() -> None:
    """Of too many calls those are forgotten that were let off longest ago."""
    let_off, others = DeathBlame(), iter(range(2 * MAX_REMEMBERED_IDS))

    def die(one: str) -> frozenset[str]:
        return let_off.assign_blame([one, f"{next(others)}"], killed_by_us=False)

    assert die("a") == frozenset()
    for _ in range(MAX_REMEMBERED_IDS // 2 - 2):
        die("b")
    assert die("a") == frozenset()
    for _ in range(MAX_REMEMBERED_IDS - 5):
        die("b")
    assert die("a") == {"a"}
    assert [die("new") for _ in range(MAX_UNBLAMED_DEATHS + 1)] == [frozenset()] * MAX_UNBLAMED_DEATHS + [{"new"}]
