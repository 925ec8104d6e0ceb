"""What follows when the broker does not take a step of settlement: the same step again, another one, or none.

Three rules. A step whose cause of failure may pass is tried again, with growing pauses. A step that is refused for good
is replaced by the next best one, and the log says so once. A message is acknowledged only when the broker has stored
what follows from it; otherwise it stays unacknowledged, and is neither requeued (a quorum queue drops a message that
came back 20 times) nor run again uncounted.
"""

import enum
from typing import Final, TypeGuard

import attrs

from hybridpool._policy.settlement import (
    DeadLetter,
    Delay,
    FinishInApp,
    Republish,
    Route,
    Step,
    Store,
    StoreFailure,
    UnlessDone,
    WaitHere,
)
from hybridpool.errors import (
    AccessRefused,
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    CannotEncode,
    MessageTooLarge,
    QueueFull,
    QueueNotFound,
)

#: seconds before the second attempt; twice as long before each that follows
FIRST_PAUSE_S: Final = 0.05
#: seconds between attempts: while there is no connection, while a queue is full, while a right is missing
MAX_PAUSE_S: Final = 1.0
MAX_FULL_PAUSE_S: Final = 5.0
MAX_REFUSED_PAUSE_S: Final = 300.0
#: seconds for which a message whose step waits keeps its place in the prefetch; then another message gets the place
KEEPS_PLACE_S: Final = 1.0
#: seconds for which a step is tried directly while its queue is full; then the broker holds the message
DIRECT_S: Final = 2.0
#: seconds for which a queue that is missing may be declared again by its consumers
MISSING_S: Final = 30.0
#: seconds after which a full queue is given up: for a result (a reply queue lasts as long without its client), and for
#: the next attempt of a task, if the broker cannot hold it
RESULT_GIVEN_UP_S: Final = 300.0
ATTEMPT_GIVEN_UP_S: Final = 600.0
#: seconds that a message waits here at most, if the broker does not hold it back; less than RabbitMQ's consumer_timeout
MAX_WAIT_HERE_S: Final = 600.0
#: attempts at a step that fails for an unknown reason, before it counts as refused
MAX_UNKNOWN: Final = 5


class Trouble(enum.Enum):
    """Why the broker did not take something."""

    #: no connection, or it broke
    AWAY = "away"
    FULL = "full"
    DENIED = "denied"
    MISSING = "missing"
    TOO_LARGE = "too large"
    UNWRITABLE = "unwritable"
    #: for good, for another reason
    REFUSED = "refused"
    #: for a reason that may pass or not
    UNKNOWN = "unknown"
    #: not the broker: an app of another library could not record how its task ended
    APP = "app"


_TROUBLES: Final = (
    (QueueFull, Trouble.FULL),
    (BrokerUnavailable, Trouble.AWAY),
    (AccessRefused, Trouble.DENIED),
    (QueueNotFound, Trouble.MISSING),
    (MessageTooLarge, Trouble.TOO_LARGE),
    (CannotEncode, Trouble.UNWRITABLE),
    (BrokerRefused, Trouble.REFUSED),
)


class NotFinished(Exception):
    """An app of another library could not record how a task ended; the text says why."""


def trouble_of(error: Exception) -> Trouble:
    """Tell what kind of refusal an error is; one that is none comes from what a message holds: it cannot be written."""
    if isinstance(error, NotFinished):
        return Trouble.APP
    if not isinstance(error, BrokerError):
        return Trouble.UNWRITABLE
    return next((trouble for kind, trouble in _TROUBLES if isinstance(error, kind)), Trouble.UNKNOWN)


@attrs.frozen
class Again:
    """Take the same step again."""

    #: seconds until then
    pause: float
    #: meanwhile the message keeps no other from being taken
    is_held: bool = False


@attrs.frozen
class Instead:
    """Take these steps in place of the one that failed; what follows it stays."""

    steps: tuple[Step, ...]


@attrs.frozen
class Skip:
    """Go on with the step that follows."""


Remedy = Again | Instead | Skip


@attrs.frozen(kw_only=True)
class Attempt:
    """A step that failed, and how often."""

    step: Step
    trouble: Trouble
    #: times that this step has failed, this one included
    failures: int
    #: seconds since it failed first
    waited: float
    #: the broker's text, for the client and the dead letter
    reason: str
    #: a client waits for the result
    wants_result: bool
    #: the broker has forgotten the message
    is_acknowledged: bool
    #: seconds until the next attempt of the task is wanted
    delay: float = 0.0


def remedy(failed: Attempt) -> Remedy:
    """Return what follows."""
    match failed.step, failed.trouble:
        case FinishInApp() as step, _:
            return _not_finished(step, failed)
        case UnlessDone(steps=steps), _:
            # The result backend cannot be reached: it is not known, and a task runs at least once.
            return Instead(steps)
        case _, Trouble.AWAY:
            return Again(pause(failed.failures, MAX_PAUSE_S))
        case _, Trouble.UNKNOWN if failed.failures < MAX_UNKNOWN:
            return Again(pause(failed.failures, MAX_PAUSE_S))
        case Store() | StoreFailure(), Trouble.FULL if failed.waited < RESULT_GIVEN_UP_S:
            return _hold(failed, MAX_FULL_PAUSE_S)
        case Store(is_final=True), Trouble.TOO_LARGE | Trouble.UNWRITABLE:
            return Instead((StoreFailure(failed.reason, "ResultError"),))
        case Store() | StoreFailure(), _:
            return Skip()
        case Republish() | Delay() as step, _:
            return _not_published(step, failed)
        case DeadLetter(), _:
            return _not_dead_lettered(failed)
        case _:
            return Skip()


def pause(failures: int, longest: float) -> float:
    """Return the seconds before the next attempt.

    :param failures: from 1.
    """
    return min(longest, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 32))


def is_delayed(step: Step, delay: float) -> TypeGuard[Delay]:
    """Tell whether a step asks the broker to hold the message until its time.

    :param delay: seconds; the broker counts whole ones.
    """
    return isinstance(step, Delay) and step.route is Route.USUAL and delay >= 1


def _not_published(step: Republish | Delay, failed: Attempt) -> Remedy:
    """Return what follows if the next delivery of a task cannot be published."""
    if failed.trouble is Trouble.FULL:
        return _full(step, failed)
    if failed.trouble is Trouble.MISSING and failed.waited < MISSING_S:
        # it was deleted while it had consumers; they declare it again
        return _hold(failed, MAX_FULL_PAUSE_S)
    if step.route is Route.DETOUR:
        return Instead((attrs.evolve(step, route=Route.NO_DETOUR),))
    if is_delayed(step, failed.delay) and failed.trouble not in (Trouble.TOO_LARGE, Trouble.MISSING):
        # the broker cannot hold it: no right, or a queue name too long for the routing keys of delays
        return Instead((WaitHere(min(failed.delay, MAX_WAIT_HERE_S)), Delay(Route.AT_ONCE)))
    return _given_up(failed)


def _full(step: Republish | Delay, failed: Attempt) -> Remedy:
    """Return what follows if the queue is full; only a worker that takes from it may make room there."""
    if failed.waited < DIRECT_S:
        return _hold(failed, MAX_FULL_PAUSE_S)
    if step.route in (Route.USUAL, Route.AT_ONCE) and not is_delayed(step, failed.delay):
        return Instead((attrs.evolve(step, route=Route.DETOUR),))
    return _hold(failed, MAX_FULL_PAUSE_S) if failed.waited < ATTEMPT_GIVEN_UP_S else _given_up(failed)


def _given_up(failed: Attempt) -> Remedy:
    """Do not run the task again: tell the client, and dead-letter the message."""
    story = f"its next attempt cannot be published: {failed.reason}"
    told = (StoreFailure(story, "TaskError"),) if failed.wants_result else ()
    return Instead((*told, DeadLetter(story)))


def _not_dead_lettered(failed: Attempt) -> Remedy:
    step = failed.step
    assert isinstance(step, DeadLetter)
    if failed.trouble is Trouble.UNWRITABLE and not step.is_bare:
        return Instead((attrs.evolve(step, is_bare=True),))
    if failed.is_acknowledged and failed.waited >= ATTEMPT_GIVEN_UP_S:
        # the broker has forgotten it, and this process cannot keep it for ever
        return Skip()
    return _hold(failed, MAX_FULL_PAUSE_S if failed.trouble is Trouble.FULL else MAX_REFUSED_PAUSE_S)


def _not_finished(step: FinishInApp, failed: Attempt) -> Remedy:
    """Return what follows if an app cannot record how a task ended: its result backend may be away for a while."""
    if failed.waited < RESULT_GIVEN_UP_S and failed.trouble is not Trouble.UNWRITABLE:
        return Again(pause(failed.failures, MAX_FULL_PAUSE_S), is_held=failed.waited >= KEEPS_PLACE_S)
    if step.is_dead_lettered or failed.is_acknowledged:
        return Skip()
    return Instead((DeadLetter(f"how it ended ({step.how}) cannot be recorded: {failed.reason}"),))


def _hold(failed: Attempt, longest: float) -> Again:
    is_passing = failed.trouble in (Trouble.FULL, Trouble.MISSING)
    return Again(pause(failed.failures, longest), is_held=not is_passing or failed.waited >= KEEPS_PLACE_S)
