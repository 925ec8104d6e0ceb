"""What is due for the call that a child runs, by its time limits: call back those behind it, stop it softly, kill it.

Ages are seconds since the call was handed over or became the first in the channel, on the monotonic clock; so a call
stuck before its first line, in unpickling or an import, is timed as well.
"""

from typing import Final

import attrs

#: seconds at one call, which was taken for short, after which those behind it are called back
STALL: Final = 0.005
#: seconds after which a call that its child has not begun is given to another one that is free. A child that has
#: nothing else to do begins within microseconds; one that does not was stopped, say by a debugger
UNREAD: Final = 1.0
#: seconds after which the shared page is read, for a call whose submitter is to be told when it begins
REPORT_S: Final = 0.002


@attrs.frozen(kw_only=True)
class RunningCall:
    """The call that a child runs, and what has been done about it."""

    age: float
    #: seconds since its child was last seen to begin a call; less than the age if outcomes wait to be sent together
    still_for: float
    #: calls behind it in the same channel
    behind: int
    #: seconds for which its child should have begun it, or since it was to be taken back last; None: it has begun it
    unread_for: float | None
    #: its child has a call, this one or one behind it, whose submitter is to be told when it begins, and which was not
    #: seen to begin
    awaits_report: bool = False
    #: another child has nothing to do
    others_free: bool
    recalled: bool
    #: seconds, None: no limit
    soft: float | None
    softened: bool
    #: it was asked to stop because its caller gave it up
    stopped: bool
    hard: float | None
    #: seconds since its caller gave it up; None: wanted
    cancelled_for: float | None
    #: seconds between asking a cancelled call to stop and killing its child
    grace: float


@attrs.frozen(kw_only=True)
class Due:
    """What to do now, and in how many seconds to check again (None: not for this call)."""

    recall: bool = False
    #: take back all calls that the child has not read, with the first
    take_back: bool = False
    #: raise `SoftTimeLimitExceeded` in it
    soften: bool = False
    #: raise `TaskCancelled` in it
    stop: bool = False
    kill: bool = False
    check_again_in: float | None = None


def due(call: RunningCall) -> Due:
    """Return what is due for a call."""
    moments: list[float] = []
    recall = False
    if call.behind and not call.recalled:
        recall = call.still_for >= STALL
        if not recall:
            moments.append(STALL - call.still_for)
    take_back = call.unread_for is not None and call.others_free and call.unread_for >= UNREAD
    if call.unread_for is not None:
        # Again also after taking it back, which fails if the child has read it, or if something else stands before it.
        moments.append(UNREAD - call.unread_for if call.unread_for < UNREAD else UNREAD)
    if call.awaits_report:
        # Less and less often: a child that stands still has been stopped.
        moments.append(min(max(REPORT_S, call.still_for / 4), UNREAD))
    stop = call.cancelled_for is not None and not call.stopped
    soften = False
    if call.soft is not None and not call.softened and not call.stopped:
        soften = call.age >= call.soft and not stop
        moments.append(call.soft - call.age)
    kill = False
    if call.hard is not None:
        kill = call.age >= call.hard
        moments.append(call.hard - call.age)
    if call.cancelled_for is not None:
        kill = kill or call.cancelled_for >= call.grace
        moments.append(call.grace - call.cancelled_for)
    later = [moment for moment in moments if moment > 0]
    return Due(
        recall=recall,
        take_back=take_back,
        soften=soften,
        stop=stop,
        kill=kill,
        check_again_in=min(later, default=None),
    )
