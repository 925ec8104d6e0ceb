"""The states of a child as a table: state × event → next state.

An event that the table does not have in a state is a bug, and raises. The picture in
docs/explanation/life-of-a-child.md is drawn from this table.
"""

import enum
from collections.abc import Mapping
from typing import Final


class State(enum.Enum):
    """A state of a child."""

    STARTING = "starting"  #: forked, or about to be; not READY
    IDLE = "idle"  #: waits for a call
    BUSY = "busy"  #: runs a call
    RETIRING = "retiring"  #: gets no more calls; finishes those it has and exits
    GONE = "gone"  #: reaped


class ChildEvent(enum.Enum):
    """An event in the life of a child."""

    READY = "ready"
    CALL = "call"  #: a call was sent to it
    DONE = "done"  #: it answered its last call
    RETIRE = "retire"  #: the parent has closed its side of the socket
    EXIT = "exit"  #: it was reaped, for any cause


TABLE: Final[Mapping[State, Mapping[ChildEvent, State]]] = {
    State.STARTING: {
        ChildEvent.READY: State.IDLE,
        ChildEvent.RETIRE: State.RETIRING,
        ChildEvent.EXIT: State.GONE,
    },
    State.IDLE: {
        ChildEvent.CALL: State.BUSY,
        ChildEvent.RETIRE: State.RETIRING,
        ChildEvent.EXIT: State.GONE,
    },
    State.BUSY: {
        ChildEvent.DONE: State.IDLE,
        ChildEvent.RETIRE: State.RETIRING,
        ChildEvent.EXIT: State.GONE,
    },
    State.RETIRING: {
        # It was retired before it was READY, or while a call was running.
        ChildEvent.READY: State.RETIRING,
        ChildEvent.DONE: State.RETIRING,
        ChildEvent.EXIT: State.GONE,
    },
    State.GONE: {},
}


class InvalidTransition(Exception):
    """The table has no transition for an event in this state."""


def transition(state: State, event: ChildEvent) -> State:
    """Return the next state.

    :raises InvalidTransition: if the table has none for this event.
    """
    try:
        return TABLE[state][event]
    except KeyError:
        raise InvalidTransition(f"a child that is {state.value} cannot get the event {event.value!r}") from None
