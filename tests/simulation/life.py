"""The steps of a fake child's life: a mirror of `child.birth` and `child.loop`, with time between them.

It yields wherever a real child could be overtaken: by a signal, by its parent, by death. What it yields is how long
the step takes.
"""
# pyright: reportPrivateUsage=false

import socket
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Final

from hybridpool._child import loop
from hybridpool._child.rendering import to_raised
from hybridpool._ipc import frames, framing, shared_page
from hybridpool._ipc.frames import (
    CallsGivenBack,
    Done,
    Enqueue,
    EnqueueAnswer,
    Interrupt,
    LogLines,
    Raised,
    Ready,
    Recall,
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
#: the wish to be woken by a message; any other wish is a number of seconds
MESSAGE: Final = -1.0
Steps = Generator[float, None, int]


class Died(Exception):
    """The child dies of itself, at this step."""

    def __init__(self, status: int) -> None:
        self.status = status


class Life:
    """What a child does, and what it knows."""

    def __init__(
        self, world: World, name: str, pid: int, plan: ChildPlan, channel: FarEnd, shared_page: StepPage
    ) -> None:
        self._world = world
        self._name = name
        self._pid = pid
        self._plan = plan
        self._channel = channel
        self._shared_page = shared_page
        #: called when a call begins
        self.on_begin: Callable[[], None] = lambda: None
        #: the call it has before it
        self.fate: Fate | None = None
        self._waiting_since = 0.0
        self._tickets = self._at_work = self._stopped = self._cancelled = 0
        self._occupied = self._missed = False

    def live(self) -> Steps:
        """Be born, work, and go.

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
            if not self._channel.inbox:
                yield from self._flush()
                if not (yield from self._read()):
                    return
            match self._channel.inbox.popleft():
                case RunCall() as call:
                    yield from self._serve(call)
                case Recall():
                    self._give_back()
                case _:
                    continue

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
        self._at_work = call.seq
        try:
            self._make_good()
            outcome = yield from self._run(fate)
            yield from self._pause()
            self._at_work = 0
        except TaskSignal as late:
            self._at_work = 0
            outcome = to_raised(late)
        self._may_die(Step.ENDED)
        self._channel.drop_file(call.seq)
        now = self._world.loop.time()
        yield from self._answer(fate, Done(call.seq, outcome, now - started, 0), now)
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

    def _answer(self, fate: Fate, done: Done, now: float) -> Generator[float, None, None]:
        if not self._shared_page.count:
            self._waiting_since = now
        if isinstance(done.outcome, Returned) and len(done.outcome.value) > MAX_INLINE_BYTES:
            yield from self._flush()
            self._channel.write_large(done, done.outcome.value)
            fate.is_noted = True
            return
        if not self._shared_page.add(frames.pack(done)):
            yield from self._flush()
            self._send(done)
            fate.is_noted = True
            return
        fate.is_noted = True
        self._may_die(Step.NOTED)
        yield from self._pause()
        waited = self._world.loop.time() - self._waiting_since
        if loop.is_time_to_send(self._shared_page.count, len(self._channel.inbox), waited):
            yield from self._flush()

    def _send(self, *said: frames.FromChild) -> None:
        try:
            self._channel.write(frames.pack(said))
        except ConnectionError:
            raise Died(1 << 8) from None

    def _flush(self) -> Generator[float, None, None]:
        """Send the outcomes that wait. While it sends, other threads run."""
        if self._shared_page.count:
            self._write_waiting()
            yield self._world.dice.among(0.0, 0.0002, 0.0006) if self._plan.chatters else 0.0
            self._shared_page.clear()

    def _write_waiting(self) -> None:
        try:
            self._channel.write(self._shared_page.message())
        except ConnectionError:
            raise Died(1 << 8) from None
        self._may_die(Step.SENT)

    def _say(self) -> Generator[float, None, None]:
        """A line that the task itself logs."""
        if self._shared_page.count and not self._occupied:
            self._occupied = True
            try:
                yield from self._flush()
            finally:
                self._occupied = False
            self._make_good()
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

    def _read(self) -> Generator[float, None, bool]:
        while True:
            yield MESSAGE
            try:
                return self._channel.read()
            except BlockingIOError:
                # The parent took it back.
                continue

    def _enqueue(self) -> Generator[float, None, None]:
        self._tickets += 1
        self._occupied = True
        try:
            yield from self._flush()
            self._send(Enqueue(self._tickets, b""))
            while all(answer.ticket != self._tickets for answer in self._channel.pick(EnqueueAnswer)):
                self._obey()
                if not (yield from self._read()):
                    raise Died(1 << 8)
        finally:
            self._occupied = False
        self._make_good()

    def attend(self) -> None:
        """The handler of ATTENTION."""
        if not self._at_work or self._occupied:
            self._missed = True
            return
        try:
            while self._channel.read():
                continue
        except BlockingIOError:
            pass
        self._obey()

    def _make_good(self) -> None:
        if self._missed:
            self._missed = False
            self.attend()

    def _obey(self) -> None:
        for _ in self._channel.pick(Recall):
            self._give_back()
        for stop in self._channel.pick(Interrupt):
            done = self._stopped if stop.limit else self._cancelled
            if stop.seq == self._at_work != done:
                self._stopped = stop.seq
                if stop.limit:
                    raise SoftTimeLimitExceeded(stop.limit)
                self._cancelled = stop.seq
                raise TaskCancelled(stop.why)

    def _give_back(self) -> None:
        calls = self._channel.pick(RunCall)
        for call in calls:
            self._channel.drop_file(call.seq)
        if self._shared_page.count:
            self._write_waiting()
            self._shared_page.clear()
        self._send(CallsGivenBack([call.seq for call in calls]))

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
