"""The life of a child, by its table."""

import itertools

import pytest

from hybridpool._policy.lifecycle import TABLE, ChildEvent, InvalidTransition, State, transition

STEPS = [(state, event) for state in State for event in ChildEvent]


def test_every_state_has_a_row() -> None:
    """Every state has a row in the table."""
    assert set(TABLE) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state is not State.GONE])
def test_death_is_always_possible(state: State) -> None:
    """A child can exit in every state but GONE."""
    assert transition(state, ChildEvent.EXIT) is State.GONE


def test_nothing_happens_to_the_dead() -> None:
    """Nothing can happen to a child that is gone."""
    assert not TABLE[State.GONE]


def test_only_idle_children_are_called() -> None:
    """Only an idle child can be given a call."""
    assert [state for state in State if ChildEvent.CALL in TABLE[state]] == [State.IDLE]


def test_no_way_back() -> None:
    """A retiring child stays retiring until it is gone, and no state leads back to STARTING."""
    reached = {State.RETIRING: State.RETIRING}
    assert {TABLE[State.RETIRING][event] for event in TABLE[State.RETIRING]} == {*reached, State.GONE}
    assert all(State.STARTING not in row.values() for row in TABLE.values())


@pytest.mark.parametrize("state", [State.STARTING, State.IDLE, State.BUSY])
def test_all_can_retire(state: State) -> None:
    """Every living child can retire."""
    assert transition(state, ChildEvent.RETIRE) is State.RETIRING


def test_a_usual_life() -> None:
    """An ordinary life goes through its states."""
    state = State.STARTING
    usual = [ChildEvent.READY, *(ChildEvent.CALL, ChildEvent.DONE) * 2, ChildEvent.RETIRE, ChildEvent.EXIT]
    seen = [state := transition(state, event) for event in usual]
    assert [state.value for state in seen] == ["idle", "busy", "idle", "busy", "idle", "retiring", "gone"]


@pytest.mark.parametrize(("state", "event"), STEPS)
def test_what_is_not_in_the_table_raises(state: State, event: ChildEvent) -> None:
    """A step that is not in the table raises ImpossibleStep."""
    if event in TABLE[state]:
        assert transition(state, event) is TABLE[state][event]
        return
    with pytest.raises(InvalidTransition, match=f"a child that is {state.value} cannot get the event '{event.value}'"):
        transition(state, event)


def test_every_state_can_be_reached() -> None:
    """Every state can be reached."""
    reached = {State.STARTING}
    for _ in State:
        reached |= set(itertools.chain.from_iterable(TABLE[state].values() for state in reached))
    assert reached == set(State)
