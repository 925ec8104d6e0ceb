"""The steps that follow from an outcome, in order; the acknowledgement comes last.

So a crash between two steps may repeat a task, and never loses one.
"""

import enum
from typing import Literal, assert_never

import attrs

from hybridpool._outcome import (
    Cancelled,
    Ignored,
    Lost,
    Outcome,
    Raised,
    Refused,
    Rejected,
    Retrying,
    Returned,
    TimedOut,
)
from hybridpool._policy.retry import RetryPace


@attrs.frozen
class Store:
    """Make the outcome known as the task's result."""

    #: False: another result follows
    is_final: bool = True


@attrs.frozen
class StoreFailure:
    """Store a failure as the result, in place of the outcome: it cannot be stored, or the task is not run again."""

    reason: str
    #: the exception that the client gets, of `hybridpool.errors`
    kind: str


@attrs.frozen
class WaitHere:
    """Keep the message in this worker for a while, because the broker does not hold it."""

    seconds: float


class Route(enum.Enum):
    """How a message that is published again reaches its queue."""

    #: with the delay that it has, if any
    USUAL = "usual"
    #: without a delay
    AT_ONCE = "at once"
    #: held by the broker for some seconds, because the queue is full
    DETOUR = "detour"
    #: without a delay, and the broker does not hold it either if the queue is full
    NO_DETOUR = "no detour"


@attrs.frozen
class Republish:
    """Publish the message again, counting a child that died."""

    lost: int
    route: Route = Route.USUAL


@attrs.frozen
class Delay:
    """Publish the message for its next attempt."""

    route: Route = Route.USUAL


@attrs.frozen
class DeadLetter:
    """Publish the message to the dead-letter queue."""

    reason: str
    #: without the headers that only its sender needs
    is_bare: bool = False


@attrs.frozen
class Acknowledge:
    """Tell the broker that the message is done with."""


@attrs.frozen
class Requeue:
    """Let the broker deliver the message again, as if it had never been here."""


@attrs.frozen
class Refuse:
    """Reject the message: its queue dead-letters it if it is declared so; otherwise the broker deletes it."""


#: why an app of another library has to be told how a task ended
Unrecorded = Literal["lost", "timed out", "terminated", "revoked", "expired", "refused"]


@attrs.frozen
class FinishInApp:
    """Have a child of another library's app record how a task ended, which no child could."""

    how: Unrecorded
    #: of a child that was lost: how it ended; of a message that is refused: the reason
    cause: str = ""
    #: seconds, of a task that ran over its time limit
    limit: float = 0.0
    #: whatever becomes of this step, the message is dead-lettered afterwards
    is_dead_lettered: bool = False
    #: the exception for the client of a message that is refused, as in `Refused`
    kind: str = ""
    module: str = ""
    arguments: bytes = b"[]"


@attrs.frozen
class UnlessDone:
    """Take these steps, unless another library's app has recorded the task's success before its child died."""

    steps: tuple["Step", ...]


Step = (
    Store
    | StoreFailure
    | WaitHere
    | Republish
    | Delay
    | DeadLetter
    | Acknowledge
    | Requeue
    | Refuse
    | FinishInApp
    | UnlessDone
)
_STORE, _ACK, _BACK = Store(), Acknowledge(), Requeue()
_JUST_ACK: tuple[Step, ...] = (_ACK,)
_STORE_AND_ACK: tuple[Step, ...] = (_STORE, _ACK)


@attrs.frozen(kw_only=True)
class GuestOptions:
    """The options of another library's task that govern how the broker is answered; their names are Celery's."""

    #: deliver it again if its child died
    reject_on_worker_lost: bool = False
    #: the app makes another attempt of it if its child died, as long as it has retries left; stronger than the former
    retry_on_worker_lost: bool = False
    #: acknowledge it although it failed, or ran over its time limit
    acks_on_failure: bool = True
    acks_on_timeout: bool = True


@attrs.frozen(kw_only=True)
class DeliveryOptions:
    """The options that govern a task's delivery: result, acknowledgement, retries."""

    #: a client waits for its result
    wants_result: bool
    #: False: acknowledge before the start, so that it runs at most once
    acks_late: bool
    max_deliveries: int
    pace: RetryPace = RetryPace()
    #: the app is another library's, which stores results and publishes by itself; see `_policy.guest_settlement`
    guest: GuestOptions | None = None


def settle(
    outcome: Outcome, options: DeliveryOptions, *, lost_before: int, acknowledged: bool, stopping: bool
) -> tuple[Step, ...]:
    """Return the steps.

    :param lost_before: earlier deliveries of this message whose child died.
    :param acknowledged: it was acknowledged when it began, so the broker has forgotten it.
    :param stopping: children are being killed because the worker stops; that is not the task's fault.
    """
    store: tuple[Step, ...] = (_STORE,) if options.wants_result else ()
    ack = () if acknowledged else _JUST_ACK
    match outcome:
        case Lost() if acknowledged:
            return store
        case Lost() if stopping:
            return (_BACK,)
        case Lost(blamed=False):
            return (Republish(lost_before), _ACK)
        case Lost(cause=cause):
            attempt = lost_before + 1
            if attempt < options.max_deliveries:
                return (Republish(attempt), _ACK)
            story = f"its child died {attempt} times (task_max_deliveries); the last time: {cause}"
            return (*store, DeadLetter(story), _ACK)
        case Refused(reason=reason):
            return (*store, DeadLetter(reason), *ack)
        case Retrying():
            return (*(Store(is_final=False) for _ in store), Delay(), *ack)
        case Rejected(requeue=True):
            return (Republish(lost_before),) if acknowledged else (_BACK,)
        case Rejected(reason=reason):
            return (*store, DeadLetter(f"the task rejected it: {reason}"), *ack)
        case Ignored():
            return ack
        case Returned() | Raised() | TimedOut() | Cancelled():
            return _STORE_AND_ACK if options.wants_result and not acknowledged else (*store, *ack)
        case _:
            assert_never(outcome)
