"""The steps of a fake child, from its start to its exit, with time between them.

What it does next is decided by the child's own `ChildProtocol`. This module performs it: it yields wherever a signal,
the parent, another thread or death can come in between. What it yields is how long the step takes.
"""
# pyright: reportPrivateUsage=false

import os
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Final

from hybridpool._child import protocol
from hybridpool._child.protocol import Actions, ChildProtocol, DropFiles, Raise, Send
from hybridpool._child.rendering import to_raised
from hybridpool._ipc import frames, framing, shared_page
from hybridpool._ipc.frames import (
    Done,
    Enqueue,
    EnqueueAnswer,
    LogLines,
    Raised,
    Ready,
    Returned,
    RunCall,
    StartFailed,
)
from hybridpool._ipc.framing import MAX_INLINE_BYTES
from hybridpool.errors import SoftTimeLimitExceeded, TaskCancelled, TaskSignal
from tests.simulation.channel import FarEnd, StepPage
from tests.simulation.plan import ChildPlan, Step
from tests.simulation.world import Fate, World

#: how many messages a thread has each time a call wakes it, and how often one is a call
_MESSAGES_OF_A_THREAD: Final = 8
_ENQUEUES: Final = 0.2
#: virtual seconds within which a thread is answered, and how often it looks
_ANSWERED_WITHIN_S: Final = 0.05
_LOOKS_FOR_AN_ANSWER: Final = 4
#: yielded to wait for a message; any other value is a number of seconds
MESSAGE: Final = -1.0
Steps = Generator[float, None, int]


class Died(Exception):
    """The child dies of itself, at this step."""

    def __init__(self, status: int) -> None:
        self.status = status


class Life:
    """What a child does."""

    def __init__(
        self, world: World, name: str, pid: int, plan: ChildPlan, channel: FarEnd, shared_page: StepPage
    ) -> None:
        self._world = world
        self._name = name
        self._pid = pid
        self._plan = plan
        self._channel = channel
        self._shared_page = shared_page
        self._protocol = ChildProtocol()
        #: ticket of the last enqueue that was sent
        self._asked = 0
        #: numbers of the calls whose outcomes were sent from the page
        self._sent: set[int] = set()
        #: called when a call begins
        self.on_begin: Callable[[], None] = lambda: None
        #: the call it has before it
        self.fate: Fate | None = None

    def live(self) -> Steps:
        """Start, work, and exit.

        :returns: the exit status.
        """
        plan = self._plan
        yield plan.birth
        if plan.start_failure is not None:
            if plan.start_failure != "it dies":
                self._send(StartFailed(plan.start_failure))
            return self._world.exit_status()
        self._send(Ready(self._pid))
        yield from self._work()
        yield plan.farewell
        return self._world.exit_status() if plan.dies_retiring and not self._world.is_quiet else 0

    def _work(self) -> Generator[float, None, None]:
        while True:
            match self._protocol.next_action():
                case RunCall() as call:
                    yield from self._serve(call)
                case protocol.Step.READ:
                    yield from self._read()
                case tuple() as actions:
                    yield from self._perform(actions)
                case _:
                    return

    def _serve(self, call: RunCall) -> Generator[float, None, None]:
        self.fate = fate = self._world.fates[call.id]
        self._may_die(Step.READ)
        yield from self._pause()
        self._shared_page.announce(call.seq)
        self._may_die(Step.NEXT)
        yield from self._pause()
        while self._shared_page.is_to_be_killed(call.seq):
            yield shared_page._POLL_INTERVAL_S
        self._shared_page.begin(call.seq)
        self._world.begins(fate, self._name)
        self._may_die(Step.START)
        self.on_begin()
        yield from self._pause()
        started = self._world.loop.time()
        try:
            if self._protocol.call_begins(call.seq):
                self.attend()
            outcome = yield from self._run(fate)
            yield from self._pause()
            self._protocol.at_work = 0
        except TaskSignal as late:
            self._protocol.at_work = 0
            outcome = to_raised(late)
        self._may_die(Step.ENDED)
        self._channel.drop_file(call.seq)
        yield from self._answer(fate, Done(call.seq, outcome, self._world.loop.time() - started, 0))
        self._may_die(Step.ANSWERED)
        self.fate = None

    def _run(self, fate: Fate) -> Generator[float, None, Returned | Raised]:
        plan = fate.plan
        left = plan.seconds
        try:
            if plan.enqueues:
                yield from self._say()
                yield from self._enqueue()
            yield left / 2
            self._may_die(Step.MIDDLE)
            yield left / 2
        except TaskSignal as signal:
            if plan.stops_in is not None:
                yield plan.stops_in
                return to_raised(signal)
            yield left
        return to_raised(ValueError(plan.task)) if plan.raises else Returned(b"1" * plan.bulk[1], "")

    def _answer(self, fate: Fate, done: Done) -> Generator[float, None, None]:
        outcome = done.outcome
        if isinstance(outcome, Returned) and len(outcome.value) > MAX_INLINE_BYTES:
            done.outcome = Returned(b"", "", (len(outcome.value),))
            file = self._channel.file_of(outcome.value)
            try:
                yield from self._perform(self._protocol.send_after_outcomes(done), (file,))
            finally:
                os.close(file)
            fate.is_noted = True
            return
        if not self._shared_page.add(frames.pack(done)):
            yield from self._perform(self._protocol.send_after_outcomes(done))
            fate.is_noted = True
            return
        fate.is_noted = True
        self._may_die(Step.NOTED)
        yield from self._pause()
        yield from self._perform(self._protocol.outcome_noted(self._world.loop.time()))

    def _perform(self, actions: Actions, fds: Sequence[int] = ()) -> Generator[float, None, None]:
        """Do what the protocol says. While outcomes are sent, other threads run."""
        for action in actions:
            match action:
                case protocol.Step.SEND_OUTCOMES:
                    self._write_outcomes()
                    self._may_die(Step.SENT)
                    yield self._world.dice.among(0.0, 0.0002, 0.0006) if self._plan.chatters else 0.0
                case protocol.Step.CLEAR_OUTCOMES:
                    self._protocol.outcomes_sent()
                    self._shared_page.clear()
                case Send(frame=frame):
                    if isinstance(frame, Enqueue):
                        self._asked = frame.ticket
                    self._write(frames.pack((frame,)), fds)
                case DropFiles(seqs=seqs):
                    for seq in seqs:
                        self._channel.drop_file(seq)
                case Raise(interrupt=interrupt):
                    raise SoftTimeLimitExceeded(interrupt.limit) if interrupt.limit else TaskCancelled(interrupt.why)
                case _:
                    self._world.require(False, "the protocol wants", action, "among others")  # always broken

    def _write_outcomes(self) -> None:
        message = self._shared_page.message()
        for frame in frames.read_from_child(message):
            assert isinstance(frame, Done)
            self._world.require(frame.seq not in self._sent, self._name, "sends an outcome twice")
            self._sent.add(frame.seq)
        self._write(message)

    def _send(self, *said: frames.FromChild) -> None:
        self._write(frames.pack(said))

    def _write(self, message: bytes, fds: Sequence[int] = ()) -> None:
        try:
            self._channel.write(message, fds)
        except ConnectionError:
            raise Died(1 << 8) from None

    def _say(self) -> Generator[float, None, None]:
        """A line that the task itself logs."""
        if self._protocol.enter():
            yield from self._perform(self._protocol.flush())
            self._leave()
        self._send(LogLines("a line\n"))

    def other_thread(self) -> Generator[float, None, None]:
        """What a thread does that a task, or a hook, has left: it logs and sends calls at any moment."""
        dice = self._world.dice
        for _ in range(_MESSAGES_OF_A_THREAD):
            yield dice.among(0.0, 0.00005, 0.0002, 0.003)
            if dice.is_struck(_ENQUEUES):
                yield from self._ask_apart()
            else:
                yield from self._say_apart()

    def _say_apart(self) -> Generator[float, None, None]:
        """A line that another thread logs: a message of its own, and nothing else."""
        self._send(LogLines("a line of a thread\n"))
        yield from self._pause()

    def _ask_apart(self) -> Generator[float, None, None]:
        near, far = framing.socket_pair()
        with near:
            with far:
                self._channel.write(frames.pack((Enqueue(0, b""),)), (far.fileno(),))
            # More than once, as the clock may jump in between.
            for _ in range(_LOOKS_FOR_AN_ANSWER):
                yield _ANSWERED_WITHIN_S
                with suppress(BlockingIOError):
                    near.recv(MAX_INLINE_BYTES, socket.MSG_DONTWAIT)
                    return
            self._world.require(False, "a thread of", self._name, "is not answered")  # always broken

    def _read(self) -> Generator[float, None, None]:
        while True:
            yield MESSAGE
            try:
                self._receive()
            except BlockingIOError:
                # The parent took it back.
                continue
            return

    def _receive(self) -> None:
        """Pass a message that is there to the protocol; sometimes there is no descriptor left for what it carries.

        :raises BlockingIOError: if none is there.
        """
        received = self._channel.read(lambda: self._world.strikes() and self._count_lost())
        if received is None:
            self._protocol.receive_end()
        else:
            self._protocol.receive(*received)

    def _count_lost(self) -> bool:
        self._world.counts["files lost"] += 1
        return True

    def _enqueue(self) -> Generator[float, None, None]:
        self._world.require(self._protocol.enter(), "the channel is not free for a task of", self._name)
        try:
            yield from self._ask()
        except TaskSignal:
            self._leave()
            raise
        self._leave()

    def _ask(self) -> Generator[float, None, None]:
        yield from self._perform(self._protocol.enqueue(b""))
        while True:
            match self._protocol.next_while_asking():
                case EnqueueAnswer() as answer:
                    self._world.require(answer.ticket == self._asked, "an enqueue took the answer to another")
                    return
                case protocol.Step.READ:
                    yield from self._read()
                case tuple() as actions:
                    yield from self._perform(actions)
                case _:
                    raise Died(1 << 8)

    def attend(self) -> None:
        """The handler of ATTENTION.

        :raises TaskSignal: if the task at work is to stop.
        """
        if not self._protocol.attention():
            return
        try:
            self._look()
        except TaskSignal:
            self._protocol.is_busy = False
            raise
        self._leave()

    def _look(self) -> None:
        try:
            while not self._protocol.has_ended:
                self._receive()
        except BlockingIOError:
            pass
        while actions := self._protocol.next_order():
            # A handler takes no time.
            for _ in self._perform(actions):
                continue

    def _leave(self) -> None:
        """Leave the channel to others, and look at it if ATTENTION was missed."""
        self._protocol.is_busy = False
        if self._protocol.take_missed_attention():
            self.attend()

    def discard(self) -> bool:
        """Have Python throw away the interrupt that was just raised; False if the protocol takes it for none."""
        return self._protocol.interrupt_discarded()

    def _pause(self) -> Generator[float, None, None]:
        if self._world.dice.is_struck(self._plan.dawdles):
            yield delay(self._world, self._plan)

    def _may_die(self, step: Step) -> None:
        if self.fate is not None and self._world.crash_due(self.fate, step):
            self._world.counts["crashes"] += 1
            self._world.note("crashes", self._name, step.value)
            raise Died(self._world.exit_status())


def delay(world: World, plan: ChildPlan) -> float:
    """Return how long a child takes to go on: no time, or, at times, long enough for its parent to change its mind."""
    if not world.dice.is_struck(plan.dawdles):
        return 0.0
    return world.dice.among(0.0001, 0.002, 0.02, 0.5) if world.strikes() else world.dice.among(0.0001, 0.002)
