"""The name and options of a task, as the parent has them. Only the children have the function."""

from collections.abc import Mapping

import attrs


@attrs.frozen(kw_only=True)
class TaskOptions:
    """Options of one task; None: the worker's setting applies."""

    name: str
    #: acknowledge after the outcome is settled (at least once) or early, just before the task starts
    acks_late: bool | None = None
    ignore_result: bool | None = None
    #: how often it may be delivered when its child dies in it, before it is dead-lettered
    max_deliveries: int | None = None
    #: seconds after which its child is killed, or `SoftTimeLimitExceeded` is raised in it
    time_limit: float | None = None
    soft_time_limit: float | None = None
    #: seconds until a retry without a countdown or eta; `retry_backoff` takes precedence
    retry_delay: float | None = None
    #: seconds before the first retry, doubled with each; None: none
    retry_backoff: float | None = None
    #: the limit of a backoff, in seconds
    retry_backoff_max: float | None = None
    #: spread a backoff between nothing and itself
    retry_jitter: bool | None = None
    #: where calls go; None: task_default_queue
    queue: str | None = None


def tasks_from(plain: Mapping[str, Mapping[str, object]]) -> dict[str, TaskOptions]:
    """Rebuild the tasks of an app from the plain data of `tasks_to_plain`."""
    return {name: TaskOptions(name=name, **options) for name, options in plain.items()}  # type: ignore[arg-type]


def tasks_to_plain(tasks: Mapping[str, TaskOptions]) -> dict[str, dict[str, object]]:
    """Return tasks as plain data; `tasks_from` reads it."""
    return {
        name: attrs.asdict(options, filter=lambda field, value: field.name != "name" and value is not None)
        for name, options in tasks.items()
    }
