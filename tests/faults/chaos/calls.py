"""The calls of a run: which kinds of task there are, how many of each, and how each may lawfully end."""

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import attrs

from tests.faults.chaos.odd import ODDITIES
from tests.faults.helpers import APP, Call

OURS: Final = "tests.faults.chaos.app"
#: the ordinary queue
MAIN: Final = "chaos"
#: its workers may not make the dead-letter queue
FORBIDDEN: Final = "chaos.forbidden"
#: its dead-letter queue takes few letters, and refuses the next one
NARROW: Final = "chaos.narrow"
#: takes few messages, and refuses the next one
FULL: Final = "chaos.full"
QUEUES: Final = (MAIN, FORBIDDEN, NARROW, FULL)
#: where all answers go
ANSWERS: Final = "chaos.answers"
#: header that names a call; its id may be that of others too
NAME: Final = "chaos-name"
#: ids that several calls have, one after the other
SHARED_IDS: Final = tuple(f"shared-{number}" for number in range(4))
#: calls that a task sends
SENDS: Final = 6
#: bytes; the broker refuses larger messages
MAX_MESSAGE_BYTES: Final = 2**20
#: messages that the queues with a limit take
LETTERS: Final = 8
ROOM: Final = 20

SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"


@attrs.frozen(kw_only=True)
class KindOfTask:
    """One kind of task: how many there are, and how they may end."""

    task: str
    #: of a thousand calls so many, but one at least; 0: in a burst, or all others
    share: int = 0
    #: in place of a share: so many in a row, once per `PER_BURST` calls
    burst: int = 0
    queue: str = MAIN
    #: the journal has its end
    is_done: bool = True
    #: it may end as a dead letter
    is_dead: bool = False
    #: the answers that its caller may get
    answers: frozenset[str] = frozenset((SUCCESS,))
    #: at least one of these is in the text of a failure, if any are named
    words: tuple[str, ...] = ()
    #: it runs beside others in one child
    is_beside: bool = False
    #: its child may be killed for it
    is_killer: bool = False


#: calls per burst
PER_BURST: Final = 4000
_NUMBER: Final = f"{APP}.number"
_FATAL: Final = f"{APP}.fatal"
_UNKNOWN: Final = f"{OURS}.unknown"
_FAILS: Final = frozenset((FAILURE,))
_EITHER: Final = frozenset((SUCCESS, FAILURE))
_ANY: Final = frozenset((SUCCESS, FAILURE, "REJECTED"))


def _dead(task: str, *, share: int = 0, burst: int = 0, queue: str = MAIN) -> KindOfTask:
    """Return a kind of which each call ends as a dead letter."""
    return KindOfTask(task=task, share=share, burst=burst, queue=queue, is_done=False, is_dead=True, answers=_FAILS)


def _over_limit(task: str, *, share: int) -> KindOfTask:
    """Return a kind of which each call ends at its limit, although its code may run on."""
    return KindOfTask(
        task=f"{OURS}.{task}",
        share=share,
        is_done=False,
        answers=_FAILS,
        words=("TimeLimit", "time limit"),
        is_beside=True,
        is_killer=True,
    )


#: by group: a run may have some of them only
GROUPS: Final[Mapping[str, Mapping[str, KindOfTask]]] = {
    "plain": {
        "number": KindOfTask(task=_NUMBER),
        "slow": KindOfTask(task=f"{OURS}.slow", share=30),
        "raises": KindOfTask(task=f"{OURS}.raises", share=5, is_done=False, answers=_FAILS),
        "retries now": KindOfTask(task=f"{OURS}.retries", share=5),
        "retries later": KindOfTask(task=f"{OURS}.retries", share=3),
        "deadly": _dead(_FATAL, share=1),
        "unknown": _dead(_UNKNOWN, share=2),
    },
    # what tasks do with their child
    "noise": {"noisy": KindOfTask(task=f"{OURS}.noisy", share=20)},
    "threads": {
        "sends from threads": KindOfTask(task=f"{OURS}.sends", share=3),
        "sends from asyncio": KindOfTask(task=f"{OURS}.sends", share=3),
    },
    "forks": {"forks": KindOfTask(task=f"{OURS}.forks", share=6)},
    "starved": {
        "starved": KindOfTask(task=f"{OURS}.starved", share=4, answers=_EITHER, words=("descriptor", "open files")),
    },
    # what the broker refuses for good
    "large": {
        "result too large": KindOfTask(task=f"{OURS}.large", share=4, answers=_FAILS),
        "retry too large": _dead(f"{OURS}.grows", share=2),
    },
    "odd": {"odd": KindOfTask(task=_NUMBER, answers=_EITHER), "odd and unknown": _dead(_UNKNOWN)},
    # what runs beside others in one child, and what it does to them
    "lanes": {
        "waits": KindOfTask(task=f"{OURS}.waits", share=150, is_beside=True),
        "waits in thread": KindOfTask(task=f"{OURS}.waits_in_thread", share=60, is_beside=True),
        "few at once": KindOfTask(task=f"{OURS}.few_at_once", share=20, is_beside=True),
        "holds a moment": KindOfTask(task=f"{OURS}.holds", share=3, is_beside=True),
        "holds": _over_limit("holds", share=1),
        "overruns": _over_limit("overruns", share=4),
        "overruns for long": _over_limit("overruns_for_long", share=1),
        "overruns in thread": _over_limit("overruns_in_thread", share=1),
        "deadly coroutine": attrs.evolve(_dead(f"{OURS}.kills_loop", share=1), is_beside=True, is_killer=True),
        "deadly thread": attrs.evolve(_dead(f"{OURS}.kills_threads", share=1), is_beside=True, is_killer=True),
    },
    "forbidden": {
        "beside forbidden": KindOfTask(task=_NUMBER, share=4, queue=FORBIDDEN),
        "forbidden": _dead(_UNKNOWN, burst=30, queue=FORBIDDEN),
    },
    # what it refuses until there is room
    "narrow": {
        "beside narrow": KindOfTask(task=_NUMBER, share=4, queue=NARROW),
        "narrow": _dead(_UNKNOWN, burst=60, queue=NARROW),
    },
    "full": {
        "full": KindOfTask(task=_NUMBER, share=10, queue=FULL),
        "full, retries": KindOfTask(task=f"{OURS}.retries", burst=60, queue=FULL),
        "full, deadly": _dead(_FATAL, burst=2, queue=FULL),
    },
    # what has been here before
    "named": {"named": KindOfTask(task=f"{OURS}.named", share=40)},
    "replayed": {"rejects": KindOfTask(task=f"{OURS}.rejects", share=3, is_dead=True, answers=_ANY)},
}
KINDS: Final[Mapping[str, KindOfTask]] = {name: kind for group in GROUPS.values() for name, kind in group.items()}
#: kinds that kill their child whenever they are begun
DEADLY: Final = ("deadly", "full, deadly", "deadly coroutine", "deadly thread")
#: kinds that run beside others in one child, and those for which the child may die with all of them
BESIDE_OTHERS: Final = tuple(name for name, kind in KINDS.items() if kind.is_beside)
KILLERS: Final = tuple(name for name, kind in KINDS.items() if kind.is_killer)
#: what follows from them is larger than the broker takes
OVERSIZED: Final = ("result too large", "retry too large")
#: whose dead letters cannot be written for a while, and those beside them that must run all the same
STUCK: Final = ("forbidden", "narrow")
BESIDE: Final = ("beside forbidden", "beside narrow")
SENDERS: Final = ("sends from threads", "sends from asyncio")
ODD: Final = ("odd", "odd and unknown")
#: times that each oddity is sent, per `PER_BURST` calls, known and unknown
ODD_TIMES: Final = 1


@attrs.frozen(kw_only=True)
class ChaosCall(Call):
    """A call of a run; its id is the name by which the account knows it."""

    kind: str = "number"
    #: under which it is sent; empty: its own
    shared_id: str = ""
    wants_answer: bool = True
    #: for those that are sent as bytes
    oddity: str = ""

    @property
    def queue(self) -> str:
        """The queue that it is sent to."""
        return KINDS[self.kind].queue

    @property
    def children(self) -> Sequence[str]:
        """The ids of the calls that it sends itself."""
        return [f"{self.id}.{number}" for number in range(SENDS)] if self.kind in SENDERS else ()


def draw_calls(chances: random.Random, tasks: int, groups: Collection[str] = tuple(GROUPS)) -> list[ChaosCall]:
    """Draw the calls, in the order in which they are sent.

    :param groups: which of them, beside the plain ones.
    """
    drawn = {name: kind for group in GROUPS if group in {"plain", *groups} for name, kind in GROUPS[group].items()}
    kinds = [name for name, kind in drawn.items() if kind.share for _ in range(max(1, kind.share * tasks // 1000))]
    bursts = max(1, tasks // PER_BURST)
    kinds += [name for name in ODD if name in drawn for _ in range(ODD_TIMES * bursts * len(ODDITIES))]
    free = tasks - len(kinds)
    lots = [[name] for name in kinds] + [
        [name] * min(kind.burst, max(1, free // 10))
        for name, kind in drawn.items()
        if kind.burst
        for _ in range(bursts)
    ]
    lots += [["number"]] * (tasks - sum(map(len, lots)))
    chances.shuffle(lots)
    # early: it stays for the rest of the run
    for lot in [lot for lot in lots if lot[0] in STUCK]:
        lots.remove(lot)
        lots.insert(len(lots) // 10, lot)
    # the first one is ordinary: it goes the long way round, see `Sender.send_all`
    lots.insert(0, lots.pop(lots.index(["number"])))
    order = [name for lot in lots for name in lot]
    met: dict[str, int] = {}
    calls = []
    for number, name in enumerate(order):
        met[name] = met.get(name, 0) + 1
        calls.append(_call(chances, f"n{number:05}", name, met[name] - 1))
    return calls


def _call(chances: random.Random, task_id: str, kind: str, turn: int) -> ChaosCall:
    args: Sequence[object] = ()
    shared_id = oddity = ""
    match kind:
        case "slow":
            args = (round(chances.uniform(0.02, 0.4), 3),)
        case "waits" | "waits in thread" | "few at once":
            args = (round(chances.expovariate(5), 3),)
        case "holds" | "holds a moment":
            args = (kind == "holds",)
        case "deadly coroutine":
            args = (("is killed", "exits", "segfaults")[turn % 3],)
        case "retries now" | "full, retries":
            args = (0,)
        case "retries later":
            args = (1,)
        case "deadly" | "full, deadly":
            args = ("is killed",)
        case "sends from threads":
            args = ("threads", SENDS)
        case "sends from asyncio":
            args = ("asyncio", SENDS)
        case "forks":
            args = (FORK_ENDS[turn % len(FORK_ENDS)],)
        case "starved":
            args = (STARVED_ENDS[turn % len(STARVED_ENDS)],)
        case "result too large" | "retry too large":
            args = (2 * MAX_MESSAGE_BYTES,)
        case "named":
            args, shared_id = (task_id,), chances.choice(SHARED_IDS)
        case "odd" | "odd and unknown":
            oddity = tuple(ODDITIES)[turn % len(ODDITIES)]
        case _:
            pass
    return ChaosCall(
        id=task_id,
        task=KINDS[kind].task,
        args=args,
        kind=kind,
        shared_id=shared_id,
        wants_answer=chances.random() < 0.5 or KINDS[kind].share + KINDS[kind].burst < 10,
        oddity=oddity,
    )


#: how the copy of a child ends that a task has forked
FORK_ENDS: Final = ("returns", "raises", "exits", "prints", "stays a moment")
#: what a task does at its end that has left no descriptor
STARVED_ENDS: Final = ("returns much", "logs much", "raises", "returns")
