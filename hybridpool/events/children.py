"""Events about children, the zygote and the pool."""

from typing import Final

import attrs


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
    """A child exits on purpose after its current task."""

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
    #: it was told to exit
    expected: bool


#: the cause of children that still ran when their pool ended
POOL_ENDED: Final = "the pool ended"


@attrs.frozen
class ChildUnresponsive:
    """A child that has nothing else to do does not take its call; another child gets it."""

    child: str
    pid: int


@attrs.frozen
class ChildStartFailed:
    child: str
    cause: str
    #: seconds until the next attempt
    retry_in: float


@attrs.frozen
class ZygoteLost:
    cause: str


@attrs.frozen
class DrainTimedOut:
    """A warm stop did not end in time; tasks that still run are killed, and their messages go back to their queues."""

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
    """The autoscaler wants more children, but memory is short."""

    size: int
    wanted: int
    reason: str


@attrs.frozen
class ChildLogged:
    """Whole lines, already formatted, that user code in a child logged or printed."""

    child: str
    text: str


ChildEvent = (
    ChildSpawned
    | ChildReady
    | ChildRetired
    | ChildGone
    | ChildUnresponsive
    | ChildStartFailed
    | ZygoteLost
    | DrainTimedOut
    | PoolScaled
    | PoolHeld
    | ChildLogged
)
