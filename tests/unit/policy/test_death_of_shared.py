"""What becomes of the calls of a child that ran several at once, when it dies."""

from collections.abc import Sequence

import attrs
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.death_of_shared import (
    MAX_BESIDE,
    MAX_SUSPECTED,
    Fate,
    SharedDeath,
    fates,
    runs_apart,
)

numbers = st.integers(1, 8)
deaths = st.builds(
    SharedDeath,
    begun=st.dictionaries(numbers, st.booleans()),
    killed_for=st.none() | st.integers(0, 8),
    on_stage=st.integers(0, 8),
    is_apart=st.booleans(),
    with_zygote=st.booleans(),
    is_blamed=st.booleans(),
)


def begun(*calls: int) -> dict[int, bool]:
    """Return calls that had begun and may be started again."""
    return dict.fromkeys(calls, True)


def test_a_call_that_the_child_was_killed_for() -> None:
    """The call for which the parent killed the child is guilty, whoever's code ran; the others were beside it."""
    death = SharedDeath(begun=begun(1, 2, 3), killed_for=2, on_stage=3)
    assert fates(death) == {1: Fate.BESIDE, 2: Fate.GUILTY, 3: Fate.BESIDE}


def test_a_call_whose_code_ran() -> None:
    """A child that dies by itself died of the call whose code ran."""
    death = SharedDeath(begun=begun(1, 2, 3), on_stage=3)
    assert fates(death) == {1: Fate.BESIDE, 2: Fate.BESIDE, 3: Fate.GUILTY}


def test_a_cause_that_has_ended_or_was_given_up() -> None:
    """If the cause is a call that is not among those that are left, all of these were beside it."""
    for death in (
        SharedDeath(begun=begun(1, 2), on_stage=7),
        SharedDeath(begun=begun(1, 2), killed_for=7),
        SharedDeath(begun=begun(1, 2), killed_for=0, on_stage=1),
    ):
        assert fates(death) == {1: Fate.BESIDE, 2: Fate.BESIDE}


def test_a_death_without_a_known_cause() -> None:
    """If no code of a call ran, as in a child with threads, all calls are under suspicion."""
    assert fates(SharedDeath(begun=begun(1, 2))) == {1: Fate.SUSPECT, 2: Fate.SUSPECT}


def test_a_death_apart() -> None:
    """A call that ran alone is guilty of its child's death, unless its parent killed the child for another reason."""
    assert fates(SharedDeath(begun=begun(4), is_apart=True)) == {4: Fate.GUILTY}
    assert fates(SharedDeath(begun=begun(4), is_apart=True, killed_for=0)) == {4: Fate.BESIDE}
    assert fates(SharedDeath(begun=begun(4))) == {4: Fate.SUSPECT}, "alone by chance"


def test_a_zygotes_death() -> None:
    """When the zygote died no call is under suspicion, whoever's code ran; one alone may be found to blame."""
    assert fates(SharedDeath(begun=begun(1, 2), on_stage=1, with_zygote=True, is_blamed=True)) == {
        1: Fate.BESIDE,
        2: Fate.BESIDE,
    }
    assert fates(SharedDeath(begun=begun(4), is_apart=True, with_zygote=True)) == {4: Fate.BESIDE}
    assert fates(SharedDeath(begun=begun(4), is_apart=True, with_zygote=True, is_blamed=True)) == {4: Fate.GUILTY}


def test_calls_that_must_not_run_twice() -> None:
    """A call that must not be started again is lost with its child, whatever the cause."""
    death = SharedDeath(begun={1: False, 2: True, 3: False}, on_stage=3)
    assert fates(death) == {1: Fate.LOST, 2: Fate.BESIDE, 3: Fate.GUILTY}
    assert fates(SharedDeath(begun={1: False, 2: True})) == {1: Fate.LOST, 2: Fate.SUSPECT}


@given(deaths)
def test_each_call_has_one_fate(death: SharedDeath) -> None:
    """Each call that had begun has a fate, at most one is guilty, and none runs again that must not."""
    decided = fates(death)
    assert decided.keys() == death.begun.keys()
    assert sum(fate is Fate.GUILTY for fate in decided.values()) <= 1
    for number, fate in decided.items():
        if not death.begun[number]:
            assert fate in (Fate.LOST, Fate.GUILTY)
        else:
            assert fate is not Fate.LOST


@given(deaths)
def test_only_the_cause_is_guilty(death: SharedDeath) -> None:
    """A call is guilty only if the child was killed for it, its code ran, or it was alone in a child of its own."""
    for number, fate in fates(death).items():
        if fate is Fate.GUILTY:
            is_alone = death.is_apart and len(death.begun) == 1
            is_named = number == (death.on_stage if death.killed_for is None else death.killed_for)
            if death.with_zygote:
                assert is_alone
                assert death.is_blamed
            else:
                assert is_named or (is_alone and death.killed_for is None)


@attrs.define
class Counted:
    """A call, as a lane keeps it."""

    suspected: int = 0
    beside: int = 0
    starts: int = 0
    blamed: int = 0

    def runs_apart(self) -> bool:
        """Tell whether it runs alone from now on."""
        return runs_apart(suspected=self.suspected, beside=self.beside)

    def hears(self, fate: Fate) -> None:
        """Take what a death means for it."""
        self.suspected += fate is Fate.SUSPECT
        self.beside += fate is Fate.BESIDE
        self.blamed += fate is Fate.GUILTY


@given(
    crowds=st.lists(st.integers(1, 6), min_size=8, max_size=8), stages=st.lists(st.booleans(), min_size=8, max_size=8)
)
def test_a_killer_is_found_out(crowds: Sequence[int], stages: Sequence[bool]) -> None:
    """A call that always kills its child is found out after `MAX_SUSPECTED` shared deaths; no neighbour is guilty."""
    killer, shared = Counted(), 0
    for crowd, is_on_stage in zip(crowds, stages, strict=True):
        neighbours = [] if killer.runs_apart() else [Counted() for _ in range(crowd)]
        shared += bool(neighbours)
        calls = dict(enumerate((killer, *neighbours), 1))
        death = SharedDeath(begun=begun(*calls), on_stage=int(is_on_stage), is_apart=killer.runs_apart())
        for number, fate in fates(death).items():
            calls[number].hears(fate)
        assert not any(one.blamed for one in neighbours)
        if killer.blamed:
            break
    assert killer.blamed
    assert shared <= MAX_SUSPECTED + 1, "the last of them named it"
    assert killer.suspected <= MAX_SUSPECTED


@given(st.lists(st.sampled_from([Fate.SUSPECT, Fate.BESIDE]), max_size=20))
def test_starts_beside_others_are_bounded(met: Sequence[Fate]) -> None:
    """A call is started beside others at most once more than the deaths that it may be in."""
    call = Counted()
    for fate in met:
        if call.runs_apart():
            break
        call.starts += 1
        call.hears(fate)
    assert call.starts <= MAX_SUSPECTED + MAX_BESIDE - 1
    assert call.runs_apart() == (call.suspected >= MAX_SUSPECTED or call.beside >= MAX_BESIDE)
