"""A child that runs several calls at once, as the parent sees it: its calls end in any order."""

import asyncio
from collections.abc import Sequence

import attrs

from hybridpool._ipc.frames import Interrupt, ReportHolder
from hybridpool._lanes.base import Job
from hybridpool._lanes.children.handle import CallInFlight, ChildHandle
from hybridpool._lanes.snapshot import CallSnapshot, ChildSnapshot
from hybridpool._policy.lifecycle import ChildEvent, State


@attrs.define(eq=False)
class SharedChildHandle(ChildHandle):
    """A child with slots. The first of its calls means nothing here, so `head` stays None."""

    #: the call that it was killed for; 0: none, or it was not killed
    killed_for: int = 0
    #: calls whose submitters were told that they have ended, although their code may still run. While there are any, it
    #: is condemned: it takes no more calls, and is killed with the others that it has if these do not end in time
    given_up: set[int] = attrs.field(factory=set)
    condemned: asyncio.TimerHandle | None = None
    #: when the next thing is due for a call, by its number
    timers: dict[int, asyncio.TimerHandle] = attrs.field(factory=dict)
    #: monotonic seconds of when a call was told to stop for good
    stopped_at: dict[int, float] = attrs.field(factory=dict)
    #: of the call that holds its loop: whether that was said, and whether it was told to stop
    held_said: int = 0
    held_stopped_at: float = 0.0
    _pulse: tuple[int, int] = (0, 0)
    _pulse_since: float = 0.0
    _stage_at_death: int | None = attrs.field(default=None, init=False)

    @property
    def room(self) -> int:
        """How many more calls it can take."""
        return self.slots - len(self.calls)

    @property
    def last_number(self) -> int:
        """The number of the last call that it was given."""
        return self._sent

    @property
    def takes_calls(self) -> bool:
        """It can be given calls now."""
        return self.state in (State.IDLE, State.BUSY) and not self.is_to_be_killed and self.room > 0

    def give(self, jobs: Sequence[Job], now: float) -> None:
        """Put calls into the channel."""
        if not self.calls:
            self._pulse_since = now
        super().give(jobs, now)
        self.head = None
        if self.calls and self.state is State.IDLE:
            # The first of them could not be given, and it was the only one at that moment.
            self.transition(ChildEvent.CALL)

    def take_ended(self, number: int, now: float) -> CallInFlight | None:
        """Return a call that was answered, to be forgotten; None: it was heard before.

        Or the child was never given it: then there is a `fault`.
        """
        call = self.calls.pop(number, None)
        if call is None:
            if number > self._sent:
                self.fault = "it answered a call that it was not given"
            return None
        if not self.calls:
            self._end_if_done(now)
        return call

    def forget(self, number: int) -> None:
        """Drop what is kept about a call that has ended."""
        self.stop_timer(number)
        self.stopped_at.pop(number, None)
        self.given_up.discard(number)
        if self.condemned is not None and not self.given_up:
            # It has come to its end after all; the child goes with its last call, as any that retires.
            self.condemned.cancel()
            self.condemned = None

    def stop_timer(self, number: int) -> None:
        """Do nothing more about a call by itself."""
        timer = self.timers.pop(number, None)
        if timer is not None:
            timer.cancel()

    def interrupt(self, number: int, why: str, limit: float = 0.0) -> None:
        """Raise in a call: a soft limit, or, without one, that it is to stop."""
        self.tell(Interrupt(number, why, limit))

    def ask_who_holds(self) -> None:
        """Have the child say which call does not let its loop go on, and where that is."""
        self.tell(ReportHolder())

    def still_for(self, now: float) -> float:
        """Return for how many seconds the child's loop has not turned."""
        pulse = self._shared_page.pulse
        if pulse != self._pulse:
            self._pulse, self._pulse_since = pulse, now
        return now - self._pulse_since

    @property
    def on_stage(self) -> int:
        """The call whose code runs; 0: none, or that of a thread. After the child's death: whose code ran."""
        return self._shared_page.on_stage if self._stage_at_death is None else self._stage_at_death

    def close(self) -> tuple[list[CallInFlight], list[CallInFlight]]:
        """After `drain_outcomes`: let go of the channel.

        :returns: the calls it never began, and those that died with it.
        """
        self._stage_at_death = self._shared_page.on_stage
        for timer in (*self.timers.values(), self.condemned):
            if timer is not None:
                timer.cancel()
        self.timers.clear()
        return super().close()

    def snapshot(self) -> ChildSnapshot:
        """Return what the child does at this moment; its oldest call stands for all."""
        seen = super().snapshot()
        if not self.calls:
            return seen
        oldest = next(iter(self.calls.values()))
        current = CallSnapshot(number=oldest.number, task=oldest.job.task, id=oldest.job.id, since=oldest.since)
        return attrs.evolve(seen, current=current)
