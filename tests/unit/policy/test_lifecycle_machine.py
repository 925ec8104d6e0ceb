"""The life of a child against a model that keeps four plain flags in place of a state."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hybridpool._policy.lifecycle import TABLE, ChildEvent, InvalidTransition, State, transition


class LifeMachine(RuleBasedStateMachine):
    """Anything may happen in any order; what the model finds impossible must raise and change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.STARTING
        self.ready = self.in_hand = self.told_to_go = self.gone = False

    def possible(self, happening: ChildEvent) -> bool:
        """Tell by the model whether that can happen to a child now."""
        if self.gone:
            return False
        match happening:
            case ChildEvent.READY:
                # one that was told to go may say what it likes until it is gone
                return self.told_to_go or not self.ready
            case ChildEvent.CALL:
                return self.ready and not self.in_hand and not self.told_to_go
            case ChildEvent.DONE:
                return self.told_to_go or self.in_hand
            case ChildEvent.RETIRE:
                return not self.told_to_go
            case ChildEvent.EXIT:
                return True

    @rule(happening=st.sampled_from([one for one in ChildEvent if one is not ChildEvent.EXIT]))
    def live(self, happening: ChildEvent) -> None:
        self.try_it(happening)

    @rule()
    def die(self) -> None:
        self.try_it(ChildEvent.EXIT)

    def try_it(self, happening: ChildEvent) -> None:
        """Have it happen to both."""
        if not self.possible(happening):
            with pytest.raises(InvalidTransition):
                transition(self.state, happening)
            return
        self.state = transition(self.state, happening)
        self.ready |= happening is ChildEvent.READY
        self.in_hand = (self.in_hand or happening is ChildEvent.CALL) and happening is not ChildEvent.DONE
        self.told_to_go |= happening is ChildEvent.RETIRE
        self.gone |= happening is ChildEvent.EXIT

    @invariant()
    def agrees_with_the_model(self) -> None:
        if self.gone:
            expected = State.GONE
        elif self.told_to_go:
            expected = State.RETIRING
        elif not self.ready:
            expected = State.STARTING
        else:
            expected = State.BUSY if self.in_hand else State.IDLE
        assert self.state is expected

    @invariant()
    def calls_only_the_idle(self) -> None:
        assert (ChildEvent.CALL in TABLE[self.state]) == (self.state is State.IDLE)

    def teardown(self) -> None:
        """Every life ends, and stays ended."""
        if not self.gone:
            self.state = transition(self.state, ChildEvent.EXIT)
        assert self.state is State.GONE


LifeMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestLife = LifeMachine.TestCase
