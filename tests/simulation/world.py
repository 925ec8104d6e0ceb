"""What is true in a simulation, whatever the lane believes: which child began a call, noted its outcome, died.

The promises about single calls are checked here, at each event that can break one.
"""

import random
from collections import Counter, deque
from typing import Final

import attrs

from hybridpool._lanes.base import Job
from hybridpool._lanes.shared.options import STOP_GRACE_S
from hybridpool._outcome import Cancelled, Lost, Outcome, Raised, Refused, Returned, TimedOut
from hybridpool._policy.death_of_shared import MAX_BESIDE, MAX_SUSPECTED
from hybridpool._policy.time_limits import UNREAD
from hybridpool.errors import SoftTimeLimitExceeded, TaskCancelled
from tests.simulation.plan import CallPlan, Dice, Plan, Step
from tests.simulation.virtual import VirtualLoop

#: seconds beyond a limit that the way to the child and back may take: the watchdog's last alert, and some
TOLERANCE: Final = 1.5
#: seconds within which a submitter that wants to know it is told that its call has begun
REPORT_TOLERANCE_S: Final = 0.015
_TRACED: Final = 400


class PromiseBroken(AssertionError):
    """The simulation has found a fault: which promise, the seed, and what happened before."""


@attrs.define(eq=False)
class Fate:
    """What became of one call."""

    plan: CallPlan
    job: Job
    begun_by: str = ""
    begun_at: float = 0.0
    #: its outcome stands on the shared page or is sent, so nothing may lose it
    is_noted: bool = False
    starts: int = 0
    #: its submitter was told that it has begun
    is_seen_begun: bool = False
    #: of a call beside others: children that died of it, and those that the lane had killed for it
    killed: set[str] = attrs.field(factory=set)
    killed_for: set[str] = attrs.field(factory=set)
    #: outcome, or why it will have none
    ended: Outcome | str | None = None
    ended_at: float = 0.0

    @property
    def is_shared(self) -> bool:
        """It runs beside others in one child."""
        return self.job.lane != "process"

    def end(self, how: Outcome | str) -> None:
        """Keep how it ended, and let go of files: as the submitter of a call has to."""
        self.ended, self.job.body, self.job.blob = how, b"", None


class World:
    """One schedule's truth."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        # Half of all schedules are of the prefork lane alone, where its own faults are found sooner.
        self.dice = Dice(self.chance, has_lanes=seed % 2 == 1)
        self.plan: Plan = self.dice.plan()
        self.loop = VirtualLoop(self.chance)
        self.fates: dict[str, Fate] = {}
        #: children that are there
        self.alive: set[str] = set()
        #: things that happened, by name
        self.counts: Counter[str] = Counter()
        #: nothing goes wrong from now on
        self.is_quiet = False
        #: the pool is being left, so calls may be lost for it
        self.is_ending = False
        #: seconds by which things may be late, because the machine or the zygote slept
        self.lateness = 0.0
        #: what a callback of the loop raised first
        self.failure: BaseException | None = None
        self._trace: deque[tuple[float, str, tuple[object, ...]]] = deque(maxlen=_TRACED)

    def note(self, what: str, *values: object) -> None:
        """Put a line into the trace."""
        self._trace.append((self.loop.time(), what, values))

    def trace(self) -> str:
        """Return what happened last."""
        return "\n".join(f"{at:12.6f}  {what} {' '.join(map(str, values))}" for at, what, values in self._trace)

    def require(self, promise: object, *what: object) -> None:
        """:raises PromiseBroken: if the promise is not kept."""
        if not promise:
            raise PromiseBroken(" ".join(map(str, what)))

    def strikes(self) -> bool:
        """Tell whether a fault comes true now."""
        return not self.is_quiet and self.dice.is_struck(self.plan.fault)

    def exit_status(self) -> int:
        """Return how a child dies: two signals, an error, and an exit that looks like an orderly one."""
        return self.chance.choice((9, 11, 1 << 8, 0))

    def crash_due(self, fate: Fate, step: Step) -> bool:
        """Tell whether the child dies at this step of the call; it does so for each call once."""
        if self.is_quiet or fate.plan.crash is not step:
            return False
        if not fate.plan.is_poison:
            fate.plan.crash = None
        return True

    def failed(self, _loop: object, context: dict[str, object]) -> None:
        """Keep what a callback raised; the loop's exception handler."""
        error = context.get("exception")
        if self.failure is None:
            self.failure = error if isinstance(error, BaseException) else PromiseBroken(str(context["message"]))

    # ---- calls -------------------------------------------------------------------------------------------

    def begins(self, fate: Fate, child: str) -> None:
        """A child begins a call."""
        job, before = fate.job, fate.begun_by
        self.note("begins", job.id, child)
        if fate.is_shared:
            self._begins_beside(fate, child)
        else:
            self.require(not before, job.id, "is run twice: by", before, "and", child)
            self.require(fate.ended is None, job.id, "is run although it has ended:", fate.ended)
        fate.begun_by, fate.begun_at = child, self.loop.time()
        fate.starts += 1
        if job.concurrency is not None:
            at_work = sum(self._is_at_work(one) for one in self.fates.values() if one.job.task == job.task)
            self.require(at_work <= job.concurrency, at_work, "calls of", job.task, "run at once")

    def _begins_beside(self, fate: Fate, child: str) -> None:
        job, before = fate.job, fate.begun_by
        is_free = before not in self.alive and not fate.is_noted
        self.require(not before or is_free, job.id, "is run twice: by", before, "and", child)
        self.require(not before or job.may_rerun, job.id, "is run twice, and must not be: by", before, "and", child)
        # One that was given up while it lay in the channel is begun, and told at once to stop.
        is_given_up = isinstance(fate.ended, TimedOut | Cancelled) and job.child == child
        self.require(fate.ended is None or is_given_up, job.id, "is run although it has ended:", fate.ended)
        self.require(fate.starts < MAX_SUSPECTED + MAX_BESIDE, job.id, "is started again and again")
        is_its = fate.killed and not self.counts["zygotes lost"]
        self.require(not is_its, job.id, "is run again, although these died of it:", *fate.killed)
        if before:
            self.counts["restarts"] += 1

    def seen_begun(self, job: Job) -> None:
        """A call's submitter is told that it has begun."""
        fate = self.fates[job.id]
        self.note("seen to begin", job.id)
        self.require(fate.begun_by == job.child and job.child, job.id, "is told to have begun, and has not")
        self.require(not fate.is_seen_begun, job.id, "is told twice to have begun")
        self.require(fate.ended is None, job.id, "is told to have begun after it has ended:", fate.ended)
        fate.is_seen_begun = True
        self.counts["seen to begin"] += 1

    def _is_at_work(self, fate: Fate) -> bool:
        return fate.begun_by in self.alive and not fate.is_noted

    def killed(self, fate: Fate, child: str) -> None:
        """A child is killed by the lane while a call is at work."""
        job, now = fate.job, self.loop.time()
        is_over = job.hard_limit is not None and now - (job.handed_at or 0.0) >= job.hard_limit - 1e-6
        is_given_up = job.cancelled_at is not None and now - job.cancelled_at >= job.grace - 1e-6
        self.require(self.is_ending or is_over or is_given_up, "a kill hit", job.id, "in", child, "which was not due")

    def is_overdue(self, job: Job) -> bool:
        """Tell whether a call beside others has had its limit or its cancellation, and the time to stop after it."""
        now = self.loop.time()
        limit = None if job.hard_limit is None else (job.handed_at or 0.0) + job.hard_limit + STOP_GRACE_S
        wanted = None if job.cancelled_at is None else job.cancelled_at + job.grace
        return any(moment is not None and now >= moment - 1e-6 for moment in (limit, wanted))

    def ended(self, job: Job, outcome: Outcome, child: str, _runtime: float) -> None:
        """A call's submitter is told how it ended."""
        fate = self.fates[job.id]
        shown = type(outcome).__name__
        self.note("ended", job.id, shown, child)
        self.require(fate.ended is None, job.id, "ended twice:", fate.ended, "and then", shown)
        fate.end(outcome)
        fate.ended_at = self.loop.time()
        self.counts[shown] += 1
        match outcome:
            case Lost() | TimedOut() | Cancelled() if fate.is_shared:
                self._ended_beside(fate, outcome, child)
            case Returned() | Raised() | Refused():
                self.require(fate.is_noted and child == fate.begun_by, job.id, "has an outcome that no child noted")
                self._check_signal(job, outcome)
            case Lost():
                self.require(not fate.is_noted, job.id, "is lost, but its outcome had been noted")
                is_its = fate.begun_by and fate.begun_by == child
                self.require(
                    is_its or (self.is_ending and not child), job.id, "is lost, but", child, "had not begun it"
                )
            case TimedOut():
                self.require(fate.begun_by == child and not fate.is_noted, job.id, "timed out, but did not run")
                self.require(job.hard_limit is not None, job.id, "timed out without a limit")
            case Cancelled():
                self.require(job.cancelled_at is not None, job.id, "is cancelled, and its caller did not give it up")
                self.require(fate.begun_by == child and not fate.is_noted, job.id, "is cancelled, but had begun")
            case _:
                self.require(False, job.id, "ended as no fake child ends it:", shown)  # always broken
        if not self.is_ending:
            self._check_times(fate)

    def _ended_beside(self, fate: Fate, outcome: Lost | TimedOut | Cancelled, child: str) -> None:
        """A call ended that ran beside others: its child was not killed for it, or not for it alone."""
        job = fate.job
        is_its = fate.begun_by and fate.begun_by == child
        match outcome:
            case Lost():
                self.require(
                    is_its or (self.is_ending and not child), job.id, "is lost, but", child, "had not begun it"
                )
                is_guilty = child in fate.killed | fate.killed_for or job.is_apart or not job.may_rerun
                self.require(self.is_ending or is_guilty, job.id, "is lost, but its child did not die of it")
            case TimedOut():
                is_over = job.hard_limit is not None and self.loop.time() - (job.handed_at or 0.0) >= job.hard_limit
                has_held = fate.plan.holds is not None
                self.require((is_over or has_held) and child, job.id, "timed out, but was not over its limit")
            case Cancelled():
                self.require(job.cancelled_at is not None, job.id, "is cancelled, and its caller did not give it up")
                self.require(not is_its or child, job.id, "is cancelled, but had begun")

    def _check_signal(self, job: Job, outcome: Outcome) -> None:
        if isinstance(outcome, Raised) and outcome.kind == TaskCancelled.__name__:
            self.require(job.cancelled_at is not None, job.id, "was stopped, and its caller did not give it up")
        if isinstance(outcome, Raised) and outcome.kind == SoftTimeLimitExceeded.__name__:
            self.require(job.soft_limit is not None, job.id, "was stopped for a limit that it does not have")

    def _check_times(self, fate: Fate) -> None:
        job, now, late = fate.job, self.loop.time(), TOLERANCE + self.lateness
        if job.on_begun is not None and fate.begun_by:
            # A child that stands still is looked at less and less often, and may go on just after a look.
            stood_still = 0.0 if job.handed_at is None else max(0.0, fate.begun_at - job.handed_at)
            allowed = REPORT_TOLERANCE_S + min(UNREAD, stood_still / 2) + self.lateness
            is_told = fate.is_seen_begun or now - fate.begun_at <= allowed
            self.require(is_told, job.id, "has run since", fate.begun_at, "and nobody was told that it had begun")
        if fate.is_shared:
            late += STOP_GRACE_S
        if job.hard_limit is not None and fate.begun_by:
            ran = now - fate.begun_at
            self.require(ran <= job.hard_limit + late, job.id, "ran", ran, "s, limit", job.hard_limit)
        if job.cancelled_at is not None:
            took = now - job.cancelled_at
            self.require(took <= job.grace + late, job.id, "took", took, "s to stop, grace", job.grace)
