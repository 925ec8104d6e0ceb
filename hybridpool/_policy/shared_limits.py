"""What is due for a call that runs beside others in one child, by its time limits.

Its child is not killed for it: the call is told to stop, and if it does not, it is given up. Its submitter hears that
it timed out, although its code may still run, and its child takes no more calls and ends with its last one.
Ages are seconds since the call was handed over, on the monotonic clock.
"""

import attrs


@attrs.frozen(kw_only=True)
class SharedCall:
    """A call, and what has been done about it."""

    age: float
    #: seconds, None: no limit
    soft: float | None
    softened: bool
    hard: float | None
    #: seconds since its submitter gave it up; None: wanted
    cancelled_for: float | None
    #: seconds since it was told to stop for good; None: it was not
    stopped_for: float | None
    #: seconds that it has to stop by itself
    grace: float


@attrs.frozen(kw_only=True)
class SharedDue:
    """What to do now, and in how many seconds to check again; None: nothing is going to be due."""

    soften: bool = False
    #: raise `TaskCancelled` in it
    stop: bool = False
    give_up: bool = False
    check_again_in: float | None = None


def due(call: SharedCall) -> SharedDue:
    """Return what is due for a call."""
    if call.stopped_for is not None:
        left = call.grace - call.stopped_for
        return SharedDue(give_up=True) if left <= 0 else SharedDue(check_again_in=left)
    if call.cancelled_for is not None or (call.hard is not None and call.age >= call.hard):
        return SharedDue(stop=True, give_up=call.grace <= 0, check_again_in=call.grace or None)
    soften = call.soft is not None and not call.softened and call.age >= call.soft
    moments = [] if call.hard is None else [call.hard - call.age]
    if call.soft is not None and not call.softened and not soften:
        moments.append(call.soft - call.age)
    return SharedDue(soften=soften, check_again_in=min(moments, default=None))
