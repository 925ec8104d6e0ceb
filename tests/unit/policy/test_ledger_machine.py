"""The ledger against a naive broker that keeps one set of unanswered tags."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hybridpool._policy.ledger import Answer, Ledger


class LedgerMachine(RuleBasedStateMachine):
    """Deliveries and answers in any order; every frame is obeyed as a broker would."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.next_tag = 1
        #: what the broker believes is out
        self.out: set[int] = set()
        self.wanted: dict[int, Answer] = {}
        self.heard: dict[int, Answer] = {}

    @rule(gap=st.integers(0, 2), number=st.integers(1, 5))
    def deliver(self, gap: int, number: int) -> None:
        self.next_tag += gap
        for _ in range(number):
            self.ledger.delivered(self.next_tag)
            self.out.add(self.next_tag)
            self.next_tag += 1

    @precondition(lambda self: self.next_tag > 1)
    @rule(data=st.data(), answer=st.sampled_from(Answer))
    def settle(self, data: st.DataObject, answer: Answer) -> None:
        tag = data.draw(st.integers(1, self.next_tag))
        counts = tag in self.out and tag not in self.wanted
        assert self.ledger.settle(tag, answer) == counts
        if counts:
            self.wanted[tag] = answer

    @rule()
    def take(self) -> None:
        fresh = {tag for tag in self.wanted if tag not in self.heard}
        frames = self.ledger.take()
        for kind, tag, multiple in frames:
            assert tag in self.out, "the broker would close the channel"
            covered = {other for other in self.out if other <= tag} if multiple else {tag}
            self.out -= covered
            self.heard.update(dict.fromkeys(covered, kind))
        assert {tag: self.heard[tag] for tag in fresh} == {tag: self.wanted[tag] for tag in fresh}
        assert len(frames) <= max(1, len(fresh)), "no more frames than messages"
        assert self.ledger.take() == []

    @invariant()
    def says_only_what_was_settled(self) -> None:
        assert self.heard.items() <= self.wanted.items()
        unsettled = self.out - self.wanted.keys()
        assert len(self.ledger) == len(unsettled)
        assert self.ledger.is_waiting == (self.wanted.keys() != self.heard.keys())


LedgerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestLedger = LedgerMachine.TestCase
