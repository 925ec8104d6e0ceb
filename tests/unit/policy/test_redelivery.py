"""Messages that are recognised when they come a second time."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hybridpool._message import Head
from hybridpool._policy.redelivery import EXPECTED_FOR, Excuses, ExpectedRedeliveries


def head(task_id: str = "id-1", *, retries: int = 0, lost: int = 0) -> Head:
    """Return the head of a delivery."""
    return Head("proj.add", task_id, None, None, None, retries, None, None, None, None, False, lost)


def test_nothing_is_expected_while_the_connection_holds() -> None:
    """A message is run if no connection was lost."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    redeliveries.answered(head())
    assert redeliveries.claim(head(), 0.0) == (False, None)


def test_each_is_expected_once() -> None:
    """A message that was done or running when the connection was lost is recognised once."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    redeliveries.answered(head("done"))
    redeliveries.lost([(head("at work"), "holder")], 0.0)
    assert redeliveries.claim(head("done"), 1.0) == (True, None)
    assert redeliveries.claim(head("done"), 1.0) == (False, None)
    assert redeliveries.claim(head("at work"), 1.0) == (True, "holder")
    assert redeliveries.claim(head("at work"), 1.0) == (False, None)


def test_an_answer_that_was_heard_is_not_expected() -> None:
    """A message whose answer the broker has read is not expected again."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    redeliveries.answered(head("heard"))
    redeliveries.ask()
    redeliveries.answered(head("given after the question"))
    redeliveries.heard()
    redeliveries.lost([], 0.0)
    assert redeliveries.claim(head("heard"), 1.0) == (False, None)
    assert redeliveries.claim(head("given after the question"), 1.0) == (True, None)


def test_a_question_that_was_not_answered() -> None:
    """A message whose answer the broker has not confirmed before the loss is expected again."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    redeliveries.answered(head())
    redeliveries.ask()
    redeliveries.ask()
    redeliveries.lost([], 0.0)
    redeliveries.heard()
    assert redeliveries.claim(head(), 1.0) == (True, None)


def test_another_attempt_is_another_message() -> None:
    """The next attempt of a task is another message, and is run."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    redeliveries.lost([(head(), "holder")], 0.0)
    assert redeliveries.claim(head(retries=1), 1.0) == (False, None)
    assert redeliveries.claim(head(lost=1), 1.0) == (False, None)
    assert len(redeliveries) == 1


def test_done_before_it_comes_back() -> None:
    """A task that ended after the loss is acknowledged when its message comes again."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    redeliveries.lost([(head(), "holder")], 0.0)
    redeliveries.answered(head())
    assert redeliveries.claim(head(), 1.0) == (True, None)
    redeliveries.lost([], 2.0)
    assert redeliveries.claim(head(), 3.0) == (False, None)


def test_each_has_an_end_of_its_own() -> None:
    """A later loss does not extend the time for which earlier messages are expected."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    redeliveries.answered(head("first"))
    redeliveries.lost([], 0.0)
    redeliveries.answered(head("second"))
    redeliveries.lost([], EXPECTED_FOR - 1.0)
    assert redeliveries.claim(head("first"), EXPECTED_FOR + 1.0) == (False, None)
    assert len(redeliveries) == 1
    assert redeliveries.claim(head("second"), EXPECTED_FOR + 1.0) == (True, None)


def test_each_of_one_id_has_an_end_of_its_own() -> None:
    """Of two messages of one ID that were lost at different times, each is expected for its own time."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    redeliveries.answered(head())
    redeliveries.lost([], 0.0)
    redeliveries.answered(head())
    redeliveries.lost([], EXPECTED_FOR - 1.0)
    assert redeliveries.claim(head(), EXPECTED_FOR + 1.0) == (True, None)
    assert redeliveries.claim(head(), EXPECTED_FOR + 1.0) == (False, None)


def test_meant_to_come_again() -> None:
    """A message that the task itself sent back is run when it comes again."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    redeliveries.lost([(head(), "holder")], 0.0)
    redeliveries.forget(head())
    assert redeliveries.claim(head(), 1.0) == (False, None)


def test_two_at_work_with_one_id() -> None:
    """Two running messages of one ID each get their own message back."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    redeliveries.lost([(head(), "one"), (head(), "two")], 0.0)
    assert {redeliveries.claim(head(), 1.0), redeliveries.claim(head(), 1.0)} == {(True, "one"), (True, "two")}


def test_lost_for_long_is_lost_once() -> None:
    """Repeated reports of one loss count once."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    for attempt in range(10):
        redeliveries.lost([(head(), "holder")], float(attempt))
    assert len(redeliveries) == 1


def test_one_that_waits_is_run() -> None:
    """A message that waited beside a finished one of its ID is run."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    redeliveries.answered(head())
    redeliveries.lost([], 0.0, waiting=[head()])
    assert redeliveries.claim(head(), 1.0) == (False, None)


def test_a_new_message_of_the_same_id() -> None:
    """A message that was never delivered before is run, although its ID was used by another one."""
    redeliveries = ExpectedRedeliveries[Head, str]()
    redeliveries.answered(head())
    redeliveries.lost([(head(), "at work")], 0.0)
    redeliveries.renewed(head())
    assert redeliveries.claim(head(), 1.0) == (True, "at work")
    assert redeliveries.claim(head(), 1.0) == (False, None)


@given(losses=st.lists(st.tuples(st.integers(0, 20), st.floats(0.1, 2000.0)), max_size=40))
def test_memory_is_bounded_in_time(losses: list[tuple[int, float]]) -> None:
    """What is remembered is bounded by the time for which it is expected."""
    redeliveries, now, answers = ExpectedRedeliveries[Head, str](), 0.0, list[float]()
    for number, pause in losses:
        now += pause
        for _ in range(number):
            redeliveries.answered(head(str(len(answers))))
            answers.append(now)
        redeliveries.lost([], now)
        assert len(redeliveries) == sum(moment + EXPECTED_FOR >= now for moment in answers)
        assert bool(redeliveries.ids) == (len(redeliveries) > 0)


def test_returns_are_excused_once() -> None:
    """The last count for a message is given once, and only until its time is up."""
    excuses = Excuses()
    excuses.add(("a",), 1, 0.0)
    excuses.add(("a",), 2, 1.0)
    excuses.add(("b",), 7, 1.0)
    assert excuses.claim(("a",), 1.0 + EXPECTED_FOR) == 2
    assert excuses.claim(("a",), 1.0 + EXPECTED_FOR) == 0
    assert excuses.claim(("b",), 2.0 + EXPECTED_FOR) == 0


@given(pauses=st.lists(st.floats(0.1, 400.0), max_size=40), keys=st.integers(1, 40))
def test_excuses_are_bounded_in_time(pauses: list[float], keys: int) -> None:
    """Excuses are kept as long as they hold, and no longer than until the next one is added."""
    excuses, now, added = Excuses(), 0.0, dict[int, float]()
    for number, pause in enumerate(pauses):
        now += pause
        excuses.add((number % keys,), number, now)
        added[number % keys] = now
        kept = len(excuses._counts)  # pyright: ignore[reportPrivateUsage]
        assert kept == sum(moment + EXPECTED_FOR >= now for moment in added.values())


class Broker(RuleBasedStateMachine):
    """A broker that reads answers late, in their order, and loses connections; and what a worker then runs.

    Ids are few, so that messages share them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.redeliveries = ExpectedRedeliveries[Head, int]()
        self.number = 0
        self.now = 0.0
        #: by the message's number: its id
        self.waiting: dict[int, str] = {}
        self.at_work: dict[int, str] = {}
        self.unheard: dict[int, str] = {}
        #: how often each message was begun, and which were acknowledged and heard
        self.begun: dict[int, int] = {}
        self.gone: set[int] = set()

    @rule(task_id=st.sampled_from("ab"))
    def deliver(self, task_id: str) -> None:
        self.number += 1
        self.redeliveries.renewed(head(task_id))
        self.waiting[self.number] = task_id

    @rule()
    def begin(self) -> None:
        if self.waiting:
            number = min(self.waiting)
            self.at_work[number] = self.waiting.pop(number)
            self.begun[number] = self.begun.get(number, 0) + 1

    @rule()
    def finish(self) -> None:
        if self.at_work:
            number = min(self.at_work)
            self.unheard[number] = self.at_work.pop(number)
            self.redeliveries.answered(head(self.unheard[number]))

    @rule()
    def hear(self) -> None:
        self.redeliveries.ask()
        self.redeliveries.heard()
        self.gone |= self.unheard.keys()
        self.unheard = {}

    @rule(data=st.data(), seconds=st.floats(0.0, 100.0))
    def lose(self, data: st.DataObject, seconds: float) -> None:
        self.now += seconds
        heard = data.draw(st.integers(0, len(self.unheard)))
        self.gone |= set(list(self.unheard)[:heard])
        back = {
            **{number: self.unheard[number] for number in list(self.unheard)[heard:]},
            **self.at_work,
            **self.waiting,
        }
        self.redeliveries.lost(
            [(head(task_id), number) for number, task_id in self.at_work.items()],
            self.now,
            waiting=[head(task_id) for task_id in self.waiting.values()],
        )
        at_work, self.at_work, self.waiting, self.unheard = self.at_work, {}, {}, {}
        runs_on = set(at_work)
        for number in sorted(back):
            expected, holder = self.redeliveries.claim(head(back[number]), self.now)
            if not expected:
                self.waiting[number] = back[number]
            elif holder is None:
                self.redeliveries.answered(head(back[number]))
                self.unheard[number] = back[number]
            else:
                # the run that goes on answers this message in the end
                runs_on.discard(holder)
                self.at_work[number] = back[number]
                self.begun[number] = max(1, self.begun.get(number, 0))
        assert not runs_on, "a run has no message to acknowledge"

    @invariant()
    def none_goes_unrun(self) -> None:
        assert all(self.begun.get(number) for number in (*self.gone, *self.unheard))


TestBroker = Broker.TestCase
