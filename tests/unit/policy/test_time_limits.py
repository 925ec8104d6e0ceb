"""The steps that are due for the call that a child runs."""

from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._policy.time_limits import REPORT_S, STALL, UNREAD, Due, RunningCall, due

#: what floats lose by adding up
BLINK = 1e-9
spans = st.floats(0.0, 100.0)


@st.composite
def calls(draw: st.DrawFn) -> RunningCall:
    """Return a call at any moment, whatever has been done about it."""
    age = draw(spans)
    return RunningCall(
        age=age,
        still_for=draw(st.floats(0.0, age)),
        behind=draw(st.integers(0, 3)),
        unread_for=draw(st.none() | st.floats(0.0, age)),
        awaits_report=draw(st.booleans()),
        others_free=draw(st.booleans()),
        recalled=draw(st.booleans()),
        soft=draw(st.none() | spans),
        softened=draw(st.booleans()),
        stopped=draw(st.booleans()),
        hard=draw(st.none() | spans),
        cancelled_for=draw(st.none() | st.floats(0.0, age)),
        grace=draw(spans),
    )


def call(**changes: Any) -> RunningCall:
    """Return a call that nothing is due for, with changes."""
    quiet = RunningCall(
        age=1.0,
        still_for=1.0,
        behind=0,
        unread_for=None,
        others_free=False,
        recalled=False,
        soft=None,
        softened=False,
        stopped=False,
        hard=None,
        cancelled_for=None,
        grace=3.0,
    )
    return attrs.evolve(quiet, **changes)


def after(at_work: RunningCall, decided: Due, seconds: float) -> RunningCall:
    """Return the call so much later, with what was decided done."""
    return attrs.evolve(
        at_work,
        age=at_work.age + seconds,
        still_for=at_work.still_for + seconds,
        recalled=at_work.recalled or decided.recall,
        # it goes to another child, which begins it
        unread_for=None if at_work.unread_for is None or decided.take_back else at_work.unread_for + seconds,
        # the look after that time has seen it begin
        awaits_report=at_work.awaits_report and seconds < REPORT_S,
        softened=at_work.softened or decided.soften,
        stopped=at_work.stopped or decided.stop,
        # a child is killed once
        hard=None if decided.kill else at_work.hard,
        cancelled_for=None if at_work.cancelled_for is None or decided.kill else at_work.cancelled_for + seconds,
    )


def is_anything_due(decided: Due) -> bool:
    """Tell whether something is to be done now."""
    return decided.recall or decided.take_back or decided.soften or decided.stop or decided.kill


def test_nothing_is_due_without_limits() -> None:
    """Without limits and cancellation nothing is due."""
    assert due(call(age=1e6)) == Due()


def test_what_waits_behind_is_called_back_once() -> None:
    """Calls behind one that takes long are called back, once."""
    assert due(call(still_for=0.0, behind=2)) == Due(check_again_in=STALL)
    assert due(call(still_for=STALL, behind=2)) == Due(recall=True)
    assert due(call(still_for=60.0, behind=2, recalled=True)) == Due()


def test_what_its_child_does_not_read_is_taken_back_for_another() -> None:
    """A call that its child does not read is taken back if another child is free."""
    assert due(call(unread_for=0.0, others_free=True)) == Due(check_again_in=UNREAD)
    again = Due(take_back=True, check_again_in=UNREAD)
    assert due(call(unread_for=UNREAD, others_free=True)) == again, "it may have read it, and not begun"
    assert due(call(unread_for=UNREAD)) == Due(check_again_in=UNREAD), "another may be free then"
    assert due(call(still_for=60.0, others_free=True)) == Due(), "it is at work"


def test_the_page_is_read_for_a_call_that_is_to_be_reported() -> None:
    """A call whose begin is to be told is looked at soon, and less and less often while its child stands still."""
    assert due(call(still_for=0.0, awaits_report=True)) == Due(check_again_in=REPORT_S)
    assert due(call(still_for=0.4, awaits_report=True)) == Due(check_again_in=0.1)
    assert due(call(still_for=60.0, awaits_report=True)) == Due(check_again_in=UNREAD)
    assert due(call(still_for=0.0)) == Due(), "others cost no look"


def test_soft_then_hard() -> None:
    """The soft limit comes first, then the hard one."""
    assert due(call(age=1.0, soft=2.0, hard=3.0)) == Due(check_again_in=1.0)
    assert due(call(age=2.0, soft=2.0, hard=3.0)) == Due(soften=True, check_again_in=1.0)
    assert due(call(age=2.5, soft=2.0, softened=True, hard=3.0)) == Due(check_again_in=0.5)
    assert due(call(age=3.0, soft=2.0, softened=True, hard=3.0)) == Due(kill=True)


def test_cancelled() -> None:
    """A cancelled call is stopped, and killed after its grace."""
    assert due(call(cancelled_for=0.0)) == Due(stop=True, check_again_in=3.0)
    assert due(call(cancelled_for=1.0, stopped=True)) == Due(check_again_in=2.0)
    assert due(call(cancelled_for=3.0, stopped=True)) == Due(kill=True)
    assert due(call(age=1.5, soft=1.0, softened=True, cancelled_for=0.0)).stop, "it went on after its soft limit"
    assert due(call(cancelled_for=0.0, grace=0.0)).kill


@given(at_work=calls(), part=st.floats(0.0, 1.0, exclude_max=True))
def test_nothing_falls_due_unannounced(at_work: RunningCall, part: float) -> None:
    """Nothing falls due before the announced moment."""
    decided = due(at_work)
    wait = 1e6 if decided.check_again_in is None else decided.check_again_in - BLINK
    if wait > 0:
        assert not is_anything_due(due(after(at_work, decided, wait * part)))


@given(at_work=calls())
def test_what_is_announced_falls_due(at_work: RunningCall) -> None:
    """Something falls due at the announced moment, and the looks come to an end."""
    # as long as none is free it is looked at again every second
    at_work = attrs.evolve(at_work, others_free=True)
    decided = due(at_work)
    looks = 0
    while decided.check_again_in is not None:
        assert decided.check_again_in > 0
        at_work = after(at_work, decided, decided.check_again_in + BLINK)
        decided = due(at_work)
        looks += 1
        assert looks <= 6, "report, stall, unread, soft, hard and grace are all there is"


@given(at_work=calls())
def test_kills_exactly_when_the_time_is_up(at_work: RunningCall) -> None:
    """A call is killed exactly when its hard limit or its grace is over."""
    over = at_work.hard is not None and at_work.age >= at_work.hard
    out_of_grace = at_work.cancelled_for is not None and at_work.cancelled_for >= at_work.grace
    assert due(at_work).kill == (over or out_of_grace)


@given(at_work=calls())
def test_softens_once_and_for_a_reason(at_work: RunningCall) -> None:
    """A call is softened once, over its soft limit, and stopped once, when it is cancelled."""
    over = at_work.soft is not None and at_work.age >= at_work.soft
    wanted = at_work.cancelled_for is None
    assert due(at_work).soften == (not at_work.softened and not at_work.stopped and over and wanted)
    assert due(at_work).stop == (not at_work.stopped and not wanted)


@given(at_work=calls())
def test_recalls_only_what_is_there(at_work: RunningCall) -> None:
    """Calls are called back once, and only if there are any behind a long one."""
    waits_long = at_work.behind > 0 and at_work.still_for >= STALL
    assert due(at_work).recall == (waits_long and not at_work.recalled)
