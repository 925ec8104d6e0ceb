"""The name and options of a task, as the parent has them. Only the children have the function."""

from collections.abc import Mapping
from typing import Literal

import attrs

#: where a task runs: in a child of its own, on the event loop of a child that runs many, or on a thread of such a child
LaneName = Literal["process", "async", "thread"]


@attrs.frozen(kw_only=True)
class TaskOptions:
    """The options that a task was declared with (`Task.declared`); None: as the worker's settings say."""

    __module__ = "hybridpool"

    #: name of the task
    name: str
    #: acknowledge after the outcome is settled (at least once) or early, just before the task starts
    acks_late: bool | None = None
    #: keep no result
    ignore_result: bool | None = None
    #: deliveries of a message whose child dies in the task, before it is dead-lettered
    max_deliveries: int | None = None
    #: seconds after which its child is killed
    time_limit: float | None = None
    #: seconds after which `SoftTimeLimitExceeded` is raised in it
    soft_time_limit: float | None = None
    #: seconds until a retry that names no time of its own; a backoff takes precedence
    retry_delay: float | None = None
    #: seconds before the first retry, doubled with each further one; None: no backoff
    retry_backoff: float | None = None
    #: upper limit of a backoff, in seconds
    retry_backoff_max: float | None = None
    #: choose each delay at random between 0 and the backoff
    retry_jitter: bool | None = None
    #: queue that calls go to; None: as `task_default_queue` says
    queue: str | None = None
    #: where it runs; None: as `task_default_lane` says. That of an `async def` function is always known
    lane: LaneName | None = None
    #: calls of it that one worker runs at once; None: no limit of its own
    concurrency: int | None = None
    #: how often its calls may start in one worker: "10/s", "10/m", "10/h"
    rate_limit: str | None = None


def lane_of(options: TaskOptions, default: LaneName) -> LaneName:
    """Return the lane in which a task runs.

    :param default: the lane of tasks that name none, as the settings say.
    """
    return options.lane or default


def tasks_from(plain: Mapping[str, Mapping[str, object]]) -> dict[str, TaskOptions]:
    """Rebuild the tasks of an app from the plain data of `tasks_to_plain`."""
    return {name: TaskOptions(name=name, **options) for name, options in plain.items()}  # type: ignore[arg-type]


def tasks_to_plain(tasks: Mapping[str, TaskOptions]) -> dict[str, dict[str, object]]:
    """Return tasks as plain data; `tasks_from` reads it."""
    return {
        name: attrs.asdict(options, filter=lambda field, value: field.name != "name" and value is not None)
        for name, options in tasks.items()
    }
