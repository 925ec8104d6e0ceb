"""A child that runs several calls at once and is not a process: real channel and page, virtual time.

Its calls take turns as coroutines do, or as threads. While one holds the loop, nothing else in the child happens.
"""

import math
import os
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Final

import attrs

from hybridpool._child.rendering import to_raised
from hybridpool._ipc import frames
from hybridpool._ipc.frames import (
    ChildOrders,
    Done,
    Enqueue,
    EnqueueAnswer,
    Interrupt,
    LoopHeld,
    Raised,
    Ready,
    ReportHolder,
    Returned,
    RunCall,
    StartFailed,
)
from hybridpool._ipc.framing import MAX_INLINE_BYTES
from hybridpool.errors import SoftTimeLimitExceeded, TaskCancelled
from tests.simulation.channel import FarEnd, StepPage
from tests.simulation.plan import ChildPlan, Step
from tests.simulation.world import Fate, World

_KILLED: Final = 9
#: virtual seconds between two beats of a loop that has calls
_BEAT_S: Final = 0.1


@attrs.define(eq=False)
class _Flight:
    """A call in a child."""

    call: RunCall
    fate: Fate
    #: of what it does next; None: it waits for its parent
    timer: TimerHandle | None = None
    softened: bool = False
    cancelled: bool = False
    ticket: int = 0


class FakeSharedChild:
    """One child, from the fork to its death."""

    def __init__(
        self,
        world: World,
        name: str,
        pid: int,
        orders: ChildOrders,
        fds: tuple[int, int],
        on_exit: Callable[["FakeSharedChild", int], None],
    ) -> None:
        self.name = name
        self.pid = pid
        self._world = world
        self._has_loop = orders.lane == "async"
        self._slots = orders.slots
        self._on_exit = on_exit
        self._plan: ChildPlan = world.dice.child(0.0 if world.is_quiet else world.plan.fault)
        self._channel = FarEnd(fds[0])
        self._page = StepPage(fds[1])
        os.close(fds[1])
        self._is_alive = True
        world.alive.add(name)
        self._flights: dict[int, _Flight] = {}
        #: the call that holds the loop, and what has to wait for it
        self._held: _Flight | None = None
        self._held_since = 0.0
        self._deferred: list[Callable[[], None]] = []
        self._timers: set[TimerHandle] = set()
        self._inbox: list[frames.ToChild] = []
        self._tickets = 0
        self._is_flush_due = self._is_beating = self._is_reading = False
        self._has_ended = False
        self._is_to_be_killed = False
        #: when a call ended last that had been given up
        self._ended_late = -math.inf
        if self._plan.birth != math.inf:
            self._later(self._plan.birth, self._start)
        if self._plan.dies_after is not None:
            self._later(self._plan.dies_after, self._die_suddenly, is_anytime=True)

    # ---- from outside ------------------------------------------------------------------------------------

    def kill_is_ordered(self) -> None:
        """The lane orders its death: it must have a reason at this moment."""
        world, held = self._world, self._held
        self._is_to_be_killed = True
        now, options = world.loop.time(), world.plan.lanes["async" if self._has_loop else "thread"].options
        timeout = options.block_timeout
        is_held = held is not None and timeout is not None and now - self._held_since >= timeout
        is_over = held is not None and world.is_overdue(held.fate.job)
        if is_held or is_over:
            assert held is not None
            held.fate.killed_for.add(self.name)
        fates = [flight.fate for flight in self._flights.values()]
        # Only such are left as were given up; or the others have had their time. Or the end of one is on the way.
        is_given_up = all(fate.ended is not None or world.is_overdue(fate.job) for fate in fates)
        is_drained = any(
            # One that was given up may have ended, or not have begun, and the lane not have heard it.
            fate.ended is not None and now - fate.ended_at >= options.drain_timeout - 1e-6
            for fate in world.fates.values()
            if fate.job.child == self.name
        )
        # However long ago: the clock may have jumped since, and the lane may not have heard of it yet.
        is_late = self._ended_late > -math.inf or bool(world.plan.jumps)
        is_due = is_held or is_over or is_given_up or is_drained or is_late or world.is_ending
        world.require(is_due, "a kill of", self.name, "hit", *(one.fate.job.id for one in self._flights.values()))

    def kill(self) -> None:
        """Be killed because the lane ordered it."""
        self.die(_KILLED)

    def alert(self) -> None:
        """Be sent ATTENTION: only code that holds the loop is interrupted by it."""
        held = self._held
        if held is None or self._world.strikes():
            return
        try:
            self._attend(held)
        except ConnectionError:
            self.die(1 << 8)

    def _attend(self, held: _Flight) -> None:
        self._read_all()
        for frame in list(self._inbox):
            if not self._is_alive:
                return
            if isinstance(frame, ReportHolder):
                self._inbox.remove(frame)
                self._send(LoopHeld(held.call.seq, "  where it is\n"))
            elif isinstance(frame, Interrupt) and frame.seq == held.call.seq:
                self._inbox.remove(frame)
                if self._held is held and self._is_due(held, frame) and held.fate.plan.stops_in is not None:
                    self._end_hold()
                    self._finish(held, to_raised(_signal(frame)))

    def die(self, status: int) -> None:
        """Be gone; the kernel closes what was open."""
        if not self._is_alive:
            return
        self._is_alive = False
        self._world.alive.discard(self.name)
        for timer in self._timers:
            timer.cancel()
        for flight in self._flights.values():
            if flight.timer is not None:
                flight.timer.cancel()
        self._flights.clear()
        self._world.loop.remove_reader(self._channel.fileno())
        self._channel.close()
        self._page.close()
        self._world.note("died", self.name, f"status {status}")
        self._on_exit(self, status)

    # ---- time --------------------------------------------------------------------------------------------

    def _later(self, seconds: float, act: Callable[[], None], *, is_anytime: bool = False) -> TimerHandle:
        """Do something later, but not while a call holds the loop."""

        def due() -> None:
            self._timers.discard(timer)
            if not self._is_alive:
                return
            if self._held is not None and not is_anytime:
                self._deferred.append(act)
                return
            try:
                act()
            except ConnectionError:
                self.die(1 << 8)

        timer = self._world.loop.call_later(seconds, due)
        self._timers.add(timer)
        return timer

    def _start(self) -> None:
        failure = self._plan.start_failure
        if failure is not None:
            if failure != "it dies":
                self._send(StartFailed(failure))
            self.die(self._world.exit_status())
            return
        self._send(Ready(self.pid))
        self._listen()

    def _listen(self) -> None:
        self._world.loop.add_reader(self._channel.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        self._world.loop.remove_reader(self._channel.fileno())
        self._later(self._pause(), self._read)

    def _pause(self) -> float:
        world = self._world
        if not world.dice.is_struck(self._plan.dawdles):
            return 0.0
        return world.dice.among(0.0001, 0.002, 0.02) if world.strikes() else world.dice.among(0.0001, 0.002)

    # ---- reading -----------------------------------------------------------------------------------------

    def _read(self) -> None:
        self._read_all()
        inbox, self._inbox = self._inbox, []
        for at, frame in enumerate(inbox):
            if self._held is not None:
                # A call that came first holds the loop.
                self._inbox = inbox[at:] + self._inbox
                self._later(0, self._read)
                return
            self._take(frame)
            if not self._is_alive:
                return
        if self._has_ended:
            self._leave_if_done()
        else:
            self._listen()

    def _read_all(self) -> None:
        try:
            while not self._has_ended:
                received = self._channel.read(lambda: False)
                if received is None:
                    self._has_ended = True
                else:
                    self._inbox.extend(received[0])
        except BlockingIOError:
            pass

    def _take(self, frame: frames.ToChild) -> None:
        match frame:
            case RunCall():
                self._begin(frame)
            case Interrupt():
                self._interrupt(frame)
            case EnqueueAnswer():
                self._answer(frame)
            case _:
                # Asked who holds the loop: none does any more.
                pass

    # ---- calls -------------------------------------------------------------------------------------------

    def _begin(self, call: RunCall) -> None:
        world, fate = self._world, self._world.fates[call.id]
        flight = _Flight(call, fate)
        if self._dies(flight, Step.READ, Step.NEXT):
            return
        self._page.begin(call.seq)
        world.begins(fate, self.name)
        self._flights[call.seq] = flight
        world.require(len(self._flights) <= self._slots, self.name, "runs more calls than it has slots")
        is_alone = not fate.job.is_apart or len(self._flights) == 1
        world.require(is_alone, fate.job.id, "was to run apart, and runs beside others in", self.name)
        if self._dies(flight, Step.START):
            return
        if self._has_loop and not self._is_beating:
            self._is_beating = True
            self._beat()
        if fate.plan.enqueues:
            self._tickets += 1
            flight.ticket = self._tickets
            self._send(Enqueue(flight.ticket, b""))
        else:
            self._go_on(flight)

    def _answer(self, answer: EnqueueAnswer) -> None:
        for flight in self._flights.values():
            if flight.ticket == answer.ticket and flight.timer is None:
                self._go_on(flight)
                return

    def _go_on(self, flight: _Flight) -> None:
        flight.timer = self._later(flight.fate.plan.seconds / 2, lambda: self._middle(flight))

    def _middle(self, flight: _Flight) -> None:
        plan = flight.fate.plan
        if self._dies(flight, Step.MIDDLE):
            return
        if plan.holds is not None and not self._world.is_quiet:
            self._world.counts["loops held"] += 1
            self._page.enter_stage(flight.call.seq)
            self._held, self._held_since = flight, self._world.loop.time()
            flight.timer = self._later(plan.holds, lambda: self._let_go(flight), is_anytime=True)
            return
        flight.timer = self._later(plan.seconds / 2, lambda: self._end(flight))

    def _let_go(self, flight: _Flight) -> None:
        self._end_hold()
        flight.timer = self._later(flight.fate.plan.seconds / 2, lambda: self._end(flight))

    def _end_hold(self) -> None:
        self._page.leave_stage()
        self._held = None
        deferred, self._deferred = self._deferred, []
        for act in deferred:
            self._later(0, act)

    def _end(self, flight: _Flight) -> None:
        plan = flight.fate.plan
        self._finish(flight, to_raised(ValueError(plan.task)) if plan.raises else Returned(b"1" * plan.bulk[1], ""))

    def _finish(self, flight: _Flight, outcome: Returned | Raised) -> None:
        if flight.call.seq not in self._flights:
            # Two ends were due while the loop was held; the first has come.
            return
        if flight.timer is not None:
            flight.timer.cancel()
        if self._dies(flight, Step.ENDED):
            return
        number, fate = flight.call.seq, flight.fate
        if fate.ended is not None:
            self._ended_late = self._world.loop.time()
        del self._flights[number]
        self._channel.drop_file(number)
        done = Done(number, outcome, 0.0, 0)
        if isinstance(outcome, Returned) and len(outcome.value) > MAX_INLINE_BYTES:
            done.outcome = Returned(b"", "", (len(outcome.value),))
            file = self._channel.file_of(outcome.value)
            try:
                self._channel.write(frames.pack((done,)), (file,))
            finally:
                os.close(file)
            fate.is_noted = True
        else:
            if not self._page.add(frames.pack(done)):
                self._flush()
                self._page.add(frames.pack(done))
            fate.is_noted = True
            if self._dies(flight, Step.NOTED):
                return
            if not self._is_flush_due:
                self._is_flush_due = True
                self._later(self._pause(), self._flush)
        if self._has_ended:
            self._leave_if_done()

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._page.count:
            self._channel.write(self._page.message())
            if self._world.strikes() and self._world.dice.is_struck(0.1):
                self._die_suddenly()
                return
            self._page.clear()

    def _interrupt(self, stop: Interrupt) -> None:
        flight = self._flights.get(stop.seq)
        if flight is None or not self._is_due(flight, stop):
            return
        stops_in = flight.fate.plan.stops_in
        if stops_in is None:
            return
        if flight.timer is not None:
            flight.timer.cancel()
        flight.timer = self._later(stops_in, lambda: self._finish(flight, to_raised(_signal(stop))))

    @staticmethod
    def _is_due(flight: _Flight, stop: Interrupt) -> bool:
        """Tell whether an interrupt is news to a call; one that was cancelled is told nothing more."""
        if flight.cancelled or (stop.limit and flight.softened):
            return False
        flight.softened |= bool(stop.limit)
        flight.cancelled |= not stop.limit
        return True

    def _beat(self) -> None:
        self._page.beat()
        self._is_beating = bool(self._flights)
        if self._is_beating:
            self._later(_BEAT_S, self._beat)

    # ---- ends --------------------------------------------------------------------------------------------

    def _leave_if_done(self) -> None:
        if self._flights:
            return
        self._flush()
        if self._is_alive:
            plan, world = self._plan, self._world
            status = world.exit_status() if plan.dies_retiring and not world.is_quiet else 0
            self._later(plan.farewell, lambda: self.die(status))

    def _dies(self, flight: _Flight, *steps: Step) -> bool:
        """Die of a call, if it is its time; with its code on stage, or nobody's."""
        world = self._world
        if not any(world.crash_due(flight.fate, step) for step in steps):
            return False
        world.counts["crashes"] += 1
        world.note("crashes", self.name, flight.fate.job.id)
        if flight.fate.plan.is_on_stage and flight.call.seq in self._flights:
            self._die_with(flight)
        self.die(world.exit_status())
        return True

    def _die_with(self, flight: _Flight) -> None:
        self._page.enter_stage(flight.call.seq)
        if not self._is_to_be_killed:
            flight.fate.killed.add(self.name)

    def _die_suddenly(self) -> None:
        """Be killed from outside; the code of any call, or of none, runs at that moment."""
        if self._world.is_quiet:
            return
        self._world.counts["crashes"] += 1
        if self._held is not None:
            self._die_with(self._held)
        elif self._has_loop and self._flights and self._world.dice.is_struck(0.5):
            self._die_with(self._world.chance.choice(list(self._flights.values())))
        self.die(self._world.exit_status())

    def _send(self, *said: frames.FromChild) -> None:
        self._channel.write(frames.pack(said))


def _signal(stop: Interrupt) -> SoftTimeLimitExceeded | TaskCancelled:
    return SoftTimeLimitExceeded(stop.limit) if stop.limit else TaskCancelled(stop.why)
