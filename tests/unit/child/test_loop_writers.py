"""Other writers of a child's channel, and what a task leaves to the next: threads, handlers, forks, files."""
# pyright: reportPrivateUsage=false

import asyncio
import os
import pickle
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridpool import _task_context
from hybridpool._child.base import ATTENTION
from hybridpool._child.memory import MemoryGauge
from hybridpool._ipc import frames, framing
from hybridpool._ipc.frames import ChildOutcome, Done, Enqueue, EnqueueAnswer, Interrupt, LogLines, Raised, Returned
from hybridpool._ipc.shared_page import SharedPage
from hybridpool.errors import BrokerError, SoftTimeLimitExceeded
from tests.unit.child.test_loop import OK, Play, ask, call, outcomes, seqs

#: seconds; a test that waits longer for anything has failed
PATIENCE = 20.0


@pytest.fixture
def play() -> Iterator[Play]:
    """Make a child."""
    before = signal.getsignal(ATTENTION)
    made = Play()
    yield made
    signal.signal(ATTENTION, before)
    _task_context.set_current_task(None)
    made.close()


def in_a_thread(act: Callable[[], object]) -> None:
    """Run something in another thread, to its end."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def interfere(patch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen each time outcomes were sent, and the page not yet cleared."""
    message, clear = SharedPage.message, SharedPage.clear
    waiting: list[None] = []

    def note(shared_page: SharedPage) -> bytes:
        waiting.append(None)
        return message(shared_page)

    def late(shared_page: SharedPage) -> None:
        if len(waiting) == 1:
            act()
        waiting.clear()
        clear(shared_page)

    patch.setattr(SharedPage, "message", note)
    patch.setattr(SharedPage, "clear", late)


# ---- writers ---------------------------------------------------------------------------------------------------------


def test_a_thread_that_logs_sends_nothing_but_its_line(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that logs while outcomes are sent sends its line alone, and each outcome is sent once."""
    interfere(monkeypatch, lambda: in_a_thread(lambda: play.child.say("a line\n")))
    play.tell(*(call(seq) for seq in range(1, 6)))
    messages = play.work()
    assert [seq for message in seqs(messages) for seq in message] == [1, 2, 3, 4, 5]
    assert [LogLines("a line\n")] in messages


def test_a_thread_that_logs_in_a_task_sends_nothing_but_its_line(play: Play) -> None:
    """A thread that logs in the middle of a task sends its line alone, and pending outcomes stay on the shared page."""
    seen: list[list[Any]] = []

    def look() -> None:
        in_a_thread(lambda: play.child.say("a line\n"))
        seen.extend(play.heard())

    play.tasks["look"] = look
    play.tell(call(1), call(2, "look"), call(3))
    messages = play.work()
    assert seen == [[LogLines("a line\n")]]
    assert sorted(outcomes(messages)) == [1, 2, 3]


def test_a_handler_that_logs_while_outcomes_are_sent(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that logs while outcomes are sent sends its line alone, and each outcome is sent once."""
    play.tasks["speak"] = lambda: play.child.say("of the task\n")
    interfere(monkeypatch, lambda: play.child.say("of the handler\n"))
    play.tell(call(1), call(2, "speak"), call(3))
    messages = play.work()
    assert [seq for message in seqs(messages) for seq in message] == [1, 2, 3]
    assert [LogLines("of the handler\n")] in messages


def test_each_thread_gets_its_own_answer(play: Play) -> None:
    """Calls that several threads send at once are each answered to their own thread."""
    ends: list[BaseException | None] = []

    def send(running: _task_context.RunningTask, body: bytes) -> None:
        try:
            running._enqueue(body)
        except BrokerError as error:
            ends.append(error)
        else:
            ends.append(None)

    def be_many() -> None:
        running = _task_context.current_task()
        assert running is not None
        threads = [threading.Thread(target=send, args=(running, b"%d" % n)) for n in range(5)]
        for thread in threads:
            thread.start()
        play.parent.setblocking(True)
        asked = []
        for _ in threads:
            message, [answer] = framing.receive_with_fds(play.parent)
            [frame] = frames.read_from_child(message)
            assert isinstance(frame, Enqueue)
            assert frame.ticket == 0
            asked.append((frame.message, answer))
        play.parent.setblocking(False)
        for body, descriptor in reversed(asked):
            with socket.socket(fileno=descriptor) as there:
                framing.send(there, frames.pack((EnqueueAnswer(0, body.decode() if body in b"13" else None),)))
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    play.tasks["be_many"] = be_many
    play.tell(call(1, "be_many"))
    assert outcomes(play.work()) == {1: OK}
    assert sorted(str(end) for end in ends) == ["1", "3", "None", "None", "None"]


def test_a_thread_whose_answer_cannot_come(play: Play) -> None:
    """A thread whose answer cannot come gets an error."""
    said: list[str] = []

    def drop() -> None:
        play.parent.setblocking(True)
        _, [answer] = framing.receive_with_fds(play.parent)
        play.parent.setblocking(False)
        os.close(answer)

    def send() -> None:
        running = _task_context.current_task()
        assert running is not None

        def enqueue() -> None:
            with pytest.raises(BrokerError, match="ulimit") as refused:
                running._enqueue(b"")
            said.append(str(refused.value))

        thread = threading.Thread(target=enqueue)
        thread.start()
        drop()
        thread.join(PATIENCE)

    play.tasks["send"] = send
    play.tell(call(1, "send"))
    assert outcomes(play.work()) == {1: OK}
    assert len(said) == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(("end", "status"), [(lambda: None, 0), (lambda: sys.exit(5), 5), (lambda: 1 / 0, 1)])
def test_a_fork_that_comes_back_ends(play: Play, end: Callable[[], object], status: int) -> None:
    """A fork that returns from its task ends with its own status, and sends no outcome."""
    seen: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            end()
            return
        seen.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    play.tasks["fork"] = fork
    play.tell(call(1), call(2, "fork"), call(3))
    messages = play.work()
    assert seen == [status]
    assert [seq for message in seqs(messages) for seq in message] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_logs_its_own_lines(play: Play) -> None:
    """A fork that logs sends its line alone, and no outcome of its parent."""

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            play.child.say("of the fork\n")
            os._exit(0)
        os.waitpid(pid, 0)

    play.tasks["fork"] = fork
    play.tell(call(1), call(2, "fork"))
    messages = play.work()
    assert [seq for message in seqs(messages) for seq in message] == [1, 2]
    assert [LogLines("of the fork\n")] in messages


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_has_default_handlers(play: Play) -> None:
    """A fork has the default handlers of the signals that its child handles or ignores."""
    seen: list[list[Any]] = []

    def fork() -> None:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            found = [signal.getsignal(number) for number in (ATTENTION, signal.SIGTERM)]
            os.write(write, b"default" if found == [signal.SIG_DFL] * 2 else b"other")
            os._exit(0)
        os.waitpid(pid, 0)
        seen.append([os.read(read, 99)])
        os.close(read)
        os.close(write)

    play.tasks["fork"] = fork
    play.tell(call(1, "fork"))
    play.work()
    assert seen == [[b"default"]]


# ---- the channel is closed, or there are no descriptors --------------------------------------------------------------


def test_a_task_that_closes_the_channel(play: Play, capfd: pytest.CaptureFixture[str]) -> None:
    """A task that closes the channel leaves its outcome on the shared page, and the child ends before the next call."""
    copy = play.channel.dup()

    def close() -> None:
        os.close(play.channel.fileno())
        play.child.say("into the void\n")

    play.tasks["close"] = close
    play.tell(call(1), call(2, "close"))
    play.work()
    os.dup2(copy.fileno(), play.channel.fileno())
    copy.close()
    began, left = play.shared_page.read()
    assert began == 2
    assert [frame.seq for frame in left if isinstance(frame, Done)] == [1, 2]
    assert "closed the descriptor" in capfd.readouterr().err


def test_another_socket_in_the_channels_place(play: Play) -> None:
    """A socket that a task opened under the channel's number gets no message."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    copy = play.channel.dup()
    play.tasks["replace"] = lambda: os.dup2(far.fileno(), play.channel.fileno())
    play.tell(call(1, "replace"))
    play.work()
    os.dup2(copy.fileno(), play.channel.fileno())
    near.setblocking(False)
    with near, far, copy, pytest.raises(BlockingIOError):
        near.recv(1)
    assert [frame.seq for frame in play.shared_page.read()[1] if isinstance(frame, Done)] == [1]


def test_a_large_outcome_without_descriptors(play: Play) -> None:
    """A large outcome is sent though the task left no free descriptor."""
    large = Returned(b"x" * 200_000, "")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []

    def run(message: frames.RunCall, _file: int | None) -> ChildOutcome:
        if message.seq == 1:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
            while True:
                try:
                    held.append(os.dup(0))
                except OSError:
                    break
        return large

    def free() -> None:
        # The parent, which is this process too, needs some to take it.
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    play.tell(call(1))
    play.parent.shutdown(socket.SHUT_WR)
    play.child.work(run, MemoryGauge(0), lambda: None)
    free()
    for descriptor in held:
        os.close(descriptor)
    assert outcomes(play.heard()) == {1: large}


def test_a_socket_that_was_set_not_to_wait(play: Play) -> None:
    """A channel that a task made non-blocking works on."""
    play.tasks["change"] = lambda: os.set_blocking(play.channel.fileno(), False)
    play.tell(call(1, "change"))

    def tell() -> None:
        play.tell(call(2))
        play.parent.shutdown(socket.SHUT_WR)

    thread = threading.Timer(0.2, tell)
    thread.start()
    play.child.work(play.run, MemoryGauge(0), lambda: None)
    thread.join()
    assert outcomes(play.heard()) == {1: OK, 2: OK}


# ---- what a task leaves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None])
def test_attention_is_taken_back(play: Play, handler: Any) -> None:
    """A task that takes the child's signal does not keep it from the next task."""
    play.tasks["take"] = lambda: signal.signal(ATTENTION, handler)
    play.tasks["long"] = lambda: play.tell(Interrupt(2, "cancelled"), alert=True)
    play.tell(call(1, "take"), call(2, "long"))
    done = outcomes(play.work())
    assert isinstance(done[2], Raised)
    assert done[2].kind == "TaskCancelled"


def left_behind(play: Play, spoil: Callable[[], object], look: Callable[[], object]) -> object:
    """Return what the next call finds after one that spoils something; the first calls come in one message."""
    seen: list[object] = []
    play.tasks["spoil"], play.tasks["look"] = spoil, lambda: seen.append(look())
    play.tell(call(1, "spoil"))
    play.tell(call(2, "look"))
    assert outcomes(play.work()) == {1: OK, 2: OK}
    return seen[0]


def test_blocked_signals_are_freed(play: Play) -> None:
    """Signals that a task blocked are unblocked for the next task."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    found = left_behind(
        play,
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    )
    assert found == before


def test_ignored_signals_are_given_back(play: Play) -> None:
    """Signals that a task ignores have their handlers back for the next task."""
    before = signal.getsignal(signal.SIGCHLD)
    found = left_behind(
        play, lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN), lambda: signal.getsignal(signal.SIGCHLD)
    )
    assert found == before


def test_folder_and_mask_are_put_back(play: Play, tmp_path: Path) -> None:
    """The current folder and the umask are restored for the next task."""
    before = str(Path.cwd())

    def spoil() -> None:
        os.chdir(tmp_path)
        tmp_path.rmdir()
        os.umask(0o777)

    def look() -> tuple[str, int]:
        mask = os.umask(0o022)
        os.umask(mask)
        return str(Path.cwd()), mask

    mask = os.umask(0o022)
    os.umask(mask)
    assert left_behind(play, spoil, look) == (before, mask)


def test_limits_are_put_back(play: Play) -> None:
    """Resource limits are restored for the next task."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    found = left_behind(
        play,
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1])),
        lambda: resource.getrlimit(resource.RLIMIT_FSIZE),
    )
    assert found == before


def test_closed_standard_descriptors_are_filled(play: Play) -> None:
    """Standard descriptors that a task closed are opened on /dev/null for the next task."""
    copy = os.dup(0)
    try:
        assert left_behind(play, lambda: os.close(0), lambda: os.fstat(0).st_rdev) == Path(os.devnull).stat().st_rdev
    finally:
        os.dup2(copy, 0)
        os.close(copy)


def test_an_exception_between_two_tasks_is_not_theirs(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that a left-over handler raises between two tasks loses no outcome, and the child works on."""
    add, struck = SharedPage.add, [True]

    def add_and_strike(shared_page: SharedPage, outcome: bytes) -> bool:
        done = add(shared_page, outcome)
        if struck:
            struck.clear()
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(SharedPage, "add", add_and_strike)
    play.tell(call(1), call(2))
    assert outcomes(play.work()) == {1: OK, 2: OK}


# ---- a stop that goes unheard ----------------------------------------------------------------------------------------


def test_a_stop_thrown_away_is_raised_again(play: Play) -> None:
    """An interrupt that Python discarded in a `__del__` method is raised again at the next alert."""

    class Deaf:
        def __del__(self) -> None:
            play.tell(Interrupt(1, "soft time limit", 1.0), alert=True)

    def run() -> None:
        deaf = Deaf()
        del deaf
        signal.raise_signal(ATTENTION)

    play.tasks["run"] = run
    play.tell(call(1, "run"))
    [done] = outcomes(play.work()).values()
    assert isinstance(done, Raised)
    assert done.kind == "SoftTimeLimitExceeded"


@pytest.mark.parametrize("where", ["background task", "callback"])
def test_a_stop_in_an_event_loop_ends_it(play: Play, where: str) -> None:
    """An interrupt in another coroutine or in a callback ends the event loop and is raised to its caller."""

    def be_stopped() -> None:
        play.tell(Interrupt(1, "soft time limit", 1.0), alert=True)

    async def beside() -> None:
        be_stopped()

    async def main() -> None:
        if where == "callback":
            asyncio.get_running_loop().call_soon(be_stopped)
        else:
            task = asyncio.create_task(beside())
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.sleep(PATIENCE)

    def run() -> None:
        with pytest.raises(SoftTimeLimitExceeded) as stopped:
            asyncio.run(main())
        assert type(pickle.loads(pickle.dumps(stopped.value))) is SoftTimeLimitExceeded

    play.tasks["run"] = run
    play.tell(call(1, "run"))
    assert outcomes(play.work()) == {1: OK}


def test_asks_from_a_handler_while_it_asks(play: Play) -> None:
    """A handler that sends a call while the task waits for an answer does not take the task's answer."""
    before = signal.getsignal(signal.SIGUSR2)
    ends: list[str] = []

    def handler(*_: object) -> None:
        def answer() -> None:
            play.parent.setblocking(True)
            while True:
                message, fds = framing.receive_with_fds(play.parent)
                [frame] = frames.read_from_child(message)
                if isinstance(frame, Enqueue) and not frame.ticket:
                    with socket.socket(fileno=fds[0]) as there:
                        framing.send(there, frames.pack((EnqueueAnswer(0, None),)))
                    play.parent.setblocking(False)
                    play.tell(EnqueueAnswer(1, None))
                    return

        thread = threading.Thread(target=answer)
        thread.start()
        ask()
        ends.append("handler")
        thread.join(PATIENCE)

    def run() -> None:
        signal.signal(signal.SIGUSR2, handler)
        timer = threading.Timer(0.1, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2))
        timer.start()
        try:
            ask()
            ends.append("task")
        finally:
            timer.join()
            signal.signal(signal.SIGUSR2, before)

    play.tasks["run"] = run
    play.tell(call(1, "run"))
    assert outcomes(play.work()) == {1: OK}
    assert ends == ["handler", "task"]
