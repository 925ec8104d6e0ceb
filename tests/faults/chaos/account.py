"""The account of a run: calls that were published, how each ended, why it ran more than once, and its answers."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import attrs

from hybridpool._policy.death_of_shared import MAX_SUSPECTED
from tests.faults.chaos.answers import Answer
from tests.faults.chaos.app import ASKED, COPY, RAISED, REJECTED
from tests.faults.chaos.attempts import Attempt
from tests.faults.chaos.calls import FAILURE, FORBIDDEN, KINDS, ChaosCall
from tests.faults.chaos.causes import KILLED_BY_TASK, LATE, REPLAYED, TWICE, Causes
from tests.faults.chaos.plan import Plan

DONE: Final = "done"
#: after which a task is dead-lettered
DEATHS: Final = 3
#: attempts that end by asking for another one; those that may be repeated have one such
ASKS: Final = 5
#: the way by which the broker leads on from an attempt
AGAIN: Final = "delivered again"
#: so many lines of errors are shown
SHOWN: Final = 10


@attrs.frozen(kw_only=True)
class Seen:
    """What a run has left behind."""

    attempts: Mapping[str, list[Attempt]]
    #: how often each call was published
    tries: Mapping[str, int] = attrs.field(factory=dict)
    #: letters in dead-letter queues, and those that were taken from there
    dead: Mapping[str, int] = attrs.field(factory=dict)
    replayed: Mapping[str, int] = attrs.field(factory=dict)
    #: messages that are still in queues, by the call; those whose dead letter no worker may write must be somewhere
    queued: Mapping[str, int] = attrs.field(factory=dict)
    answers: Mapping[str, Sequence[Answer]] = attrs.field(factory=dict)
    #: calls whose task has forked a copy that went on
    orphans: Collection[str] = ()


@attrs.frozen(kw_only=True)
class Account:
    """The figures, and the errors."""

    published: int
    once: int
    #: how often a task was run once more, by cause
    causes: Counter[str]
    repeated: int
    retried: int
    failed: int
    dead: int
    answered: int
    queued: int
    lost: tuple[str, ...]
    unanswered: tuple[str, ...]
    unlawful: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Nothing is lost, left, untold, or without a cause."""
        return not (self.lost or self.queued or self.unanswered or self.unlawful)

    def __str__(self) -> str:
        rows = {
            "published": self.published,
            "done exactly once": self.once,
            "run more than once": self.repeated,
            **{f"  {cause}": count for cause, count in sorted(self.causes.items())},
            "retried": self.retried,
            "failed": self.failed,
            "dead-lettered": self.dead,
            "answered": self.answered,
            "still queued": self.queued,
            "LOST": f"{len(self.lost)} {' '.join(self.lost[:SHOWN])}".rstrip(),
            "never answered": f"{len(self.unanswered)} {' '.join(self.unanswered[:SHOWN])}".rstrip(),
            "unexplained": f"{len(self.unlawful)}" + "".join(f"\n    {what}" for what in self.unlawful[:SHOWN]),
        }
        return "\n".join(f"{name:<54} {value}" for name, value in rows.items())


def draw_up(plan: Plan, seen: Seen, causes: Causes) -> Account:
    """Draw up the account."""
    found = _Repetitions(causes)
    calls = {call.id: call for call in plan.calls}
    sent_here = frozenset(calls)
    calls.update(_calls_of_tasks(plan, seen))
    strangers = (seen.attempts.keys() | seen.dead.keys() | seen.answers.keys()) - calls.keys()
    unlawful = [f"{task_id}: nobody published it" for task_id in sorted(strangers)]
    unlawful += [f"{task_id}: the copy of a child went on" for task_id in seen.orphans]
    lost, queued, unanswered = [], [], []
    for task_id, call in sorted(calls.items()):
        made = seen.attempts.get(task_id, [])
        # What a task sends its worker publishes again when the connection was lost before the confirmation.
        published = seen.tries.get(task_id, 1) * (2 if task_id not in sent_here else 1)
        unlawful += found.explain(made, published - 1, seen.replayed.get(task_id, 0))
        unlawful += [f"{task_id} ({call.kind}): {why}" for why in _wrongs(call, made, seen, causes)]
        if task_id in seen.queued and not (call.queue == FORBIDDEN and KINDS[call.kind].is_dead):
            queued.append(task_id)
        elif not _has_ended(call, made, seen):
            lost.append(f"{task_id} ({call.kind})")
        elif call.wants_answer and task_id not in seen.answers and task_id not in seen.queued:
            unanswered.append(f"{task_id} ({call.kind})")
    hows = Counter((task_id, attempt.how) for task_id, made in seen.attempts.items() for attempt in made)
    return Account(
        published=len(calls),
        once=sum(len(made) == 1 and made[0].how == DONE for made in seen.attempts.values()),
        causes=found.causes,
        repeated=sum(len(made) > 1 for made in seen.attempts.values()),
        retried=sum(how == ASKED for _, how in hows),
        failed=sum(how == RAISED for _, how in hows),
        dead=len(seen.dead),
        answered=len(seen.answers),
        queued=len(queued),
        lost=tuple(lost),
        unanswered=tuple(unanswered),
        unlawful=tuple(unlawful),
    )


def _calls_of_tasks(plan: Plan, seen: Seen) -> Mapping[str, ChaosCall]:
    """Return the calls that tasks have sent: those of which the task has done so."""
    calls = {}
    for call in plan.calls:
        is_done = any(attempt.how == DONE for attempt in seen.attempts.get(call.id, []))
        for child in call.children:
            # of a task that was killed in the middle the last one may never have left
            if is_done or child in seen.attempts:
                calls[child] = ChaosCall(id=child, task=KINDS["number"].task, wants_answer=False)
    return calls


def _has_ended(call: ChaosCall, made: Sequence[Attempt], seen: Seen) -> bool:
    """Tell whether it has a durable outcome: it ran to its end, is a dead letter, or its failure was told."""
    if call.id in seen.dead or call.id in seen.queued:
        return True
    if not KINDS[call.kind].is_done and any(answer.status == FAILURE for answer in seen.answers.get(call.id, [])):
        return True
    return any(attempt.how in (DONE, RAISED) for attempt in made)


def _wrongs(call: ChaosCall, made: Sequence[Attempt], seen: Seen, causes: Causes) -> list[str]:
    """Return the errors in one call's end."""
    kind, found = KINDS[call.kind], []
    if any(not attempt.worker for attempt in made):
        found.append(f"was run by what is no child: {tell(made)}")
    again = sum(causes.delivered_again(attempt, float("inf")) is not None for attempt in made)
    sent = seen.tries.get(call.id, 1) + seen.replayed.get(call.id, 0)
    if sum(attempt.how == ASKED for attempt in made) > ASKS * sent + again:
        found.append(f"asked for another attempt again and again: {tell(made[:SHOWN])}")
    if call.id in seen.dead and (why := _unlawful_death(call, made, causes)):
        found.append(f"dead-lettered {why}")
    answers = seen.answers.get(call.id, [])
    for answer in answers:
        is_named = answer.status != FAILURE or not kind.words or any(word in answer.text for word in kind.words)
        if answer.status not in kind.answers or not is_named:
            found.append(f"answered {answer.status} {answer.text[:200]}")
    if answers and not call.wants_answer:
        found.append("answered, and nobody asked")
    if call.kind == "forks" and any(COPY in answer.text for answer in answers):
        found.append("the copy's answer came")
    again += sum(causes.channel_closed(attempt) for attempt in made)
    lawful = max(1, len(made)) + again + sent - 1
    if made and not call.shared_id and len(answers) > lawful:
        found.append(f"answered {len(answers)} times: {tell(made)}")
    return found


def _unlawful_death(call: ChaosCall, made: Sequence[Attempt], causes: Causes) -> str:
    """Say why it should not be a dead letter; empty: it may be one."""
    died = sum(causes.death(attempt) is not None for attempt in made)
    if died >= DEATHS or any(attempt.how == REJECTED for attempt in made):
        return ""
    if KINDS[call.kind].is_dead and call.id not in causes.deadly and (not made or made[-1].how == ASKED):
        return ""
    return f"after {died} deaths: {tell(made)}"


class _Repetitions:
    """Finds a cause for each attempt but the first; a cause serves once."""

    def __init__(self, causes: Causes) -> None:
        self.causes: Counter[str] = Counter()
        self._causes = causes

    def explain(self, made: Sequence[Attempt], copies: int, replayed: int) -> list[str]:
        """Return what has no cause.

        :param copies: times that the message was published beyond the first.
        :param replayed: times that it was a dead letter and sent back.
        """
        used: set[tuple[int, str]] = set()
        named: list[str] = []
        replays = replayed
        unlawful = []
        for at in range(1, len(made)):
            cause = self._cause(made, at, used)
            if cause is None and copies:
                copies -= 1
                cause = TWICE
            if cause is None and replays:
                replays -= 1
                cause = REPLAYED
            if cause is None:
                unlawful.append(f"{made[at].id}: attempt {at + 1} has no cause: {tell(made)}")
            else:
                named.append(cause)
        self.causes.update(named)
        # only what was delivered again, or published twice, may die more often than task_max_deliveries says
        # beside others it is under suspicion twice before it is blamed
        most = DEATHS + MAX_SUSPECTED if made and made[0].is_beside else DEATHS
        if len(made) > most * (1 + replayed) and set(named) == {KILLED_BY_TASK}:
            unlawful.append(f"{made[0].id}: killed its child {len(made)} times: {tell(made)}")
        return unlawful

    def _cause(self, made: Sequence[Attempt], at: int, used: set[tuple[int, str]]) -> str | None:
        until = made[at].start
        ways = [way for earlier in reversed(range(at)) for way in self._ways(made[earlier], earlier, until)]
        if at >= DEATHS:
            # a worker would have dead-lettered it by now, if it had not come again
            ways.sort(key=lambda way: way[0][1] != AGAIN)
        for way, cause in ways:
            if way not in used:
                used.add(way)
                return cause
        late = (at, LATE)
        if late not in used and any(self._causes.begun_late(made[at], earlier) for earlier in made[:at]):
            used.add(late)
            return LATE
        return None

    def _ways(self, attempt: Attempt, number: int, until: float) -> list[tuple[tuple[int, str], str]]:
        """Return the ways that led on from an attempt, and their causes."""
        ways = [((number, cause), cause) for cause in self._causes.published_again(attempt, until)]
        again = self._causes.delivered_again(attempt, until)
        return ways if again is None else [*ways, ((number, AGAIN), again)]


def tell(made: Sequence[Attempt]) -> str:
    """Tell of attempts in a line."""
    return (
        "; ".join(
            f"{attempt.worker} pid {attempt.pid} {attempt.start:.3f} – "
            + ("its child's end" if attempt.end is None else f"{attempt.end:.3f} {attempt.how}")
            for attempt in made
        )
        or "never begun"
    )
