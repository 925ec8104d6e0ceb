"""Events about messages and tasks."""

import datetime as dt

import attrs
import msgspec


class TaskRef(msgspec.Struct, frozen=True, gc=False):
    """The task that an event is about: what the head of its message says.

    One is made for each message and shared by its events. It is a struct because a frozen attrs class of ten fields
    costs five times as much to make. Except `queue` and `timestamp`, all is as the sender wrote it.
    """

    name: str
    id: str
    #: repr of its positional and of its keyword arguments, cut by the sender; empty: the sender told none
    args: str = ""
    kwargs: str = ""
    #: ids of the first task of its tree and of the task that sent it; None: the sender told none
    root_id: str | None = None
    parent_id: str | None = None
    #: attempts before this one that asked for another
    retries: int = 0
    #: not to be run before; UTC
    eta: dt.datetime | None = None
    #: the queue that it came from
    queue: str = ""
    #: seconds since the epoch at which the worker received the message
    timestamp: float = 0.0
    #: not to be run after; UTC
    expires: dt.datetime | None = None


@attrs.frozen
class TaskReceived:
    """A message was taken from a queue, and its task will be run."""

    task: TaskRef
    #: it came before its time once, and was received then too (`TaskPostponed`)
    was_postponed: bool = False


@attrs.frozen
class TaskSucceeded:
    """A task returned."""

    task: TaskRef
    child: str
    #: seconds
    runtime: float
    #: repr of the value, at most 1024 characters
    text: str


@attrs.frozen
class TaskFailed:
    """A task raised, and is not run again."""

    task: TaskRef
    child: str
    #: seconds
    runtime: float
    #: repr of the exception
    text: str
    traceback: str
    #: True: the task's option `throws` names the exception
    expected: bool = False
    #: its message is rejected for it, in place of being acknowledged
    is_rejected: bool = False


@attrs.frozen
class TaskRetried:
    """An attempt failed, and the task is run again."""

    task: TaskRef
    child: str
    #: seconds until then
    wait: float
    #: repr of the cause; empty: none was given
    text: str
    traceback: str = ""


@attrs.frozen
class TaskRejected:
    """The task raised `Reject`."""

    task: TaskRef
    child: str
    reason: str
    #: what happens to its message, for the log line
    next_step: str
    #: it is to be delivered again
    requeue: bool = False
    #: its message was acknowledged before that
    was_acknowledged: bool = False


@attrs.frozen
class TaskIgnored:
    """The task raised `Ignore`: no result is stored."""

    task: TaskRef
    child: str


@attrs.frozen
class TaskRevoked:
    """The task was revoked: it is not run, or was stopped."""

    task: TaskRef
    #: the child in which it was stopped; empty: it had not begun
    child: str


@attrs.frozen
class TasksFlagged:
    """A remote control order revoked tasks."""

    ids: tuple[str, ...]
    #: those that run are stopped
    terminate: bool
    #: the signal that the order names for that; the task gets an exception in its place, unless it is SIGKILL
    signum: int | None = None


@attrs.frozen
class TaskPostponed:
    """A message came before its time, or its task's rate limit does not let it start; the broker holds it a while."""

    task: TaskRef
    #: seconds until then
    wait: float
    #: because of the rate limit
    is_limited: bool = False
    #: this is not the first time
    was_postponed: bool = False


@attrs.frozen
class TaskLost:
    """A child died while it ran the task."""

    task: TaskRef
    child: str
    cause: str
    #: which delivery of the task this was, from 1
    attempt: int
    #: what happens to the message: "requeued", "dead-lettered", …
    next_step: str
    #: its message is delivered again
    comes_again: bool = False


@attrs.frozen
class TaskTimedOut:
    """The task ran over its hard time limit."""

    task: TaskRef
    child: str
    #: seconds
    limit: float
    #: its child was killed for it; False: it was told to stop, as others ran in the same child
    is_killed: bool = True
    #: its message is delivered again
    comes_again: bool = False


@attrs.frozen
class TaskRefused:
    """A message was not run, but dead-lettered with the reason."""

    task: TaskRef
    reason: str
    dead_queue: str
    #: name of the exception that its client gets
    kind: str = ""


@attrs.frozen
class TaskExpired:
    """A message was not run, because its `expires` had passed."""

    task: TaskRef


@attrs.frozen
class TaskRedelivered:
    """The broker delivered a message again whose task this worker has run, or still runs; it is not run again."""

    task: TaskRef
    #: False: it still runs
    is_done: bool


@attrs.frozen
class SettleDelayed:
    """The outcome of a task cannot be settled now; the worker tries again."""

    task: TaskRef
    reason: str
    waits_for: str = "a connection"


@attrs.frozen
class SettleFailed:
    """The broker refuses a step of settling a task; another step is taken in its place."""

    task: TaskRef
    reason: str
    #: what is done in its place, for the log line
    next_step: str


@attrs.frozen
class TooManyHeld:
    """Too many messages wait here for the broker to take what follows from them: no more are taken in their place."""

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
