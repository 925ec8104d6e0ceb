"""The life of a child as a table: state × what happened → next state.

Everything that may happen to a child stands here; what does not is a fault of ours and raises. The picture in
docs/explanation/life-of-a-child.md is drawn from this table.
"""

import enum
from collections.abc import Mapping
from typing import Final


class State(enum.Enum):
    """Where a child is in its life."""

    STARTING = "starting"  #: forked, or about to be; not READY
    IDLE = "idle"  #: waits for a call
    BUSY = "busy"  #: runs a call
    RETIRING = "retiring"  #: gets no more calls; finishes the one it has and exits
    GONE = "gone"  #: reaped


class ChildEvent(enum.Enum):
    """What can happen to a child."""

    READY = "ready"
    CALL = "call"  #: a call was put into its channel
    DONE = "done"  #: it answered its last call
    RETIRE = "retire"  #: its channel was ended by us
    EXIT = "exit"  #: it was reaped, whatever the cause


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
        # It was told to go before it said READY, or while a call was under way.
        ChildEvent.READY: State.RETIRING,
        ChildEvent.DONE: State.RETIRING,
        ChildEvent.EXIT: State.GONE,
    },
    State.GONE: {},
}


class InvalidTransition(Exception):
    """Something happened to a child that cannot happen in its state."""


def transition(state: State, event: ChildEvent) -> State:
    """Return the next state.

    :raises ImpossibleStep: if the table has no such step.
    """
    try:
        return TABLE[state][event]
    except KeyError:
        raise InvalidTransition(f"a child that is {state.value} cannot have {event.value!r} happen to it") from None
