"""Facts: frozen values that say what happened, and the Bus on which the faces hear them.

The pipeline emits facts and does not know who listens; the log, the demo's display and later the metrics and Celery
events are listeners. A listener is a plain function, called at once, in the order of subscription; one that raises is
logged and kept.
"""

import logging
from collections.abc import Callable

import attrs

log = logging.getLogger(__name__)


@attrs.frozen
class BrokerConnected:
    #: masked: never with a password
    url: str


@attrs.frozen
class BrokerLost:
    """No connection: it broke, or an attempt to make one failed."""

    url: str
    reason: str
    #: seconds until the next attempt
    retry_in: float
    #: masked: the one that is tried next, at once, if it is another
    next_url: str = ""


@attrs.frozen
class QueueDiffers:
    """A queue exists with other arguments than ours and is used as it is."""

    queue: str
    reason: str


@attrs.frozen
class ConsumingStarted:
    queue: str
    prefetch: int


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
class SettleFailed:
    """An outcome could not be settled, mostly because the connection is gone; the broker will deliver it again."""

    name: str
    id: str
    reason: str


@attrs.frozen
class ChildSpawned:
    child: str
    pid: int


@attrs.frozen
class ChildReady:
    child: str
    pid: int


@attrs.frozen
class ChildRetired:
    """A child leaves on purpose after its current task."""

    child: str
    pid: int
    #: with its figure: "max_tasks_per_child: 10 tasks", "max_memory_per_child: 212 MiB of 200 MiB", "scaled down"
    reason: str


@attrs.frozen
class ChildGone:
    child: str
    pid: int
    #: "exit code 0", "signal 9 (SIGKILL)"
    cause: str
    #: it was told to go
    expected: bool


@attrs.frozen
class BirthFailed:
    child: str
    cause: str
    #: seconds until the next attempt
    retry_in: float


@attrs.frozen
class ZygoteLost:
    cause: str


@attrs.frozen
class DrainTimedOut:
    """A warm stop did not end in time; what still runs is killed and goes back to its queue."""

    #: seconds
    timeout: float
    running: int


@attrs.frozen
class PoolScaled:
    """The autoscaler changed the pool's size."""

    before: int
    after: int


@attrs.frozen
class PoolHeld:
    """The autoscaler would have more children, but memory is short."""

    size: int
    wanted: int
    reason: str


@attrs.frozen
class ChildSaid:
    """Whole lines, already formatted, that user code in a child logged or printed."""

    child: str
    text: str


@attrs.frozen
class PublishingBlocked:
    """The broker is short of something and reads nothing of what we publish: until resumed, or `BrokerLost`."""

    #: masked
    url: str
    #: "low on memory", "low on disk"
    reason: str


@attrs.frozen
class PublishingResumed:
    #: masked
    url: str


Fact = (
    BrokerConnected
    | BrokerLost
    | QueueDiffers
    | ConsumingStarted
    | TaskReceived
    | TaskSucceeded
    | TaskFailed
    | TaskRetried
    | TaskRejected
    | TaskIgnored
    | TaskPostponed
    | TaskLost
    | TaskTimedOut
    | TaskRefused
    | TaskExpired
    | SettleFailed
    | ChildSpawned
    | ChildReady
    | ChildRetired
    | ChildGone
    | BirthFailed
    | ZygoteLost
    | DrainTimedOut
    | PoolScaled
    | PoolHeld
    | ChildSaid
    | PublishingBlocked
    | PublishingResumed
)
Listener = Callable[[Fact], None]


class Bus:
    """Hands each fact to each listener."""

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()

    def subscribe(self, listener: Listener) -> None:
        """Add a listener; it hears every fact from now on."""
        self._listeners = (*self._listeners, listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Remove a listener; one that is not there is ignored."""
        self._listeners = tuple(known for known in self._listeners if known != listener)

    def emit(self, fact: Fact) -> None:
        """Tell everyone, now."""
        for listener in self._listeners:
            try:
                listener(fact)
            except Exception:
                log.exception("a listener failed on %r; it stays subscribed", fact)
