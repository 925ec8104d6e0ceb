"""The life of a child, in this very process: the parent's part is played by the tasks, who know what comes when."""

import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hybridpool import _task_context
from hybridpool._child.base import ATTENTION
from hybridpool._child.loop import MAX_POSTED, Child
from hybridpool._child.memory import MemoryGauge
from hybridpool._child.rendering import to_raised
from hybridpool._ipc import frames, framing
from hybridpool._ipc.frames import (
    CallsGivenBack,
    ChildOutcome,
    Done,
    Enqueue,
    EnqueueAnswer,
    EnqueueRaw,
    Frame,
    Interrupt,
    LogLines,
    Raised,
    Recall,
    Returned,
    RunCall,
)
from hybridpool._ipc.shared_page import SharedPage
from hybridpool.errors import SoftTimeLimitExceeded, TaskCancelled

OK = Returned(b"1", "1")


def call(seq: int, task: str = "nothing") -> RunCall:
    """Return a call."""
    return RunCall(seq, task, f"id-{seq}", "", b"", 0, None)


class Play:
    """A child, and its parent's end of the channel."""

    def __init__(self) -> None:
        self.parent, channel = framing.socket_pair()
        self.parent.setblocking(False)
        self.channel = channel
        self.shared_page, self._descriptor = SharedPage.make()
        self.child = Child("ForkPoolWorker-1", channel, self.shared_page)
        #: what the child ran, in order
        self.ran: list[int] = []
        #: what a call of that name does
        self.tasks: dict[str, Callable[[], object]] = {"nothing": lambda: None}

    def tell(self, *said: frames.ToChild, alert: bool = False) -> None:
        """Be the parent: put frames into the channel as one message."""
        framing.send(self.parent, frames.pack(said))
        if alert:
            signal.raise_signal(ATTENTION)

    def run(self, message: RunCall, _file: int | None) -> ChildOutcome:
        """Run a call."""
        self.ran.append(message.seq)
        try:
            self.tasks[message.task]()
        except BaseException as error:  # noqa: BLE001  # as a child does
            return to_raised(error)
        return OK

    def work(self) -> list[list[Any]]:
        """Have the child serve what was said, and what its tasks say, to the end; return its messages."""
        self.child.work(self.run, MemoryGauge(0), self.end_if_all_is_said)
        return self.heard()

    def end_if_all_is_said(self) -> None:
        """After each task: end the channel if there is nothing in it."""
        if not self.child._protocol._inbox and not select.select([self.channel], [], [], 0)[0]:
            self.parent.shutdown(socket.SHUT_WR)

    def heard(self) -> list[list[Any]]:
        """Return the messages that the child has sent since the last look."""
        found: list[list[Any]] = []
        while True:
            try:
                message = framing.receive(self.parent)
            except BlockingIOError:
                return found
            found.append(frames.read_from_child(message))

    def close(self) -> None:
        """Leave nothing open."""
        self.child.close()
        self.parent.close()
        self.channel.close()
        self.shared_page.close()
        os.close(self._descriptor)


@pytest.fixture
def play() -> Iterator[Play]:
    """Make a child."""
    before = signal.getsignal(ATTENTION)
    made = Play()
    yield made
    signal.signal(ATTENTION, before)
    _task_context.set_current_task(None)
    made.close()


def seqs(messages: list[list[Frame]]) -> list[list[int]]:
    """Return which calls each message says to be done."""
    return [[frame.seq for frame in message if isinstance(frame, Done)] for message in messages]


def outcomes(messages: list[list[Frame]]) -> dict[int, ChildOutcome]:
    """Return how each call ended."""
    return {frame.seq: frame.outcome for message in messages for frame in message if isinstance(frame, Done)}


# ---- outcomes leave --------------------------------------------------------------------------------------------------


def test_serves_in_order_to_the_end(play: Play) -> None:
    """The child runs every call of every message in order, and ends with its channel."""
    play.tell(call(1), call(2))
    play.tell(call(3))
    assert seqs(play.work()) == [[1, 2], [3]]
    assert play.ran == [1, 2, 3]
    assert play.shared_page.read() == (3, [])


def test_brief_ones_leave_together(play: Play) -> None:
    """The outcomes of ten brief calls leave in order, in fewer than five messages."""
    play.tell(*(call(seq) for seq in range(1, 11)))
    messages = play.work()
    assert [seq for message in seqs(messages) for seq in message] == list(range(1, 11))
    assert len(messages) < 5


def test_the_last_of_a_batch_does_not_wait(play: Play) -> None:
    """The outcome of the last call of a message is sent before the call of the next message begins."""
    seen: list[list[int]] = []
    play.tasks["look"] = lambda: seen.extend(seqs(play.heard()))
    play.tell(call(1))
    play.tell(call(2, "look"))
    play.work()
    assert seen == [[1]]


def test_no_result_waits_long(play: Play) -> None:
    """Outcomes of calls that last longer than an outcome may wait leave at most two in a message."""
    # It is the task's work, longer than an outcome may wait.
    play.tasks["sleep"] = lambda: time.sleep(0.005)
    play.tell(*(call(seq, "sleep") for seq in range(1, 5)))
    assert max(len(message) for message in play.work()) <= 2


def test_stands_on_the_page_meanwhile(play: Play) -> None:
    """Each outcome that is not sent yet stands on the shared page while the next call runs."""
    seen: list[tuple[int, list[int]]] = []

    def look() -> None:
        began, left = play.shared_page.read()
        heard = [seq for message in seqs(play.heard()) for seq in message]
        seen.append((began, heard + [frame.seq for frame in left if isinstance(frame, Done)]))

    play.tasks["look"] = look
    play.tell(call(1), call(2), call(3, "look"))
    play.work()
    assert seen == [(3, [1, 2])]


def test_a_large_outcome_keeps_its_place(play: Play) -> None:
    """A large outcome leaves after the outcomes before it, and before those behind it."""
    large = Returned(b"x" * 50_000, "")

    def run(message: RunCall, _file: int | None) -> ChildOutcome:
        return large if message.seq == 2 else OK

    play.tell(*(call(seq) for seq in (1, 2, 3)))
    play.child.work(run, MemoryGauge(0), play.end_if_all_is_said)
    assert [seq for message in seqs(play.heard()) for seq in message] == [1, 2, 3]


# ---- calls go back ---------------------------------------------------------------------------------------------------


def test_gives_back_what_has_not_begun(play: Play) -> None:
    """A recalled child sends its outcomes and gives back the calls behind the one at work, in the middle of it."""
    seen: list[list[Frame]] = []

    def be_recalled() -> None:
        play.tell(Recall(), alert=True)
        seen.extend(play.heard())

    play.tasks["long"] = be_recalled
    play.tell(call(1), call(2, "long"), call(3), call(4))
    play.tell(call(5))
    last = play.work()
    assert seqs(seen) == [[1], []], "what was done leaves in the middle of the long one"
    assert seen[1] == [CallsGivenBack([3, 4, 5])]
    assert seqs(last) == [[2]]
    assert play.ran == [1, 2]


def test_a_recall_that_comes_late(play: Play) -> None:
    """A recall that is read while no call waits gives back none, and the calls before and after it are run."""
    play.tell(call(1))
    play.tell(Recall())
    play.tell(call(2))
    messages = play.work()
    assert outcomes(messages) == {1: OK, 2: OK}
    assert [CallsGivenBack([])] in messages


# ---- a call is stopped -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "error"),
    [(Interrupt(2, "soft time limit", 1.5), SoftTimeLimitExceeded), (Interrupt(2, "cancelled"), TaskCancelled)],
)
def test_stops_the_one_that_is_meant(play: Play, stop: Interrupt, error: type[BaseException]) -> None:
    """An interrupt stops the call that it names by its own exception, and no other call."""
    play.tasks["long"] = lambda: play.tell(stop, alert=True)
    play.tell(call(1), call(2, "long"), call(3))
    done = outcomes(play.work())
    assert (done[1], done[3]) == (OK, OK)
    assert isinstance(done[2], Raised)
    assert done[2].kind == error.__name__


def test_never_stops_another(play: Play) -> None:
    """An interrupt of a call that has ended stops no other call."""
    play.tasks["late"] = lambda: play.tell(Interrupt(1, "cancelled"), alert=True)
    play.tell(call(1), call(2, "late"))
    play.tell(Interrupt(1, "cancelled"))
    play.tell(call(3))
    assert outcomes(play.work()) == {1: OK, 2: OK, 3: OK}


def test_stops_once(play: Play) -> None:
    """A task that cleans up after its cancellation is not stopped again by its soft time limit."""

    def clean_up() -> None:
        try:
            play.tell(Interrupt(1, "cancelled"), alert=True)
        except TaskCancelled:
            play.tell(Interrupt(1, "soft time limit", 1.0), alert=True)

    play.tasks["clean_up"] = clean_up
    play.tell(call(1, "clean_up"))
    assert outcomes(play.work()) == {1: OK}


def test_cancels_what_goes_on_after_its_soft_limit(play: Play) -> None:
    """A cancellation stops a task that goes on after its soft time limit."""

    def go_on() -> None:
        try:
            play.tell(Interrupt(1, "soft time limit", 1.0), alert=True)
        except SoftTimeLimitExceeded:
            play.tell(Interrupt(1, "cancelled"), alert=True)

    play.tasks["go_on"] = go_on
    play.tell(call(1, "go_on"))
    [done] = outcomes(play.work()).values()
    assert isinstance(done, Raised)
    assert done.kind == "TaskCancelled"


def test_a_stop_that_came_just_before_the_start(play: Play) -> None:
    """A call whose cancellation comes just before it begins ends as cancelled, and its function is not run."""
    play.tell(call(1))
    play.tell(Interrupt(1, "cancelled"))
    signal.raise_signal(ATTENTION)
    done = outcomes(play.work())
    assert isinstance(done[1], Raised)
    assert isinstance(pickle.loads(done[1].pickled), TaskCancelled)
    assert play.ran == []


def test_an_attention_without_a_word(play: Play) -> None:
    """ATTENTION without an order in the channel stops no task."""
    play.tasks["alerted"] = lambda: signal.raise_signal(ATTENTION)
    play.tell(call(1, "alerted"), call(2))
    assert outcomes(play.work()) == {1: OK, 2: OK}
    assert play.ran == [1, 2]


def test_a_call_that_comes_with_the_alert_is_kept(play: Play) -> None:
    """Calls that the signal handler reads in the middle of a task are run later, in their order."""
    play.tasks["long"] = lambda: play.tell(call(3), call(4), alert=True)
    play.tell(call(1, "long"), call(2))
    assert [seq for message in seqs(play.work()) for seq in message] == play.ran == [1, 2, 3, 4]


# ---- a task asks its parent ------------------------------------------------------------------------------------------


def ask() -> None:
    """Have the parent publish something."""
    running = _task_context.current_task()
    assert running is not None
    running._enqueue(b"message")


def test_asks_and_goes_on(play: Play) -> None:
    """A task that has its parent publish goes on with the answer, and the calls read before that are run in order."""
    play.tasks["ask"] = ask
    play.tell(call(1, "ask"), call(2))
    play.tell(call(3))
    play.tell(EnqueueAnswer(1, None))
    messages = play.work()
    assert messages[0] == [Enqueue(1, b"message")]
    assert outcomes(messages) == {1: OK, 2: OK, 3: OK}
    assert play.ran == [1, 2, 3]


def test_posts_and_confirms_once(play: Play) -> None:
    """A task that posts messages goes on at once, and waits for all answers where it confirms them."""
    sent: list[object] = []

    def post() -> None:
        for number in range(3):
            play.child.post(EnqueueRaw(0, b"%d" % number, "", "q"))
        sent.extend(frame for message in play.heard() for frame in message)
        play.tell(EnqueueAnswer(2, None), EnqueueAnswer(1, "full", "QueueFull"))
        play.tell(call(2), EnqueueAnswer(3, None))
        assert play.child.confirm() == [EnqueueAnswer(1, "full", "QueueFull")]
        assert play.child.confirm() == []

    play.tasks["post"] = post
    play.tell(call(1, "post"))
    assert outcomes(play.work()) == {1: OK, 2: OK}
    assert sent == [EnqueueRaw(number, b"%d" % (number - 1), "", "q") for number in (1, 2, 3)]


def test_posts_no_more_than_the_parent_may_hold(play: Play) -> None:
    """A task that posts very many waits for the first answers before it sends more."""
    told: list[int] = []

    def answer() -> None:
        """Be the parent that answers the first half."""
        told.append(sum(map(len, play.heard())))
        for ticket in range(1, MAX_POSTED // 2 + 1):
            play.tell(EnqueueAnswer(ticket, None))

    def post() -> None:
        for _ in range(MAX_POSTED - 1):
            play.child.post(EnqueueRaw(0, b"", "", "q"))
        answer()
        play.child.post(EnqueueRaw(0, b"", "", "q"))
        play.child.drop_posts()

    play.tasks["post"] = post
    play.tell(call(1, "post"))
    assert outcomes(play.work()) == {1: OK}
    assert told == [MAX_POSTED - 1]


def test_asks_in_vain(play: Play) -> None:
    """A publication that fails is raised in the task that asked for it, by the class and the text of the answer."""
    play.tasks["ask"] = ask
    play.tell(call(1, "ask"))
    play.tell(EnqueueAnswer(1, "no broker", "BrokerUnavailable"))
    [done] = outcomes(play.work()).values()
    assert isinstance(done, Raised)
    assert done.text == "BrokerUnavailable('no broker')"


def test_is_stopped_while_it_waits_for_an_answer(play: Play) -> None:
    """A cancellation stops a task that waits for an answer, and the next task gets its own answer."""
    play.tasks["ask"] = ask
    play.tell(call(1, "ask"))
    play.tell(Interrupt(1, "cancelled"))
    play.tell(EnqueueAnswer(1, None))
    play.tell(call(2, "ask"))
    play.tell(EnqueueAnswer(2, None))
    done = outcomes(play.work())
    assert isinstance(done[1], Raised)
    assert (done[1].kind, done[2]) == ("TaskCancelled", OK)


def test_a_stop_that_comes_with_the_answer(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation whose signal comes while the task reads an answer stops that task."""
    receive = framing.receive_with_fds

    def alerted(*args: Any) -> tuple[frames.Message, list[int]]:
        message, fds = receive(*args)
        if frames.pack((EnqueueAnswer(1, None),)) == message:
            signal.raise_signal(ATTENTION)
        return message, fds

    play.tasks["ask"] = ask
    play.tell(call(1, "ask"))
    play.tell(EnqueueAnswer(1, None))
    play.tell(Interrupt(1, "cancelled"))
    monkeypatch.setattr(framing, "receive_with_fds", alerted)
    [done] = outcomes(play.work()).values()
    assert isinstance(done, Raised)
    assert done.kind == "TaskCancelled"


def test_gives_back_while_it_waits_for_an_answer(play: Play) -> None:
    """A recalled child whose task waits for an answer gives back the calls behind it."""
    play.tasks["ask"] = ask
    play.tell(call(1, "ask"), call(2))
    play.tell(Recall())
    play.tell(EnqueueAnswer(1, None))
    messages = play.work()
    assert [CallsGivenBack([2])] in messages
    assert play.ran == [1]


def test_says_things_in_order(play: Play) -> None:
    """A log line of a task is sent after the outcomes before it, and before the task's own."""
    play.tasks["speak"] = lambda: play.child.say("here\n")
    play.tell(call(1), call(2, "speak"))
    flat = [frame for message in play.work() for frame in message]
    assert [type(frame) for frame in flat] == [Done, LogLines, Done]


def test_knows_the_task_at_work(play: Play) -> None:
    """`current_task` gives a task its own id, name and child, and is None after the task."""
    seen: list[object] = []

    def look() -> None:
        running = _task_context.current_task()
        assert running is not None
        seen.append((running.id, running.name, running.child))

    play.tasks["look"] = look
    play.tell(call(1, "look"))
    play.work()
    assert seen == [("id-1", "look", "ForkPoolWorker-1")]
    assert _task_context.current_task() is None
