"""Tasks that may run longer than the broker waits for their acknowledgement (RabbitMQ's consumer_timeout)."""

from collections.abc import Iterable

from hybridpool._task import TaskOptions


def tasks_over_timeout(
    tasks: Iterable[TaskOptions], *, consumer_timeout: float | None, limit: float | None, acks_late: bool
) -> list[tuple[str, float]]:
    """Return names and time limits of tasks whose messages the broker would take back while they run.

    A task without a limit is not included, as its duration is not known. Nor is a task that is acknowledged before it
    starts.

    :param consumer_timeout: seconds; None: the broker waits for ever.
    :param limit: seconds, of tasks that have none of their own; None: no limit.
    :param acks_late: of tasks without this option.
    """
    if consumer_timeout is None:
        return []
    limits = [
        (task.name, limit if task.time_limit is None else task.time_limit)
        for task in tasks
        if (acks_late if task.acks_late is None else task.acks_late)
    ]
    return [(name, longest) for name, longest in limits if longest is not None and longest >= consumer_timeout]
