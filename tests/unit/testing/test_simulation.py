"""The pool keeps its promises in seeded schedules of failures; the simulation finds faults put into the pool's code."""
# pyright: reportPrivateUsage=false

import asyncio
import gc
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from hybridpool._child import protocol
from hybridpool._child.protocol import ChildProtocol
from hybridpool._ipc import shared_page
from hybridpool._ipc.frames import CallsGivenBack, LogLines, ToChild
from hybridpool._ipc.transport import SeqpacketTransport
from hybridpool._lanes import reconciler as keeper
from hybridpool._lanes.base import Job
from hybridpool._lanes.children.handle import CallInFlight, ChildHandle
from hybridpool._lanes.children.lane import ChildLane
from hybridpool._lanes.children.registry import Forks
from hybridpool._lanes.prefork import watchdog
from hybridpool._lanes.prefork.dispatcher import Dispatcher
from hybridpool._lanes.prefork.lane import PreforkLane
from hybridpool._lanes.quota import TaskQuota
from hybridpool._lanes.shared import lane as shared_lane
from hybridpool._lanes.shared import watchdog as shared_watchdog
from hybridpool._lanes.shared.child_handle import SharedChildHandle
from hybridpool._lanes.shared.dispatcher import SharedDispatcher
from hybridpool._lanes.shared.lane import SharedLane
from hybridpool._outcome import Outcome
from hybridpool._policy import death_of_shared, reconcile, shared_limits, time_limits
from hybridpool._policy.death_of_shared import Fate, SharedDeath
from tests.simulation.life import Life
from tests.simulation.sweep import run_one, simulate
from tests.simulation.world import PromiseBroken

ROOT = Path(__file__).parents[3]
#: enough for each of the faults that are put in here to show
SCHEDULES = 1200
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def dice_untouched() -> Iterator[None]:
    """The simulation seeds the common generator, and leaves its state as the caller had it."""
    before = random.getstate()
    yield
    assert random.getstate() == before


# ---- the pool ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_promises_are_kept() -> None:
    """The promises about calls, children and leftovers hold in 300 schedules with many events of each kind."""
    report = simulate(seed=1, schedules=300)
    for name in (
        "crashes",
        "recycles",
        "failed starts",
        "zygotes lost",
        "renewals",
        "Lost",
        "TimedOut",
        "Cancelled",
        "scalings",
    ):
        assert report.counts[name] > 10, name
    for name in ("files lost", "interrupts discarded"):
        assert report.counts[name] > 2, name
    for name in ("restarts", "loops held"):
        assert report.counts[name] > 25, name


@pytest.mark.slow
def test_promises_are_kept_for_any_seed() -> None:
    """The promises hold in 200 schedules of a random seed, which the report names."""
    report = simulate(schedules=200)
    sys.stdout.write(f"{report}\n")
    assert report.schedules == 200


# ---- the simulation ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_seed_is_a_schedule() -> None:
    """A seed gives the same trace each time it is run."""
    for seed in range(40):
        first, second = run_one(seed), run_one(seed)
        assert first.trace() == second.trace()


def test_a_seed_means_the_same_in_every_process() -> None:
    """A seed gives the same trace in two processes whose hashes differ."""
    code = "import sys; from tests.simulation.sweep import run_one; print(*(run_one(n).trace() for n in range(30)))"
    told = set()
    for hashes in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hashes}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=220,
            check=True,
        )
        told.add(done.stdout)
    assert len(told) == 1


def test_the_command_prints_one_line() -> None:
    """The command prints one line with the seed, the schedules and the calls, and writes nothing to stderr."""
    command = [sys.executable, "-m", "tests.simulation", "--seed", "7", "--schedules", "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=220, check=True)
    assert re.fullmatch(r"seed 7: 20 schedules, \d+ calls, .* real seconds\n", done.stdout)
    assert not done.stderr


# ---- faults that are put in, and must be found ---------------------------------------------------------------


def count_one_too_many(patch: Patch) -> None:
    """The call that died with its child is taken for one that it had not begun."""
    right = ChildHandle.close

    def close(child: ChildHandle) -> tuple[list[CallInFlight], list[CallInFlight]]:
        back, lost = right(child)
        return [*lost, *back], []

    patch.setattr(ChildHandle, "close", close)


def count_one_too_few(patch: Patch) -> None:
    """A call that its child had not begun is taken for lost."""
    right = ChildHandle.close

    def close(child: ChildHandle) -> tuple[list[CallInFlight], list[CallInFlight]]:
        back, lost = right(child)
        return back[1:], [*lost, *back[:1]]

    patch.setattr(ChildHandle, "close", close)


def put_back_without_counting(patch: Patch) -> None:
    """Calls that come back still count as running."""
    right = Dispatcher.put_back

    def put_back(dispatcher: Dispatcher, jobs: Sequence[Job]) -> None:
        right(dispatcher, jobs)
        dispatcher.running += len(jobs)

    patch.setattr(Dispatcher, "put_back", put_back)


def put_back_nothing(patch: Patch) -> None:
    """Calls that come back are dropped."""

    def put_back(dispatcher: Dispatcher, jobs: Sequence[Job]) -> None:
        dispatcher.running -= len(jobs)

    patch.setattr(Dispatcher, "put_back", put_back)


def keep_the_dead_on_the_list(patch: Patch) -> None:
    """A child that is gone stays on the list of idle ones."""
    patch.setattr(Dispatcher, "remove", lambda dispatcher, child: dispatcher.busy.discard(child))


def forget_the_page(patch: Patch) -> None:
    """Outcomes that a dead child had noted and not sent are not read."""
    patch.setattr(shared_page.SharedPage, "read", lambda page: (_started(page), []))


def _started(page: shared_page.SharedPage) -> int:
    started: int = shared_page._WORD.unpack_from(page._page, 0)[0]
    return started


def kill_without_a_mark(patch: Patch) -> None:
    """A kill does not ask whether its call is still at work."""
    patch.setattr(ChildHandle, "mark_for_kill", lambda *_: True)


def never_kill(patch: Patch) -> None:
    """Limits and graces are not kept."""
    patch.setattr(watchdog, "due", lambda call: attrs.evolve(time_limits.due(call), kill=False))


def work_beyond_the_size(patch: Patch) -> None:
    """Spares are given calls."""

    def dispatch(dispatcher: Dispatcher) -> None:
        dispatcher._due = False
        while dispatcher.queue and dispatcher.idle:
            dispatcher._give(dispatcher.idle.popleft(), dispatcher._registry.clock())
        dispatcher._watch(dispatcher.busy)

    patch.setattr(Dispatcher, "dispatch", dispatch)


def forget_to_dispatch(patch: Patch) -> None:
    """A child that becomes free is not given what waits."""
    right = PreforkLane._hear

    def hear(lane: PreforkLane, child: ChildHandle, said: Sequence[object]) -> None:
        dispatcher = lane._dispatcher
        queue, dispatcher.queue = dispatcher.queue, type(dispatcher.queue)()
        right(lane, child, said)  # type: ignore[arg-type]  # frames, unseen
        queue.extend(dispatcher.queue)
        dispatcher.queue = queue

    patch.setattr(PreforkLane, "_hear", hear)


def replace_nobody(patch: Patch) -> None:
    """A child that leaves is not replaced before it is gone."""

    def plan(view: reconcile.LaneView) -> reconcile.ReconcilePlan:
        decided = reconcile.plan(view)
        return reconcile.ReconcilePlan(retire=decided.retire, check_again_in=1.0) if view.busy else decided

    patch.setattr(keeper, "plan", plan)


def leave_the_channel_open(patch: Patch) -> None:
    """The channel of a child that is gone is not closed."""
    patch.setattr(SeqpacketTransport, "close", lambda box: box._loop.remove_reader(box._sock.fileno()))


def tell_twice(patch: Patch) -> None:
    """A call's end is told twice."""
    right = PreforkLane._done

    def done(lane: PreforkLane, child: ChildHandle, frame: object, now: float) -> None:
        job = child.head.job if child.head else None
        right(lane, child, frame, now)  # type: ignore[arg-type]  # a Done, unseen
        if job is not None:
            job.on_done(job, frame.outcome, child.name, 0.0)  # type: ignore[attr-defined]

    patch.setattr(PreforkLane, "_done", done)


def take_back_what_is_at_work(patch: Patch) -> None:
    """A recall takes the call at work too."""
    right = ChildHandle.take_unread

    def take_unread(child: ChildHandle, now: float) -> list[Job]:
        right(child, now)
        return child.remove(set(child.calls), now)

    patch.setattr(ChildHandle, "take_unread", take_unread)


def never_scale(patch: Patch) -> None:
    """The autoscaler is not told of the load."""

    def add(dispatcher: Dispatcher, job: Job) -> None:
        dispatcher.queue.append(job)
        dispatcher.dispatch_soon()

    patch.setattr(Dispatcher, "add", add)
    patch.setattr(
        Dispatcher, "notify_load", lambda dispatcher: None if dispatcher.load else dispatcher.emptied.notify_all()
    )


def retire_nobody(patch: Patch) -> None:
    """Children that are too many, or too old, stay."""
    patch.setattr(keeper, "plan", lambda view: attrs.evolve(reconcile.plan(view), retire=()))


def retire_the_idle_with_the_old(patch: Patch) -> None:
    """With a child that is replaced go others, who are replaced only then."""

    def plan(view: reconcile.LaneView) -> reconcile.ReconcilePlan:
        decided = reconcile.plan(view)
        if not decided.retire:
            return decided
        missing = view.target + view.spares - view.busy - len(view.starting)
        return attrs.evolve(decided, retire=(*view.replaceable, *view.idle), fork=max(0, missing))

    patch.setattr(keeper, "plan", plan)


def wait_for_those_not_ready(patch: Patch) -> None:
    """A child that hangs in its birth is waited for."""
    patch.setattr(keeper, "plan", lambda view: attrs.evolve(reconcile.plan(view), kill_not_ready=()))


def look_all_the_time(patch: Patch) -> None:
    """A supervisor looks again and again without a pause."""
    patch.setattr(keeper, "plan", lambda view: attrs.evolve(reconcile.plan(view), check_again_in=0.0))


def leave_a_timer(patch: Patch) -> None:
    """A timer of a call is never taken back."""

    def alert(keeper: watchdog.Watchdog, child: ChildHandle, number: int) -> None:
        asyncio.get_running_loop().call_later(1e6, keeper._alert_again, child, number)

    patch.setattr(watchdog.Watchdog, "_alert", alert)


def stop_anything(patch: Patch) -> None:
    """A call is stopped that its caller did not give up."""
    patch.setattr(watchdog, "due", lambda call: attrs.evolve(time_limits.due(call), stop=not call.stopped))


def threads_send_what_waits(patch: Patch) -> None:
    """A thread that logs sends the outcomes that wait along, and clears the page under the loop."""

    def say(life: Life) -> Generator[float, None, None]:
        yield from life._perform(life._protocol.flush())
        life._send(LogLines(""))

    patch.setattr(Life, "_say_apart", say)


def no_answer_apart(patch: Patch) -> None:
    """A thread that sends a call is not answered on its own socket."""
    patch.setattr(ChildHandle, "_answer_apart", lambda *_: None)


def clear_before_sending(patch: Patch) -> None:
    """A child clears its page before it sends what stands there."""
    right = ChildProtocol.flush
    patch.setattr(ChildProtocol, "flush", lambda child: right(child)[::-1])


def send_and_not_clear(patch: Patch) -> None:
    """A child sends its outcomes, and leaves them on the page to be sent again."""
    right = ChildProtocol.flush
    patch.setattr(ChildProtocol, "flush", lambda child: right(child)[:1])


def give_back_the_call_at_work(patch: Patch) -> None:
    """A child that is recalled gives back the call at work with those behind it."""
    right = ChildProtocol._give_back

    def give_back(child: ChildProtocol) -> protocol.Actions:
        *before, last = right(child)
        assert isinstance(last, protocol.Send)
        assert isinstance(last.frame, CallsGivenBack)
        seqs = [child.at_work, *last.frame.seqs] if child.at_work else last.frame.seqs
        return (*before, protocol.Send(CallsGivenBack(seqs)))

    patch.setattr(ChildProtocol, "_give_back", give_back)


def interrupt_any_call(patch: Patch) -> None:
    """A child raises an interrupt in the call at work, whichever was meant."""
    patch.setattr(ChildProtocol, "_is_due", lambda child, _: child.at_work > 0)


def overtake_outcomes(patch: Patch) -> None:
    """A child sends a large outcome before those that wait."""
    patch.setattr(ChildProtocol, "send_after_outcomes", lambda _, frame: (protocol.Send(frame),))


def read_on_without_descriptors(patch: Patch) -> None:
    """A child that has lost a call for want of a descriptor goes on as if nothing had come."""
    right = ChildProtocol.receive

    def receive(child: ChildProtocol, received: Sequence[ToChild], has_file: bool) -> None:
        right(child, received, has_file)
        child._is_deaf = False

    patch.setattr(ChildProtocol, "receive", receive)


# ---- in lanes whose children run several calls at once


def blame_all(patch: Patch) -> None:
    """All calls of a child that died are taken for guilty."""

    def fates(death: SharedDeath) -> dict[int, Fate]:
        return dict.fromkeys(death.begun, Fate.GUILTY)

    patch.setattr(shared_lane, "fates", fates)


def blame_none(patch: Patch) -> None:
    """A call of which its child died runs again."""
    right = death_of_shared.fates

    def fates(death: SharedDeath) -> dict[int, Fate]:
        return {one: Fate.BESIDE if fate is Fate.GUILTY else fate for one, fate in right(death).items()}

    patch.setattr(shared_lane, "fates", fates)


def blame_whose_code_ran(patch: Patch) -> None:
    """A child that is killed for one call is taken to have died of another, whose code ran."""
    right = death_of_shared.fates
    patch.setattr(shared_lane, "fates", lambda death: right(attrs.evolve(death, killed_for=None)))


def run_again_what_must_not(patch: Patch) -> None:
    """A call that must not be started twice runs again like any other."""
    right = death_of_shared.fates

    def fates(death: SharedDeath) -> dict[int, Fate]:
        return right(attrs.evolve(death, begun=dict.fromkeys(death.begun, True)))

    patch.setattr(shared_lane, "fates", fates)


def suspect_for_ever(patch: Patch) -> None:
    """A call that stood beside many deaths runs beside others again."""
    patch.setattr(shared_lane, "runs_apart", lambda **_: False)


def give_beyond_the_slots(patch: Patch) -> None:
    """A child is given one call more than it has slots."""
    patch.setattr(SharedChildHandle, "room", property(lambda child: child.slots + 1 - len(child.calls)))


def run_apart_with_others(patch: Patch) -> None:
    """A child for calls that run apart is given others too."""
    right = SharedDispatcher.dispatch

    def dispatch(dispatcher: SharedDispatcher) -> None:
        dispatcher.queue.extend(dispatcher.apart)
        dispatcher.apart.clear()
        right(dispatcher)

    patch.setattr(SharedDispatcher, "dispatch", dispatch)


def forget_the_quota(patch: Patch) -> None:
    """A task runs as often at once as there is room."""
    patch.setattr(TaskQuota, "park_if_full", lambda *_: False)


def leave_what_is_held_back(patch: Patch) -> None:
    """A call that was held back for others of its task is forgotten."""
    patch.setattr(TaskQuota, "release", lambda quota, job: quota._at_work.pop(job.task, None) and None)


def never_give_up(patch: Patch) -> None:
    """A call that does not stop is waited for."""
    patch.setattr(
        shared_watchdog, "due", lambda call: attrs.evolve(shared_limits.due(call), give_up=False, check_again_in=None)
    )


def kill_for_each_limit(patch: Patch) -> None:
    """A child is killed for a call that is over its limit, with all its other calls."""

    def give_up(lane: SharedLane, child: SharedChildHandle, call: CallInFlight, outcome: Outcome) -> None:
        lane._watchdog._kill_for(child, call, outcome)

    patch.setattr(SharedLane, "_give_up_call", give_up)


def report_no_begin(patch: Patch) -> None:
    """A submitter that wants to know when its call begins is not told."""
    patch.setattr(ChildHandle, "_report_begun", lambda _child, _last: None)


def report_all_that_is_given(patch: Patch) -> None:
    """All calls of a child are taken for begun when the first of them has."""
    right = ChildHandle._report_begun
    patch.setattr(ChildHandle, "_report_begun", lambda child, _last: right(child, sys.maxsize))


def put_back_twice(patch: Patch) -> None:
    """One of the calls that are to run again is put into the queue twice."""
    right = SharedDispatcher.put_back

    def put_back(dispatcher: SharedDispatcher, jobs: Sequence[Job]) -> None:
        right(dispatcher, [*jobs, *jobs[:1]])

    patch.setattr(SharedDispatcher, "put_back", put_back)


def keep_a_child_apart(patch: Patch) -> None:
    """A child that ran calls apart is not let go."""
    right = SharedDispatcher._dispatch_apart
    patch.setattr(
        SharedDispatcher, "_dispatch_apart", lambda dispatcher: right(dispatcher) if dispatcher.apart else None
    )


def end_the_older_zygote_at_once(patch: Patch) -> None:
    """When the app is loaded anew, the older zygote is ended while its children work."""

    async def replace_children_of(lane: ChildLane[Any], zygote: Forks, reason: str) -> None:
        for child in lane._registry.children.values():
            if lane._registry.is_of(child, zygote):
                lane.retire(child.name, reason, once_replaced=True)

    patch.setattr(ChildLane, "replace_children_of", replace_children_of)


FAULTS: list[tuple[Callable[[Patch], None], str]] = [
    (count_one_too_many, "is run twice"),
    (count_one_too_few, "had not begun it|had been noted"),
    (put_back_without_counting, "the dispatcher counts"),
    (put_back_nothing, "is in 0 places|a call waits although"),
    (keep_the_dead_on_the_list, "idle children are not all on the list"),
    (forget_the_page, "is run twice|had been noted"),
    (kill_without_a_mark, "which was not due"),
    (never_kill, "s, limit|s to stop"),
    (work_beyond_the_size, "children are busy"),
    (forget_to_dispatch, "a call waits although"),
    (replace_nobody, "none is forked"),
    (leave_the_channel_open, "left"),
    (tell_twice, "ended twice"),
    (never_scale, "the size stays"),
    (retire_nobody, "none retires|do not retire"),
    (retire_the_idle_with_the_old, "recycling left"),
    (wait_for_those_not_ready, "none is forked|come to rest"),
    (look_all_the_time, "it spins"),
    (leave_a_timer, "timers are left"),
    (stop_anything, "was stopped, and its caller did not give it up"),
    (take_back_what_is_at_work, "is run twice|ended|places"),
    (threads_send_what_waits, "sends an outcome twice|had been noted|had not begun it|was not due"),
    (no_answer_apart, "is not answered"),
    (clear_before_sending, "had been noted"),
    (send_and_not_clear, "sends an outcome twice"),
    (give_back_the_call_at_work, "is run twice"),
    (interrupt_any_call, "was stopped|it spins"),
    (overtake_outcomes, "which was not due|had been noted|is run twice|come to rest"),
    (read_on_without_descriptors, "come to rest|it spins"),
    (blame_all, "its child did not die of it|places"),
    (blame_none, "these died of it|again and again|is run twice"),
    (blame_whose_code_ran, "its child did not die of it"),
    (run_again_what_must_not, "is run twice, and must not be|places"),
    (suspect_for_ever, "again and again|come to rest"),
    (give_beyond_the_slots, "more calls than slots"),
    (run_apart_with_others, "is to run apart|was to run apart"),
    (forget_the_quota, "run at once"),
    (leave_what_is_held_back, "places|never ended|come to rest|run at once"),
    (never_give_up, "s, limit|s to stop|come to rest|it spins"),
    (kill_for_each_limit, "a kill of .* hit"),
    (report_no_begin, "nobody was told"),
    (report_all_that_is_given, "is told to have begun, and has not|told twice"),
    (put_back_twice, "places|run twice"),
    (keep_a_child_apart, "a child that ran apart is left"),
    (end_the_older_zygote_at_once, "come to rest"),
]


@pytest.mark.parametrize(("fault", "promise"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.deep
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_faults_are_found(fault: Callable[[Patch], None], promise: str, monkeypatch: Patch) -> None:
    """The simulation finds each fault that is put in, and names the promise that it breaks and the seed."""
    fault(monkeypatch)
    # What a broken schedule has left open is closed when it is collected: not in the middle of the next one.
    gc.collect()
    with pytest.raises(PromiseBroken, match=promise) as found:
        simulate(seed=1, schedules=SCHEDULES)
    assert re.search(r"--seed \d+ --schedules 1\n", str(found.value))
    del found
    gc.collect()
