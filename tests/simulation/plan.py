"""What a seed decides: the pool, its calls, and everything that goes wrong.

All of it is drawn from one `random.Random`; nothing else in a simulation is left to chance.
"""

import enum
import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import attrs

from hybridpool._lanes.shared.options import SharedOptions
from hybridpool._policy.autoscale import ScaleLimits
from hybridpool._policy.recycle import RecycleLimits
from hybridpool._task import LaneName

T = TypeVar("T")
#: bytes; such a body or value travels outside the socket
BULK: Final = 100_000


class Step(enum.Enum):
    """Where in a call a child may die."""

    READ = "after it read the call"
    NEXT = "as it announced the call"
    START = "as it began the call"
    MIDDLE = "in the middle of the call"
    ENDED = "at the end of the call"
    NOTED = "with the outcome noted and not sent"
    SENT = "with the outcome sent"
    ANSWERED = "after it answered"


class Ending(enum.Enum):
    """How a schedule ends."""

    ORDERLY = "all calls end, then the children go"
    WARM = "what has not begun is taken back, the rest may end"
    COLD = "the children are killed"
    ABANDONED = "the pool is left by an exception"


@attrs.define(kw_only=True, eq=False)
class CallPlan:
    """One call: when it is made, how it goes, within which limits. Times are in virtual seconds."""

    number: int
    at: float
    task: str
    #: how long its body runs
    seconds: float
    raises: bool
    #: where its child dies, the first time; None: nowhere
    crash: Step | None
    soft: float | None
    hard: float | None
    #: when it is given up; None: never
    cancel_at: float | None
    grace: float
    #: its submitter wants to know when it begins
    reports_begin: bool
    #: bytes of the body, and of the value
    bulk: tuple[int, int]
    #: it has the parent publish something
    enqueues: bool
    #: how long it takes to stop when it is told to; None: it does not listen
    stops_in: float | None
    #: by the time a child is free it must not run any more
    is_void: bool
    lane: LaneName = "process"
    #: of a call beside others: it may be started again
    may_rerun: bool = False
    #: its child dies of it each time, and not the first time alone
    is_poison: bool = False
    #: its own code runs when its child dies of it
    is_on_stage: bool = False
    #: how long it holds its child's loop; None: it does not
    holds: float | None = None


@attrs.frozen(kw_only=True)
class ChildPlan:
    """One child's fate outside of its calls."""

    #: seconds to READY; infinite: never
    birth: float
    #: None: it is born; else how it is not
    start_failure: str | None
    #: seconds from its fork to a sudden death, whatever it is doing then
    dies_after: float | None
    #: seconds between the end of its channel and its exit
    farewell: float
    dies_retiring: bool
    #: the chance of a pause between two of its steps
    dawdles: float
    #: one of its threads logs and sends calls, beside whatever it does
    chatters: bool


@attrs.frozen(kw_only=True)
class LanePlan:
    """A lane whose children run several calls at once."""

    size: int
    slots: int
    recycle: RecycleLimits
    options: SharedOptions
    is_lazy: bool


@attrs.frozen(kw_only=True)
class Plan:
    """One schedule."""

    size: int
    spares: int
    recycle: RecycleLimits
    scale: ScaleLimits | None
    start_timeout: float
    calls: Sequence[CallPlan]
    lanes: Mapping[LaneName, LanePlan]
    #: by task: calls of it that may run at once
    quotas: Mapping[str, int]
    #: moments, and what then
    resizes: Sequence[tuple[float, int]]
    jumps: Sequence[tuple[float, float]]
    zygote_deaths: Sequence[float]
    ending: Ending
    #: when it ends, unless that is orderly
    ends_at: float
    #: nothing goes wrong, so promises are kept to the letter
    is_calm: bool
    #: the chance that a child, or a fork, has a fault
    fault: float


class Dice:
    """Draws plans."""

    def __init__(self, chance: random.Random, *, has_lanes: bool) -> None:
        """:param has_lanes: there are lanes whose children run several calls at once, beside the prefork lane."""
        self._chance = chance
        self._has_lanes = has_lanes

    def plan(self) -> Plan:
        """Draw a schedule."""
        chance = self._chance
        is_calm = chance.random() < 0.2
        recycle = RecycleLimits(
            tasks=chance.choice((None, 1, 2, 3, 5)), age=chance.choice((None, None, 0.3, 5.0)), jitter=0.05
        )
        size = chance.randint(1, 4)
        ceiling = size + chance.randint(1, 3)
        is_scaled = not is_calm and chance.random() < 0.3
        ending = Ending.ORDERLY if is_calm else chance.choice((Ending.ORDERLY, *Ending))
        faults = () if is_calm else range(chance.choice((0, 0, 1, 2)))
        span = chance.choice((0.02, 0.3, 3.0))
        calls = (
            self._burst(span, is_calm=is_calm)
            if chance.random() < 0.08
            else [self._call(number, span, is_calm=is_calm) for number in range(chance.randint(3, 24))]
        )
        lanes = self._lanes()
        for lane in lanes:
            calls += [
                self._shared_call(lane, len(calls) + number, span, is_calm=is_calm)
                for number in range(chance.randint(3, 30))
            ]
        return Plan(
            size=size,
            spares=recycle.spares and chance.choice((0, 1, 1)),
            recycle=recycle,
            scale=ScaleLimits(floor=size, ceiling=ceiling, idle=chance.choice((0.05, 1.0))) if is_scaled else None,
            start_timeout=chance.choice((0.5, 3.0)),
            calls=calls,
            lanes=lanes,
            quotas={call.task: chance.choice((1, 2, 3)) for call in calls if chance.random() < 0.03},
            resizes=[] if is_calm or is_scaled else self._moments(span, partial(chance.randint, 1, 4)),
            jumps=[] if is_calm else self._moments(span, partial(chance.choice, (0.01, 0.7, 60.0))),
            zygote_deaths=[chance.uniform(0, span) for _ in faults if chance.random() < 0.6],
            ending=ending,
            ends_at=chance.uniform(0, 1.5 * span),
            is_calm=is_calm,
            fault=0.0 if is_calm else chance.choice((0.02, 0.1, 0.3)),
        )

    def child(self, fault: float) -> ChildPlan:
        """Draw a child."""
        chance = self._chance
        start_failure, birth = None, chance.choice((0.0, 0.002, 0.01))
        if self.is_struck(fault):
            start_failure = chance.choice((None, None, "it dies", "its initializer failed"))
            birth = chance.choice((0.05, 1.0, math.inf))
        return ChildPlan(
            birth=birth,
            start_failure=start_failure,
            dies_after=chance.expovariate(10) if self.is_struck(fault) else None,
            farewell=chance.choice((0.0, 0.002, 2.0 if self.is_struck(fault) else 0.0)),
            dies_retiring=self.is_struck(fault),
            dawdles=chance.choice((0.0, 0.05, 0.3)),
            chatters=chance.random() < 0.3,
        )

    def is_struck(self, fault: float) -> bool:
        """Tell whether a fault of this chance comes true."""
        return self._chance.random() < fault

    def among(self, *values: float) -> float:
        """Return one of the values, and about it a hair's breadth before or after, so that nothing is simultaneous."""
        return max(0.0, self._chance.choice(values) + self._chance.uniform(-1e-7, 1e-7))

    def _moments(self, span: float, draw: Callable[[], T]) -> list[tuple[float, T]]:
        count = self._chance.choice((0, 0, 0, 1, 2))
        return [(self._chance.uniform(0, span), draw()) for _ in range(count)]

    def _burst(self, span: float, *, is_calm: bool) -> list[CallPlan]:
        """Many calls so short that they lie in a channel together: outcomes wait for company, and threads interfere."""
        calls = [self._call(number, span, is_calm=is_calm) for number in range(self._chance.randint(30, 60))]
        for call in calls:
            if call.number % 20:
                call.task, call.seconds = "brief-1", self._chance.uniform(0, 0.0005)
                call.bulk, call.enqueues = (10, 10), False
        return calls

    def _lanes(self) -> dict[LaneName, LanePlan]:
        if not self._has_lanes:
            return {}
        chance = self._chance
        kinds: Sequence[tuple[LaneName, ...]] = (("async",), ("async",), ("thread",), ("async", "thread"))
        return {
            name: LanePlan(
                size=chance.choice((1, 1, 2)),
                slots=chance.choice((1, 2, 5, 100)),
                recycle=RecycleLimits(
                    tasks=chance.choice((None, None, 2, 7)), age=chance.choice((None, None, 0.3, 5.0)), jitter=0.05
                ),
                options=SharedOptions(
                    has_loop=name == "async",
                    drain_timeout=chance.choice((0.5, 5.0)),
                    block_timeout=chance.choice((None, 1.0, 1.0)),
                ),
                is_lazy=chance.random() < 0.3,
            )
            for name in chance.choice(kinds)
        }

    def _shared_call(self, lane: LaneName, number: int, span: float, *, is_calm: bool) -> CallPlan:
        """Draw a call that runs beside others."""
        chance = self._chance
        call = self._call(number, span, is_calm=is_calm)
        call.lane, call.task = lane, f"{lane}-{chance.randint(1, 3)}"
        call.seconds = chance.choice((0.0, 0.001, 0.02, 0.2, 1.5, chance.uniform(0, 2.0)))
        call.may_rerun = chance.random() < 0.8
        call.is_on_stage = lane == "async" and chance.random() < 0.7
        call.is_poison = call.crash is not None and chance.random() < 0.5
        if lane == "async" and not is_calm and chance.random() < 0.08:
            call.holds = chance.choice((0.05, 0.5, 4.0))
        # Threads ask their parent on a socket of their own, which the other simulated children do.
        call.enqueues = call.enqueues and lane == "async"
        return call

    def _call(self, number: int, span: float, *, is_calm: bool) -> CallPlan:
        chance = self._chance
        is_brief = chance.random() < 0.6
        task = f"{'brief' if is_brief else 'long'}-{chance.randint(1, 2)}"
        seconds = chance.uniform(0, 0.0003) if is_brief else chance.choice((0.02, 0.2, 1.5))
        if is_brief and chance.random() < 0.1:
            seconds = chance.choice((0.01, 0.5))  # taken for brief, and is not
        at = chance.choice((0.0, span / 2, chance.uniform(0, span)))
        is_limited, is_cancelled = chance.random() < 0.2, chance.random() < 0.2
        return CallPlan(
            number=number,
            at=at,
            task=task,
            seconds=seconds,
            raises=chance.random() < 0.1,
            crash=None if is_calm or chance.random() > 0.12 else chance.choice(list(Step)),
            soft=chance.choice((0.005, 0.1)) if chance.random() < 0.15 else None,
            hard=None if is_calm or not is_limited else chance.choice((0.01, 0.1, 1.0)),
            cancel_at=at + chance.choice((0.0, 0.001, 0.005, 0.3)) if not is_calm and is_cancelled else None,
            grace=chance.choice((0.0, 0.05, 1.0)),
            reports_begin=chance.random() < 0.3,
            bulk=(chance.choice((10,) * 30 + (BULK,)), chance.choice((10,) * 30 + (BULK,))),
            enqueues=chance.random() < 0.1,
            stops_in=chance.choice((0.0, 0.01, None)),
            is_void=chance.random() < 0.03,
        )
