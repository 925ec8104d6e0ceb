"""The steps that follow from an outcome of another library's app, which has done all but answer the broker.

Its child has stored the result and sent what follows; a retry is one of those. Only a task that could not record its
own end is recorded afterwards, by a child of the app (`FinishInApp`). What the broker is told is what Celery's worker
tells it (`celery.worker.request.Request`), with one difference: a task that is delivered again because its child died,
or because of its time limit, is so at most `task_max_deliveries` times, and then dead-lettered. As there, a task whose
success was recorded before its child died is not run again.
"""

from typing import Final, assert_never

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
from hybridpool._policy.settlement import (
    Acknowledge,
    DeadLetter,
    DeliveryOptions,
    FinishInApp,
    GuestOptions,
    Refuse,
    Republish,
    Requeue,
    Step,
    UnlessDone,
)

_ACK: Final[tuple[Step, ...]] = (Acknowledge(),)
_REFUSE: Final[tuple[Step, ...]] = (Refuse(),)
_TERMINATED: Final = FinishInApp("terminated")


def settle_guest(
    outcome: Outcome,
    options: DeliveryOptions,
    guest: GuestOptions,
    *,
    lost_before: int,
    acknowledged: bool,
    stopping: bool,
) -> tuple[Step, ...]:
    """Return the steps; the parameters are those of `settle`."""
    ack: tuple[Step, ...] = () if acknowledged else _ACK
    failed: tuple[Step, ...] = () if acknowledged else _ACK if guest.acks_on_failure else _REFUSE
    match outcome:
        case Returned() | Ignored() | Retrying():
            return ack
        case Raised():
            return failed
        case Rejected(requeue=requeue):
            return () if acknowledged else (Requeue(),) if requeue else _REFUSE
        case Refused(reason=reason, kind=kind, module=module, arguments=arguments):
            finish = FinishInApp(
                "refused", reason, is_dead_lettered=True, kind=kind, module=module, arguments=arguments
            )
            return (finish, DeadLetter(reason), *ack)
        case Lost() if stopping and not acknowledged:
            return (Requeue(),)
        case Lost(blamed=False) if (guest.reject_on_worker_lost or guest.retry_on_worker_lost) and not acknowledged:
            return (UnlessDone((Republish(lost_before),)), *_ACK)
        case Lost(cause=cause) if guest.reject_on_worker_lost and not guest.retry_on_worker_lost and not acknowledged:
            story = f"its child died {lost_before + 1} times (task_max_deliveries); the last time: {cause}"
            return (UnlessDone(_again(FinishInApp("lost", cause), story, options, lost_before)), *_ACK)
        case Lost(cause=cause):
            return (FinishInApp("lost", cause), *failed)
        case TimedOut(limit=limit) if not guest.acks_on_timeout and not acknowledged:
            finish = FinishInApp("timed out", limit=limit)
            story = f"it ran over its time limit {lost_before + 1} times (task_max_deliveries)"
            return (finish, *_again(None, story, options, lost_before), *_ACK)
        case TimedOut(limit=limit):
            return (FinishInApp("timed out", limit=limit), *ack)
        case Cancelled():
            return (_TERMINATED, *ack)
        case _:
            assert_never(outcome)


def _again(finish: FinishInApp | None, story: str, options: DeliveryOptions, lost_before: int) -> tuple[Step, ...]:
    """Deliver it again, or give it up: then it is recorded, and kept as a dead letter."""
    attempt = lost_before + 1
    if attempt < options.max_deliveries:
        return (Republish(attempt),)
    if finish is None:
        return (DeadLetter(story),)
    kept = FinishInApp(finish.how, finish.cause, finish.limit, is_dead_lettered=True)
    return (kept, DeadLetter(story))
