"""The faults to inject, and the tasks: drawn from a seed, so that a run can be repeated.

What follows from it is up to the machine's scheduler; the plan alone is the same each time.
"""

import enum
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import attrs

from tests.faults.chaos.calls import GROUPS, KINDS, ChaosCall, draw_calls

WORKERS: Final = 3
#: stands for the publisher among those whose connection is harmed
PUBLISHER: Final = WORKERS
#: tasks that may be published beyond what the next fault waits for: so that it finds all workers busy
BACKLOG: Final = 300


class Kind(enum.StrEnum):
    """The kinds of faults; also the causes in the account."""

    CHILD_KILLED = "child killed"
    ZYGOTE_KILLED = "zygote killed"
    WORKER_KILLED = "worker killed"
    WORKER_STOPPED = "worker stopped"
    CUT = "connection cut"
    STALLED = "connection stalled"
    CLOSED = "connections closed by the broker"
    NODE_STOPPED = "node stopped"
    NODE_KILLED = "node killed"
    #: the operator's doings
    REPLAYED = "dead letters replayed"
    EMPTIED = "full dead-letter queue emptied"
    #: the publisher's
    ODD_SENT = "odd messages sent"
    #: never planned, and always wrong
    EXITED = "worker ended by itself"


#: one of these per so many tasks; of the node's two kinds, in turn
RARITY: Final[Mapping[tuple[Kind, ...], int]] = {
    (Kind.CHILD_KILLED,): 400,
    (Kind.ZYGOTE_KILLED,): 2000,
    (Kind.WORKER_KILLED,): 2500,
    (Kind.WORKER_STOPPED,): 2500,
    (Kind.CUT,): 1000,
    (Kind.CLOSED,): 4000,
    (Kind.STALLED,): 2500,
    (Kind.NODE_STOPPED, Kind.NODE_KILLED): 4000,
    (Kind.REPLAYED,): 2500,
    (Kind.EMPTIED,): 2500,
    (Kind.ODD_SENT,): 5000,
}
#: it takes ten seconds to get over one of these: a run of fewer tasks than this has just one
DEAR: Final[Sequence[Kind]] = (Kind.STALLED, Kind.NODE_STOPPED, Kind.NODE_KILLED)
FEW: Final = 2000


@attrs.frozen(kw_only=True)
class Fault:
    """A fault that is injected once so many tasks are done."""

    kind: Kind
    after: int
    #: index of a worker; the next one if that one has a fault already
    who: int
    #: from 0 to 1: which child, which connection, how long
    chance: float


@attrs.frozen(kw_only=True)
class Plan:
    """The calls and faults of a run."""

    seed: int
    queue_type: str
    calls: Sequence[ChaosCall]
    faults: Sequence[Fault]

    def ids(self, *kinds: str) -> frozenset[str]:
        """Return the ids of the calls of these kinds; without any, of all."""
        return frozenset(call.id for call in self.calls if not kinds or call.kind in kinds)


def make_plan(seed: int, tasks: int, queue_type: str, groups: Collection[str] = tuple(GROUPS)) -> Plan:
    """Draw a plan.

    :param groups: of calls, beside the plain ones.
    """
    chances = random.Random(seed)
    calls = draw_calls(chances, tasks, groups)
    able = sum(KINDS[call.kind].is_done for call in calls)
    return Plan(seed=seed, queue_type=queue_type, calls=calls, faults=_faults(chances, tasks, able))


def _faults(chances: random.Random, tasks: int, able: int) -> list[Fault]:
    kinds: list[Kind] = []
    for sorts, rarity in RARITY.items():
        first = chances.randrange(len(sorts))
        kinds += [sorts[(first + turn) % len(sorts)] for turn in range(max(1, tasks // rarity))]
    if tasks < FEW:
        kinds = [kind for kind in kinds if kind not in DEAR] + [chances.choice(DEAR)]
    chances.shuffle(kinds)
    # a quarter comes together with the one before: troubles that overlap are worse than their sum
    points = sorted(int(able * chances.uniform(0.05, 0.9)) for _ in kinds)
    points = [points[at - 1] if at and chances.random() < 0.25 else point for at, point in enumerate(points)]
    return [
        Fault(kind=kind, after=point, who=chances.randrange(_candidates(kind)), chance=chances.random())
        for kind, point in zip(kinds, points, strict=True)
    ]


def _candidates(kind: Kind) -> int:
    return WORKERS + 1 if kind in (Kind.CUT, Kind.STALLED) else WORKERS
