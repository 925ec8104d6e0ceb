"""The life of a child, by its table."""

import itertools

import pytest

from hybridpool._policy.lifecycle import TABLE, ChildEvent, InvalidTransition, State, transition

STEPS = [(state, event) for state in State for event in ChildEvent]


def test_every_state_has_a_row() -> None:
    """A state without a row would end the parent with a KeyError."""
    assert set(TABLE) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state is not State.GONE])
def test_death_is_always_possible(state: State) -> None:
    """A child killed in this state would raise in the parent in place of being dead_lettered."""
    assert transition(state, ChildEvent.EXIT) is State.GONE


def test_nothing_happens_to_the_dead() -> None:
    """A child that was reaped could be given a call, or be dead_lettered twice."""
    assert not TABLE[State.GONE]


def test_only_idle_children_are_called() -> None:
    """Two calls would sit in one child, and its death would cost both."""
    assert [state for state in State if ChildEvent.CALL in TABLE[state]] == [State.IDLE]


def test_no_way_back() -> None:
    """A child that was told to go would be given calls again."""
    reached = {State.RETIRING: State.RETIRING}
    assert {TABLE[State.RETIRING][event] for event in TABLE[State.RETIRING]} == {*reached, State.GONE}
    assert all(State.STARTING not in row.values() for row in TABLE.values())


@pytest.mark.parametrize("state", [State.STARTING, State.IDLE, State.BUSY])
def test_all_can_retire(state: State) -> None:
    """A shutdown would fail on a child in this state."""
    assert transition(state, ChildEvent.RETIRE) is State.RETIRING


def test_a_usual_life() -> None:
    """The commonest life of all would raise."""
    state = State.STARTING
    usual = [ChildEvent.READY, *(ChildEvent.CALL, ChildEvent.DONE) * 2, ChildEvent.RETIRE, ChildEvent.EXIT]
    seen = [state := transition(state, event) for event in usual]
    assert [state.value for state in seen] == ["idle", "busy", "idle", "busy", "idle", "retiring", "gone"]


@pytest.mark.parametrize(("state", "event"), STEPS)
def test_what_is_not_in_the_table_raises(state: State, event: ChildEvent) -> None:
    """A fault of ours would pass in silence, and the pool go on with a wrong picture."""
    if event in TABLE[state]:
        assert transition(state, event) is TABLE[state][event]
        return
    with pytest.raises(InvalidTransition, match=f"a child that is {state.value} cannot get the event '{event.value}'"):
        transition(state, event)


def test_every_state_can_be_reached() -> None:
    """A state would stand in the docs in which no child can ever be."""
    reached = {State.STARTING}
    for _ in State:
        reached |= set(itertools.chain.from_iterable(TABLE[state].values() for state in reached))
    assert reached == set(State)
