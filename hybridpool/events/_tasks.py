"""Events about messages and tasks."""

import attrs


@attrs.frozen
class TaskReceived:
    """A message was taken from a queue, and its task will be run."""

    name: str
    id: str


@attrs.frozen
class TaskSucceeded:
    """A task returned."""

    name: str
    id: str
    child: str
    #: seconds
    runtime: float
    #: repr of the value, at most 1024 characters
    text: str


@attrs.frozen
class TaskFailed:
    """A task raised, and is not run again."""

    name: str
    id: str
    child: str
    #: seconds
    runtime: float
    #: repr of the exception
    text: str
    traceback: str
    #: True: the task's option `throws` names the exception
    expected: bool = False


@attrs.frozen
class TaskRetried:
    """An attempt failed, and the task is run again."""

    name: str
    id: str
    child: str
    #: seconds until then
    wait: float
    #: repr of the cause; empty: none was given
    text: str


@attrs.frozen
class TaskRejected:
    """The task raised `Reject`."""

    name: str
    id: str
    child: str
    reason: str
    #: what happens to the message
    next_step: str


@attrs.frozen
class TaskIgnored:
    """The task raised `Ignore`: no result is kept."""

    name: str
    id: str
    child: str


@attrs.frozen
class TaskRevoked:
    """A revoked task is not run, or was stopped."""

    name: str
    id: str
    #: the child that it was stopped in; empty: it had not begun
    child: str


@attrs.frozen
class TasksFlagged:
    """A client revoked tasks."""

    ids: tuple[str, ...]
    #: True: stop those that run
    terminate: bool


@attrs.frozen
class TaskPostponed:
    """A message came before its `eta`, and waits in the broker."""

    name: str
    id: str
    #: seconds until its `eta`
    wait: float


@attrs.frozen
class TaskLost:
    """A child died while it ran the task."""

    name: str
    id: str
    child: str
    cause: str
    #: which delivery of the task this was, from 1
    attempt: int
    #: what happens to the message: "requeued", "dead-lettered", …
    next_step: str


@attrs.frozen
class TaskTimedOut:
    """The task ran over its hard time limit; its child was killed."""

    name: str
    id: str
    child: str
    #: seconds
    limit: float


@attrs.frozen
class TaskRefused:
    """A message was not run, but dead-lettered with the reason."""

    queue: str
    name: str
    id: str
    reason: str
    dead_queue: str


@attrs.frozen
class TaskExpired:
    """A message was not run, because its `expires` had passed."""

    name: str
    id: str


@attrs.frozen
class TaskRedelivered:
    """The broker delivered a message again whose task this worker has run, or still runs; it is not run again."""

    name: str
    id: str
    #: False: the task still runs
    is_done: bool


@attrs.frozen
class SettleDelayed:
    """An outcome cannot be settled now, and is settled later."""

    name: str
    id: str
    reason: str
    waits_for: str = "a connection"


@attrs.frozen
class SettleFailed:
    """The broker refused a step of settling a task, and another step replaces it."""

    name: str
    id: str
    reason: str
    #: the step that replaces it
    next_step: str


@attrs.frozen
class TooManyHeld:
    """So many messages wait to be settled that the worker takes no more from a queue."""

    queue: str
    #: number of messages
    held: int


TaskEvent = (
    TaskReceived
    | TaskSucceeded
    | TaskFailed
    | TaskRetried
    | TaskRejected
    | TaskIgnored
    | TaskRevoked
    | TasksFlagged
    | TaskPostponed
    | TaskLost
    | TaskTimedOut
    | TaskRefused
    | TaskExpired
    | TaskRedelivered
    | SettleDelayed
    | SettleFailed
    | TooManyHeld
)
