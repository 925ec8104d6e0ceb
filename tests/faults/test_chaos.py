"""Everything at once, drawn from a seed; the long run is ``python -m tests.faults.chaos``."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.faults.chaos.account import Account, Seen, draw_up
from tests.faults.chaos.answers import Answer
from tests.faults.chaos.attempts import Attempt, read_attempts
from tests.faults.chaos.calls import KINDS, ChaosCall
from tests.faults.chaos.causes import BESIDE, Causes
from tests.faults.chaos.deployment import Hit
from tests.faults.chaos.plan import Kind, Plan, make_plan
from tests.faults.chaos.run import chaos
from tests.faults.ledger import Entry, tell

SEED = 6
TASKS = 200
#: seconds; it takes a quarter of them, but a busy machine makes it wait longer and longer between its attempts
LIMIT = 250.0


@pytest.mark.deep
@pytest.mark.timeout(LIMIT + 50)
def test_nothing_is_lost_whatever_happens(tmp_path: Path) -> None:
    """Under many faults at once no task is lost, and none runs twice without a cause."""
    report = chaos(make_plan(SEED, TASKS, "quorum"), tmp_path, limit=LIMIT)
    tell(f"\n{report}")
    assert report.is_well, f"{report}\n{report.story}"


def test_a_plan_can_be_repeated() -> None:
    """A plan made from the same seed is the same, and one from another seed differs."""
    assert make_plan(SEED, TASKS, "quorum") == make_plan(SEED, TASKS, "quorum")
    assert make_plan(SEED, TASKS, "quorum") != make_plan(SEED + 1, TASKS, "quorum")


def account_of(
    *attempts: Attempt,
    hits: tuple[Hit, ...] = (),
    copies: int = 0,
    kind: str = "number",
    answers: tuple[Answer, ...] = (),
    wants_answer: bool = False,
    killers: tuple[Attempt, ...] = (),
    **seen: Mapping[str, int],
) -> Account:
    """Draw up the account of one task, n0."""
    call = ChaosCall(id="n0", task=KINDS[kind].task, kind=kind, wants_answer=wants_answer or bool(answers))
    plan = Plan(seed=0, queue_type="quorum", calls=[call], faults=[])
    deadly = plan.ids("deadly")
    found = Seen(
        attempts={"n0": list(attempts)},
        tries={"n0": 1 + copies},
        answers={"n0": answers} if answers else {},
        **{"dead": dict.fromkeys(deadly, 1), **seen},
    )
    return draw_up(plan, found, Causes(hits, deadly, is_classic=False, killers=killers))


def done(start: float, *, worker: str = "w0.0") -> Attempt:
    """An attempt that went well, a tenth of a second long."""
    return Attempt("n0", 5, worker, 4, start, "done", start + 0.1)


def died(start: float, pid: int) -> Attempt:
    """An attempt whose child died in it."""
    return Attempt("n0", pid, "w0.0", 4, start)


def hit(kind: Kind, begin: float, end: float, *, pid: int | None = None, worker: str | None = "w0.0") -> Hit:
    """Something that happened."""
    return Hit(kind=kind, begin=begin, end=end, worker=worker, pid=pid)


def test_the_account_finds_what_is_lost() -> None:
    """The account calls a call without an end lost, also if its child was killed."""
    assert account_of(done(1)).is_well
    assert account_of().lost == ("n0 (number)",)
    assert account_of(died(1, 5), hits=(hit(Kind.CHILD_KILLED, 1, 1.1, pid=5),)).lost == ("n0 (number)",)


def test_the_account_knows_who_was_told() -> None:
    """The account demands one answer per call that asks for it, of the right kind, and no other."""
    good, bad = Answer("SUCCESS", "null"), Answer("FAILURE", "a message is too large")
    assert account_of(done(1), answers=(good,)).is_well
    assert account_of(done(1), answers=(bad,)).unlawful
    assert account_of(done(1), answers=(good, good)).unlawful
    assert account_of(done(1), answers=(good, good), hits=(hit(Kind.CUT, 1.05, 2.0),)).is_well
    assert account_of(done(1), wants_answer=True).unanswered == ("n0 (number)",)
    assert account_of(done(1), kind="result too large", answers=(bad,)).is_well
    assert account_of(done(1), kind="result too large", answers=(good,)).unlawful


def test_a_dead_letter_needs_a_reason() -> None:
    """The account allows a dead letter only for an unknown or a rejected task."""
    assert account_of(done(1), dead={"n0": 1}).unlawful
    assert account_of(kind="unknown", dead={"n0": 1}).is_well
    assert account_of(kind="unknown").lost
    rejected = Attempt("n0", 5, "w0.0", 4, 1, "rejected", 1.1)
    assert account_of(rejected, kind="rejects", dead={"n0": 1}).is_well
    assert account_of(rejected, kind="rejects").lost
    # sent back: one more attempt for each time
    assert account_of(rejected, done(2), kind="rejects", dead={"n0": 1}, replayed={"n0": 1}).is_well
    assert account_of(rejected, done(2), kind="rejects", dead={"n0": 1}).unlawful


def test_a_letter_that_nobody_may_write_stays_in_its_queue() -> None:
    """The account allows a message to stay in the queue only if its dead letter may not be written."""
    assert account_of(kind="forbidden", queued={"n0": 1}).is_well
    assert account_of(kind="unknown", queued={"n0": 1}).queued == 1
    assert account_of(kind="forbidden").lost


def test_only_children_run_tasks() -> None:
    """The account notices a task that ran in a process that is not a child."""
    assert account_of(Attempt("n0", 5, "", 0, 1, "done", 1.1)).unlawful


def test_the_account_wants_a_cause_for_each_repetition() -> None:
    """The account demands a matching cause for each repetition, and uses each cause once."""
    cut = hit(Kind.CUT, 1.05, 2.0)
    assert account_of(done(1), done(2)).unlawful
    assert account_of(done(1), done(2), hits=(cut,)).causes == {Kind.CUT: 1}
    assert account_of(done(1), done(2), copies=1).causes == {"published twice": 1}
    # once for each cause
    assert account_of(done(1), done(3), done(8), hits=(cut,)).unlawful
    # another worker's, too late, too early
    assert account_of(done(1), done(2), hits=(hit(Kind.CUT, 1, 2, worker="w1.0"),)).unlawful
    assert account_of(done(1), done(12), hits=(hit(Kind.CUT, 11, 12),)).unlawful
    assert account_of(done(3), done(4), hits=(hit(Kind.CUT, 1, 2),)).unlawful
    # the one who lost it begins it after the one who got it then
    before = hit(Kind.CUT, 0.9, 1.9, worker="w1.0")
    assert account_of(done(1), done(1.5, worker="w1.0"), hits=(before,)).is_well
    assert account_of(done(1), done(2.5, worker="w1.0"), hits=(before,)).unlawful


def test_a_killed_child_costs_its_last_attempt() -> None:
    """The account accepts a killed child as the cause of its last attempt alone."""
    killed = hit(Kind.CHILD_KILLED, 1.05, 1.06, pid=5)
    assert account_of(died(1, 5), done(2), hits=(killed,)).causes == {Kind.CHILD_KILLED: 1}
    assert account_of(died(1, 6), done(2), hits=(killed,)).unlawful


def test_a_deadly_task_dies_three_times() -> None:
    """The account demands exactly three attempts of a task that kills its child."""
    three = [died(at, at) for at in (1, 2, 3)]
    assert account_of(*three, kind="deadly").is_well
    assert account_of(*three[:2], kind="deadly").unlawful
    assert account_of(*three, died(4, 4), kind="deadly").unlawful


# ---- calls that run beside others ----------------------------------------------------------------------------


def beside(start: float, pid: int, end: float | None = None, *, task_id: str = "n0") -> Attempt:
    """An attempt beside others in one child; without an end it ended with its child."""
    return Attempt(task_id, pid, "w0.0", 4, start, None if end is None else "done", end, is_beside=True)


def test_a_child_of_many_calls_may_cost_an_attempt_of_each() -> None:
    """The account accepts a killer beside it, or a kill of the child, as the cause of an attempt that did not end."""
    killer = beside(1.5, 5, task_id="n1")
    assert account_of(beside(1, 5), beside(2, 6, 2.1), killers=(killer,)).causes == {BESIDE: 1}
    killed = hit(Kind.CHILD_KILLED, 1.5, 1.51, pid=5)
    assert account_of(beside(1, 5), beside(2, 6, 2.1), hits=(killed,)).causes == {Kind.CHILD_KILLED: 1}
    # without one, in another child, and for an attempt that had ended long before
    assert account_of(beside(1, 5), beside(2, 6, 2.1)).unlawful
    assert account_of(beside(1, 7), beside(2, 6, 2.1), killers=(killer,)).unlawful
    late = beside(9, 5, task_id="n1")
    assert account_of(beside(1, 5, 1.1), beside(10, 6, 10.1), killers=(late,)).unlawful
    # one that ran alone
    assert account_of(died(1, 5), done(2), killers=(killer,)).unlawful


def test_the_journal_of_calls_that_run_at_once() -> None:
    """Attempts of one child that overlap are told apart by their ids."""
    lines = (
        ("w0.0", "child-of-4", 0),
        ("n0", "start", 1),
        ("n1", "start", 2),
        ("n0", "done", 3),
        ("n2", "start", 4),
        ("n2", "done", 5),
    )
    found = read_attempts([Entry(name, 5, what, at) for name, what, at in lines], beside=["n0", "n1", "n2"])
    ends = {name: (one.worker, one.end, one.is_last) for name, [one] in found.items()}
    assert ends == {"n0": ("w0.0", 3, True), "n1": ("w0.0", None, True), "n2": ("w0.0", 5, True)}
