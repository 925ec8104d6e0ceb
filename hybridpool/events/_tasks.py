"""Events about messages and the tasks they ask for."""

import attrs


@attrs.frozen
class TaskReceived:
    name: str
    id: str


@attrs.frozen
class TaskSucceeded:
    name: str
    id: str
    child: str
    #: seconds
    runtime: float
    #: repr of the value, at most 1024 characters
    text: str


@attrs.frozen
class TaskFailed:
    name: str
    id: str
    child: str
    runtime: float
    #: repr of the exception
    text: str
    traceback: str
    #: the task's option `throws` names it
    expected: bool = False


@attrs.frozen
class TaskRetried:
    """An attempt has failed, and another one follows."""

    name: str
    id: str
    child: str
    #: seconds until then
    wait: float
    #: repr of the cause; empty: it gave none
    text: str


@attrs.frozen
class TaskRejected:
    """The task does not want its message kept."""

    name: str
    id: str
    child: str
    reason: str
    #: what becomes of it
    next_step: str


@attrs.frozen
class TaskIgnored:
    """The task wants no result kept."""

    name: str
    id: str
    child: str


@attrs.frozen
class TaskRevoked:
    """Somebody does not want the task run any more."""

    name: str
    id: str
    #: the child it was stopped in; empty: it had not begun
    child: str


@attrs.frozen
class TasksFlagged:
    """An order came not to run tasks."""

    ids: tuple[str, ...]
    #: stop them if they are at work
    terminate: bool


@attrs.frozen
class TaskPostponed:
    """A message came before its time, and waits in the broker."""

    name: str
    id: str
    #: seconds until then
    wait: float


@attrs.frozen
class TaskLost:
    """The child died in this task."""

    name: str
    id: str
    child: str
    cause: str
    #: which delivery of the task this was, from 1
    attempt: int
    #: what happens next, for the log line: "requeued", "dead-lettered", …
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
    """A message that is not run: dead-lettered with the reason."""

    queue: str
    name: str
    id: str
    reason: str
    dead_queue: str


@attrs.frozen
class TaskExpired:
    name: str
    id: str


@attrs.frozen
class TaskRedelivered:
    """The broker delivered a message again that was run here already, or still is; it is not run a second time."""

    name: str
    id: str
    #: False: it is still at work
    is_done: bool


@attrs.frozen
class SettleDelayed:
    """An outcome cannot be settled now, and waits."""

    name: str
    id: str
    reason: str
    waits_for: str = "a connection"


@attrs.frozen
class SettleFailed:
    """The broker refuses a step of settling a task, and something else is done in its place."""

    name: str
    id: str
    reason: str
    #: what is done
    next_step: str


@attrs.frozen
class TooManyHeld:
    """So many messages of a worker wait for the broker to take something that no more are taken in their place."""

    queue: str
    #: how many
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
