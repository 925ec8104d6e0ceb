"""Events about children, the zygote and the pool."""

from typing import Final

import attrs

from hybridpool.events._tasks import TaskRef


@attrs.frozen
class ChildSpawned:
    """A child was forked."""

    child: str
    pid: int


@attrs.frozen
class ChildReady:
    """A child can take calls."""

    child: str
    pid: int


@attrs.frozen
class ChildRetired:
    """A child exits on purpose after its current task."""

    child: str
    pid: int
    #: with the figure: "max_tasks_per_child: 10 tasks", "max_memory_per_child: 212 MiB of 200 MiB", "scaled down"
    reason: str


@attrs.frozen
class ChildGone:
    """A child has exited."""

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
class LoopBlocked:
    """A coroutine does not let the event loop of its child go on: all other calls there wait for it."""

    child: str
    task: TaskRef
    #: seconds since the loop has turned
    seconds: float
    #: calls that wait behind it
    behind: int
    #: where its code is
    stack: str


@attrs.frozen
class TaskOnlyWaits:
    """A function only waits, and holds a child meanwhile that other calls wait for: a thread would do."""

    task: TaskRef
    #: percent of its runtime in which it did not use the CPU
    waited: int
    #: seconds that its last call ran
    runtime: float


@attrs.frozen
class CallsRestarted:
    """A child that ran several calls at once died, and those that were not to blame start again."""

    child: str
    pid: int
    #: how many
    calls: int
    #: how it died
    cause: str


@attrs.frozen
class ChildStartFailed:
    """A child died or hung before it was ready."""

    child: str
    cause: str
    #: seconds until the next attempt
    retry_in: float


@attrs.frozen
class ZygoteLost:
    """The zygote died; another one is started."""

    cause: str


@attrs.frozen
class DrainTimedOut:
    """A warm or soft stop did not end in time; tasks that still run are killed, and their messages go back to their
    queues.
    """

    #: seconds
    timeout: float
    #: number of running tasks
    running: int


@attrs.frozen
class PoolScaled:
    """The autoscaler changed the pool's size."""

    #: number of children
    before: int
    #: number of children
    after: int


@attrs.frozen
class PoolHeld:
    """The autoscaler wants more children, but memory is short."""

    #: number of children
    size: int
    #: number of children that the load asks for
    wanted: int
    reason: str


@attrs.frozen
class ChildStacks:
    """A child has reported where its code is, as SIGUSR1 to the parent asks for; or it did not answer."""

    child: str
    pid: int
    #: stacks of its threads and asyncio tasks, of many lines; or why there are none
    text: str


@attrs.frozen
class ChildLogged:
    """Code in a child logged or printed something."""

    child: str
    #: whole lines, formatted
    text: str


ChildEvent = (
    ChildSpawned
    | ChildReady
    | ChildRetired
    | ChildGone
    | ChildUnresponsive
    | LoopBlocked
    | TaskOnlyWaits
    | CallsRestarted
    | ChildStartFailed
    | ZygoteLost
    | DrainTimedOut
    | PoolScaled
    | PoolHeld
    | ChildStacks
    | ChildLogged
)
