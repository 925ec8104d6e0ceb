"""The child's protocol as an object: no process, no socket, no signal, no clock."""
# pyright: reportPrivateUsage=false

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hybridpool._child.protocol import (
    CLEAR_OUTCOMES,
    EXIT,
    MAX_OUTCOME_WAIT_S,
    MAX_UNSENT_OUTCOMES,
    READ,
    REPORT_STACKS,
    SEND_OUTCOMES,
    Actions,
    ChildProtocol,
    DropFiles,
    Raise,
    Send,
)
from hybridpool._ipc.frames import (
    CallsGivenBack,
    Enqueue,
    EnqueueAnswer,
    Interrupt,
    LogLines,
    Recall,
    ReportStacks,
    RunCall,
    ToChild,
)

FLUSH = (SEND_OUTCOMES, CLEAR_OUTCOMES)


def call(seq: int, parts: tuple[int, ...] = ()) -> RunCall:
    """Return a call; with parts, its body came as a file."""
    return RunCall(seq, "task", f"id-{seq}", "", b"", parts=parts)


def child(*received: ToChild) -> ChildProtocol:
    """Return a child that has received frames."""
    made = ChildProtocol()
    if received:
        made.receive(received, False)
    return made


def at_work(seq: int, *received: ToChild) -> ChildProtocol:
    """Return a child with a call at work that has then received frames."""
    made = child(call(seq))
    assert made.next_action() == call(seq)
    made.call_begins(seq)
    if received:
        made.receive(received, False)
    return made


def end(protocol: ChildProtocol, now: float = 0.0) -> Actions:
    """End the call at work; return what is to be done then."""
    protocol.at_work = 0
    return protocol.outcome_noted(now)


def given_back(actions: Actions) -> list[int]:
    """Return the calls that actions give back; their files are dropped before."""
    drop, *between, last = actions
    assert between in ([], list(FLUSH))
    assert isinstance(drop, DropFiles)
    assert isinstance(last, Send)
    assert isinstance(last.frame, CallsGivenBack)
    assert drop.seqs == last.frame.seqs
    return last.frame.seqs


# ---- between two calls -----------------------------------------------------------------------------------------------


def test_runs_calls_in_their_order_and_reads_on() -> None:
    """Calls are run in the order in which they came; then the child reads."""
    protocol = child(call(1), call(2))
    protocol.receive([call(3)], False)
    assert [protocol.next_action() for _ in range(4)] == [call(1), call(2), call(3), READ]


def test_exits_at_the_end_after_all_calls() -> None:
    """A channel that has ended ends the child after the calls that came before, and after their outcomes."""
    protocol = child(call(1), call(2))
    protocol.receive_end()
    assert protocol.next_action() == call(1)
    assert end(protocol) == ()
    assert protocol.next_action() == call(2)
    protocol.call_begins(2)
    protocol.at_work = 0
    assert protocol.next_action() == FLUSH
    protocol.outcomes_sent()
    assert protocol.next_action() is EXIT


def test_late_frames_are_skipped() -> None:
    """Answers that are not waited for, and interrupts of calls that have ended, have no effect between two calls."""
    protocol = child(EnqueueAnswer(7, None), Interrupt(1, "cancelled"), call(2))
    assert protocol.next_action() == call(2)


def test_a_recall_between_two_calls_gives_back_those_behind() -> None:
    """A recall that is found between two calls gives back every call that was read."""
    protocol = child(Recall(), call(2), call(3))
    actions = protocol.next_action()
    assert isinstance(actions, tuple)
    assert given_back(actions) == [2, 3]
    assert protocol.next_action() is READ


# ---- outcomes --------------------------------------------------------------------------------------------------------


def test_an_outcome_with_no_call_behind_leaves_at_once() -> None:
    """An outcome does not wait when no frame is there that could bring another."""
    assert end(at_work(1)) == FLUSH


def test_an_outcome_waits_for_the_next() -> None:
    """Outcomes of short calls leave together."""
    assert end(at_work(1, call(2))) == ()


def test_no_outcome_waits_longer_than_the_limit() -> None:
    """The time counts from the first outcome that waits, not from the last."""
    protocol = at_work(1, call(2), call(3), call(4))
    assert end(protocol, 10.0) == ()
    assert end(protocol, 10.0 + MAX_OUTCOME_WAIT_S / 2) == ()
    assert end(protocol, 10.0 + 2 * MAX_OUTCOME_WAIT_S) == FLUSH
    protocol.outcomes_sent()
    assert end(protocol, 11.0) == (), "the time counts anew after they were sent"


def test_no_more_outcomes_wait_than_the_limit() -> None:
    """The number of outcomes that wait is limited."""
    protocol = at_work(1, call(2))
    assert [end(protocol) for _ in range(MAX_UNSENT_OUTCOMES)] == [()] * (MAX_UNSENT_OUTCOMES - 1) + [FLUSH]


def test_outcomes_count_as_waiting_until_they_are_sent() -> None:
    """A flush that was broken off is due again; one that was performed is not."""
    protocol = at_work(1, call(2))
    end(protocol)
    assert protocol.flush() == protocol.flush() == FLUSH
    protocol.outcomes_sent()
    assert protocol.flush() == ()


def test_a_frame_does_not_overtake_outcomes() -> None:
    """Outcomes that wait are sent before a frame that has a place in their order."""
    protocol = at_work(1, call(2))
    line = LogLines("")
    assert protocol.send_after_outcomes(line) == (Send(line),)
    end(protocol)
    assert protocol.send_after_outcomes(line) == (*FLUSH, Send(line))


# ---- stacks ----------------------------------------------------------------------------------------------------------


def test_stacks_are_reported_between_two_calls() -> None:
    """A child without a call reports its stacks when it reads that it is to."""
    protocol = child(ReportStacks(), call(1))
    assert protocol.next_action() == (REPORT_STACKS,)
    assert protocol.next_action() == call(1)


def test_stacks_are_reported_in_the_middle_of_a_call() -> None:
    """A call at work does not delay the report, nor does the report touch the call or what waits behind it."""
    protocol = at_work(1, call(2))
    assert protocol.attention()
    protocol.receive([ReportStacks()], False)
    assert protocol.next_order() == (REPORT_STACKS,)
    assert protocol.next_order() == ()
    protocol.is_busy = False
    end(protocol)
    assert protocol.next_action() == call(2)


# ---- recall and interrupts -------------------------------------------------------------------------------------------


def test_a_recall_gives_back_what_is_behind_the_call_at_work() -> None:
    """A recall leaves the call at work alone, and sends the outcomes that wait before it gives back the rest."""
    protocol = child(call(1), call(2), call(3), Recall())
    protocol.next_action()
    end(protocol)
    protocol.next_action()
    protocol.call_begins(2)
    actions = protocol.next_order()
    assert given_back(actions) == [3]
    assert actions[1:3] == FLUSH
    assert protocol.next_order() == ()


def test_a_recall_goes_before_an_interrupt() -> None:
    """Calls are given back although an interrupt that came first leaves by an exception."""
    protocol = at_work(1, Interrupt(1, "cancelled"), call(2), Recall())
    assert given_back(protocol.next_order()) == [2]
    assert protocol.next_order() == (Raise(Interrupt(1, "cancelled")),)


@pytest.mark.parametrize("limit", [0.0, 1.5])
def test_an_interrupt_stops_only_its_own_call(limit: float) -> None:
    """An interrupt of a call before or behind the one at work is dropped."""
    for other in (1, 3):
        protocol = at_work(2, Interrupt(other, "", limit))
        assert protocol.next_order() == ()
        protocol.call_begins(other)
        assert protocol.next_order() == (), "it is not kept for later"


def test_a_call_is_interrupted_once_by_each_kind() -> None:
    """A soft limit is raised once; a cancellation is raised once, also after it; no soft limit comes after that."""
    soft, cancel = Interrupt(1, "soft time limit", 1.0), Interrupt(1, "cancelled")
    protocol = at_work(1, soft, soft, cancel, soft, cancel)
    assert protocol.next_order() == (Raise(soft),)
    assert protocol.next_order() == (Raise(cancel),)
    assert protocol.next_order() == ()


@pytest.mark.parametrize("limit", [0.0, 1.5])
def test_an_interrupt_that_was_thrown_away_is_raised_again(limit: float) -> None:
    """An exception that Python could not deliver is due again, once, with the next alert."""
    interrupt = Interrupt(1, "", limit)
    protocol = at_work(1, interrupt)
    assert not protocol.interrupt_discarded(), "none was raised"
    assert protocol.next_order() == (Raise(interrupt),)
    assert protocol.interrupt_discarded()
    assert protocol.next_order() == (Raise(interrupt),)
    assert protocol.next_order() == ()
    protocol.call_begins(2)
    assert not protocol.interrupt_discarded(), "it was another call's"


# ---- which code may be at the channel --------------------------------------------------------------------------------


def test_attention_between_two_calls_is_remembered() -> None:
    """ATTENTION that comes before a call begins is made good when it has begun, once."""
    protocol = child()
    assert not protocol.attention()
    assert protocol.call_begins(1)
    assert not protocol.call_begins(2)


def test_attention_while_the_channel_is_taken_is_remembered() -> None:
    """A handler that comes in the middle of another's reading leaves the channel alone."""
    protocol = at_work(1)
    assert protocol.attention()
    assert not protocol.attention()
    assert not protocol.enter()
    protocol.is_busy = False
    assert protocol.take_missed_attention()
    assert not protocol.take_missed_attention()
    assert protocol.enter()


def test_the_channel_is_free_when_a_call_begins() -> None:
    """Code of one call that never left the channel does not take it from the next call."""
    protocol = at_work(1)
    assert protocol.enter()
    protocol.call_begins(2)
    assert protocol.enter()


def test_no_code_of_a_task_enters_between_two_calls() -> None:
    """Between two calls the channel is the loop's."""
    assert not child().enter()


# ---- a task asks its parent ------------------------------------------------------------------------------------------


def test_an_answer_belongs_to_its_ticket() -> None:
    """An answer to an enqueue that was broken off is not taken for the answer to the next."""
    protocol = at_work(1)
    assert protocol.enqueue(b"a") == (Send(Enqueue(1, b"a")),)
    assert protocol.next_while_asking() is READ
    assert protocol.enqueue(b"b") == (Send(Enqueue(2, b"b")),)
    protocol.receive([EnqueueAnswer(1, "late")], False)
    assert protocol.next_while_asking() is READ
    protocol.receive([call(2), EnqueueAnswer(2, None)], False)
    assert protocol.next_while_asking() == EnqueueAnswer(2, None)
    assert protocol.next_action() == call(2)


def test_orders_are_obeyed_while_a_task_waits_for_its_answer() -> None:
    """Calls are given back, and the task is stopped, while it waits; an answer that is there goes first."""
    protocol = at_work(1, call(2), Recall(), Interrupt(1, "cancelled"))
    protocol.enqueue(b"")
    actions = protocol.next_while_asking()
    assert isinstance(actions, tuple)
    assert given_back(actions) == [2]
    protocol.receive([EnqueueAnswer(1, None)], False)
    assert protocol.next_while_asking() == EnqueueAnswer(1, None)
    assert protocol.next_order() == (Raise(Interrupt(1, "cancelled")),)


def test_a_parent_that_ends_while_a_task_waits() -> None:
    """The end of the channel ends a child whose task waits for an answer."""
    protocol = at_work(1)
    protocol.enqueue(b"")
    protocol.receive_end()
    assert protocol.next_while_asking() is EXIT


def posted(protocol: ChildProtocol, message: bytes) -> int:
    """Send a message without waiting for its answer; returns its ticket."""
    frame = Enqueue(0, message)
    assert protocol.ask(frame) == (Send(frame),)
    protocol.sent_without_waiting(frame)
    return frame.ticket


def test_many_messages_are_sent_before_their_answers_are_waited_for() -> None:
    """Answers to messages that were sent without waiting are awaited together; those that are errors are kept."""
    protocol = at_work(1)
    assert not protocol.awaits_answers
    tickets = [posted(protocol, b"") for _ in range(3)]
    assert protocol.next_while_awaiting(3) is None
    assert protocol.next_while_awaiting(2) is READ
    protocol.receive([EnqueueAnswer(tickets[1], "full"), call(2)], False)
    assert protocol.next_while_awaiting(2) is None
    assert protocol.next_while_awaiting() is READ
    protocol.receive([EnqueueAnswer(tickets[0], None), EnqueueAnswer(tickets[2], None)], False)
    assert protocol.next_while_awaiting() is None
    assert protocol.take_post_errors() == [EnqueueAnswer(tickets[1], "full")]
    assert not protocol.awaits_answers
    assert protocol.next_action() == call(2)


def test_an_answer_that_comes_while_another_is_waited_for_is_kept() -> None:
    """A message that is waited for does not use up the answers to those before it."""
    protocol = at_work(1)
    ticket = posted(protocol, b"")
    protocol.enqueue(b"")
    protocol.receive([EnqueueAnswer(ticket, "full"), EnqueueAnswer(ticket + 1, None)], False)
    assert protocol.next_while_asking() == EnqueueAnswer(ticket + 1, None)
    assert protocol.next_while_awaiting() is None
    assert protocol.take_post_errors() == [EnqueueAnswer(ticket, "full")]


def test_messages_of_a_task_that_was_stopped_are_forgotten() -> None:
    """Late answers to messages of a task that was stopped are not taken for those of the next one."""
    protocol = at_work(1)
    ticket = posted(protocol, b"")
    assert protocol.take_post_errors() == []
    protocol.receive([EnqueueAnswer(ticket, "full")], False)
    assert protocol.next_while_awaiting() is None
    assert protocol.take_post_errors() == []


@pytest.mark.parametrize("is_stopped", [True, False])
def test_what_may_happen_while_answers_are_awaited(is_stopped: bool) -> None:
    """A task that waits for answers can be stopped, and ends with its parent."""
    protocol = at_work(1)
    posted(protocol, b"")
    if is_stopped:
        protocol.receive([Interrupt(1, "cancelled")], False)
        assert protocol.next_while_awaiting() == (Raise(Interrupt(1, "cancelled")),)
    else:
        protocol.receive_end()
        assert protocol.next_while_awaiting() is EXIT


# ---- descriptors are missing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_file", [False, True])
def test_a_child_that_lost_a_call_runs_none_behind_it(in_file: bool) -> None:
    """A child that could not take a call serves those before it, none behind it, and exits; it still hears orders."""
    protocol = at_work(1, call(2))
    if in_file:
        protocol.message_lost()
    else:
        protocol.receive([call(3, parts=(9,))], False)
    protocol.receive([call(4)], False)
    protocol.receive([call(5, parts=(9,))], True)
    protocol.enqueue(b"")
    protocol.receive([EnqueueAnswer(1, None), Interrupt(1, "cancelled")], False)
    assert protocol.next_while_asking() == EnqueueAnswer(1, None)
    assert protocol.next_order() == (Raise(Interrupt(1, "cancelled")),)
    assert end(protocol) == ()
    assert protocol.next_action() == call(2)
    assert end(protocol) == FLUSH
    protocol.outcomes_sent()
    assert protocol.next_action() is EXIT


def test_a_call_with_its_file_is_a_call() -> None:
    """A call whose body came as a file is run when the file came along."""
    protocol = child()
    protocol.receive([call(1, parts=(9,))], True)
    assert protocol.next_action() == call(1, parts=(9,))


# ---- properties ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 0.01), st.integers(0, 3)), max_size=200))
def test_outcomes_are_sent_in_time(ends: Sequence[tuple[float, int]]) -> None:
    """After each end fewer outcomes wait than the limit, none longer than allowed, and none with nothing behind."""
    protocol, now, waiting = child(), 0.0, list[float]()
    for took, arrived in ends:
        if arrived:
            protocol.receive([Interrupt(0, "")] * arrived, False)
        now += took
        waiting.append(now)
        if protocol.outcome_noted(now):
            protocol.outcomes_sent()
            waiting.clear()
        assert not waiting or (len(waiting) < MAX_UNSENT_OUTCOMES and now - waiting[0] <= MAX_OUTCOME_WAIT_S)
        assert not waiting or protocol._inbox


class ChildMachine(RuleBasedStateMachine):
    """A child under any order of frames, alerts and ends, against plain lists of what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol = ChildProtocol()
        self.next_seq = 1
        self.given: list[int] = []
        self.begun: list[int] = []
        self.back: list[int] = []
        self.page: list[int] = []
        self.sent: list[int] = []
        self.raised: Counter[tuple[int, bool]] = Counter()
        self.recalls = self.answered = 0
        self.is_over = False

    def perform(self, actions: Actions) -> None:
        """Do what a driver does, and keep what it did."""
        for action in actions:
            if action is SEND_OUTCOMES:
                assert self.page, "an empty message"
                self.sent += self.page
            elif action is CLEAR_OUTCOMES:
                assert self.sent[-len(self.page) :] == self.page, "cleared before sent"
                self.protocol.outcomes_sent()
                self.page = []
            elif isinstance(action, Send):
                assert isinstance(action.frame, CallsGivenBack)
                assert not self.page, "it overtakes outcomes"
                self.answered += 1
                self.back += action.frame.seqs
            elif isinstance(action, Raise):
                assert action.interrupt.seq == self.protocol.at_work
                self.raised[action.interrupt.seq, bool(action.interrupt.limit)] += 1

    @rule(count=st.integers(1, 4))
    def give(self, count: int) -> None:
        """The parent hands over calls."""
        seqs = range(self.next_seq, self.next_seq + count)
        self.next_seq += count
        self.given += seqs
        self.protocol.receive([call(seq) for seq in seqs], False)

    @rule()
    def recall(self) -> None:
        """The parent wants calls back."""
        self.recalls += 1
        self.protocol.receive([Recall()], False)

    @rule(back=st.integers(0, 3), limit=st.sampled_from([0.0, 1.0]))
    def interrupt(self, back: int, limit: float) -> None:
        """The parent interrupts one of the last calls."""
        self.protocol.receive([Interrupt(max(1, self.next_seq - back), "", limit)], False)

    @rule()
    def alert(self) -> None:
        """ATTENTION comes."""
        if self.protocol.attention():
            self.obey()

    def obey(self) -> None:
        """Do what is wanted, as a handler does."""
        while actions := self.protocol.next_order():
            self.perform(actions)
        self.protocol.is_busy = False

    @precondition(lambda self: not self.protocol.at_work and not self.is_over)
    @rule()
    def go_on(self) -> None:
        """The loop takes its next step."""
        action = self.protocol.next_action()
        if isinstance(action, RunCall):
            self.begun.append(action.seq)
            if self.protocol.call_begins(action.seq):
                self.alert()
        elif isinstance(action, tuple):
            self.perform(action)
        else:
            assert action is READ
            assert not self.page, "outcomes wait while the child does"

    @precondition(lambda self: self.protocol.at_work)
    @rule(now=st.floats(0, 1))
    def end(self, now: float) -> None:
        """The call at work ends."""
        self.page.append(self.protocol.at_work)
        self.protocol.at_work = 0
        self.perform(self.protocol.outcome_noted(now))

    @invariant()
    def each_call_is_in_one_place(self) -> None:
        """Each call is begun, given back, or lies here; those begun ended in their order, but for the one at work."""
        here = [frame.seq for frame in self.protocol._inbox if isinstance(frame, RunCall)]
        assert sorted([*self.begun, *self.back, *here]) == self.given
        assert self.begun == sorted(self.begun)
        ended = [seq for seq in self.begun if seq != self.protocol.at_work]
        assert [*self.sent, *self.page] == ended
        assert self.answered <= self.recalls

    @invariant()
    def no_call_is_interrupted_twice(self) -> None:
        """Each call is stopped at most once for its limit, and cancelled at most once."""
        assert all(count == 1 for count in self.raised.values())


TestChildMachine = ChildMachine.TestCase
