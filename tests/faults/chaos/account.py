"""The account of a run: what was published, what became of each, and why it was run more than once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from tests.faults.chaos.app import ASKED, RAISED
from tests.faults.chaos.attempts import Attempt
from tests.faults.chaos.causes import KILLED_BY_TASK, TWICE, Causes
from tests.faults.chaos.plan import Plan

DONE: Final = "done"
#: after which a task is dead-lettered
DEATHS: Final = 3
#: the way by which the broker leads on from an attempt
AGAIN: Final = "delivered again"
#: so many lines of what is wrong are shown
SHOWN: Final = 10


@attrs.frozen(kw_only=True)
class Account:
    """The figures, and what is wrong."""

    published: int
    once: int
    #: how often a task was run once more, by cause
    causes: Counter[str]
    repeated: int
    retried: int
    failed: int
    dead: int
    queued: int
    lost: tuple[str, ...]
    unlawful: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Nothing is lost, left, or without a cause."""
        return not self.lost and not self.queued and not self.unlawful

    def __str__(self) -> str:
        rows = {
            "published": self.published,
            "done exactly once": self.once,
            "run more than once": self.repeated,
            **{f"  {cause}": count for cause, count in sorted(self.causes.items())},
            "retried": self.retried,
            "failed": self.failed,
            "dead-lettered": self.dead,
            "still queued": self.queued,
            "LOST": f"{len(self.lost)} {' '.join(self.lost[:SHOWN])}".rstrip(),
            "unexplained": f"{len(self.unlawful)}" + "".join(f"\n    {what}" for what in self.unlawful[:SHOWN]),
        }
        return "\n".join(f"{name:<54} {value}" for name, value in rows.items())


def draw_up(
    plan: Plan,
    attempts: Mapping[str, list[Attempt]],
    causes: Causes,
    *,
    tries: Mapping[str, int],
    dead: Mapping[str, int],
    queued: int,
) -> Account:
    """Draw up the account.

    :param tries: how often each id was published.
    :param dead: how many letters of each id are in the dead-letter queue.
    :param queued: messages still in the queue.
    """
    found = _Repetitions(causes)
    unlawful = [f"{task_id}: nobody published it" for task_id in (attempts.keys() | dead.keys()) - plan.ids()]
    lost = []
    for task_id in sorted(plan.ids()):
        made = attempts.get(task_id, [])
        unlawful += found.explain(made, tries.get(task_id, 1) - 1)
        if task_id not in dead and not any(attempt.how in (DONE, RAISED) for attempt in made):
            lost.append(task_id)
    unlawful += [
        f"{task_id}: dead-lettered {why}" for task_id in dead if (why := _unlawful_death(task_id, attempts, causes))
    ]
    hows = Counter((task_id, attempt.how) for task_id, made in attempts.items() for attempt in made)
    return Account(
        published=len(plan.calls),
        once=sum(len(made) == 1 and made[0].how == DONE for made in attempts.values()),
        causes=found.causes,
        repeated=sum(len(made) > 1 for made in attempts.values()),
        retried=sum(how == ASKED for _, how in hows),
        failed=sum(how == RAISED for _, how in hows),
        dead=len(dead),
        queued=queued,
        lost=tuple(lost),
        unlawful=tuple(unlawful),
    )


def _unlawful_death(task_id: str, attempts: Mapping[str, list[Attempt]], causes: Causes) -> str:
    deaths = [causes.death(attempt) for attempt in attempts.get(task_id, [])]
    died = sum(death is not None for death in deaths)
    return "" if died >= DEATHS else f"after {died} deaths: {tell(attempts.get(task_id, []))}"


class _Repetitions:
    """Finds a cause for each attempt but the first; a cause serves once."""

    def __init__(self, causes: Causes) -> None:
        self.causes: Counter[str] = Counter()
        self._causes = causes

    def explain(self, made: Sequence[Attempt], copies: int) -> list[str]:
        """Return what has no cause.

        :param copies: times that the message was published beyond the first.
        """
        used: set[tuple[int, str]] = set()
        named: list[str] = []
        unlawful = []
        for at in range(1, len(made)):
            cause = self._cause(made, at, used)
            if cause is None and copies:
                copies -= 1
                cause = TWICE
            if cause is None:
                unlawful.append(f"{made[at].id}: attempt {at + 1} has no cause: {tell(made)}")
            else:
                named.append(cause)
        self.causes.update(named)
        # only what was delivered again, or published twice, may die more often than task_max_deliveries says
        if len(made) > DEATHS and set(named) == {KILLED_BY_TASK}:
            unlawful.append(f"{made[0].id}: killed its child {len(made)} times: {tell(made)}")
        return unlawful

    def _cause(self, made: Sequence[Attempt], at: int, used: set[tuple[int, str]]) -> str | None:
        until = made[at].start
        ways = [way for earlier in reversed(range(at)) for way in self._ways(made[earlier], earlier, until)]
        if at >= DEATHS:
            # a worker would have buried it by now, if it had not come again
            ways.sort(key=lambda way: way[0][1] != AGAIN)
        for way, cause in ways:
            if way not in used:
                used.add(way)
                return cause
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
