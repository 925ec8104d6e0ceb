"""The life of a child against a model that keeps four plain flags in place of a state."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hybridpool._policy.lifecycle import TABLE, Happening, ImpossibleStep, State, step


class LifeMachine(RuleBasedStateMachine):
    """Anything may happen in any order; what the model finds impossible must raise and change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.STARTING
        self.ready = self.in_hand = self.told_to_go = self.gone = False

    def possible(self, happening: Happening) -> bool:
        """Tell by the model whether that can happen to a child now."""
        if self.gone:
            return False
        match happening:
            case Happening.READY:
                # one that was told to go may say what it likes until it is gone
                return self.told_to_go or not self.ready
            case Happening.CALL:
                return self.ready and not self.in_hand and not self.told_to_go
            case Happening.DONE:
                return self.told_to_go or self.in_hand
            case Happening.RETIRE:
                return not self.told_to_go
            case Happening.EXIT:
                return True

    @rule(happening=st.sampled_from([one for one in Happening if one is not Happening.EXIT]))
    def live(self, happening: Happening) -> None:
        self.try_it(happening)

    @rule()
    def die(self) -> None:
        self.try_it(Happening.EXIT)

    def try_it(self, happening: Happening) -> None:
        """Have it happen to both."""
        if not self.possible(happening):
            with pytest.raises(ImpossibleStep):
                step(self.state, happening)
            return
        self.state = step(self.state, happening)
        self.ready |= happening is Happening.READY
        self.in_hand = (self.in_hand or happening is Happening.CALL) and happening is not Happening.DONE
        self.told_to_go |= happening is Happening.RETIRE
        self.gone |= happening is Happening.EXIT

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
        assert (Happening.CALL in TABLE[self.state]) == (self.state is State.IDLE)

    def teardown(self) -> None:
        """Every life ends, and stays ended."""
        if not self.gone:
            self.state = step(self.state, Happening.EXIT)
        assert self.state is State.GONE


LifeMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestLife = LifeMachine.TestCase
