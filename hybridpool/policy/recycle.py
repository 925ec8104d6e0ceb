"""When a child has served enough: by count of tasks, by memory of its own."""

import attrs

_MIB = 1024 * 1024


@attrs.frozen(kw_only=True)
class RecycleLimits:
    """What a child may reach before it is replaced; None: no limit."""

    tasks: int | None = None
    #: bytes the child owns alone
    memory: int | None = None


def verdict(limits: RecycleLimits, *, tasks: int, owned: int) -> str | None:
    """Return why the child must be retired after the task it just finished, with the figure; None if it stays.

    :param tasks: how many it has run.
    :param owned: bytes it owns alone as it reported last; 0 when it is surely under the limit.
    """
    if limits.tasks is not None and tasks >= limits.tasks:
        return f"max_tasks_per_child: {tasks} tasks"
    if limits.memory is not None and owned > limits.memory:
        return f"max_memory_per_child: {owned / _MIB:.1f} MiB own, limit {limits.memory / _MIB:.1f} MiB"
    return None


def is_last(limits: RecycleLimits, *, tasks: int) -> bool:
    """Tell whether the next task is the child's last by count, so that its replacement can be made ready meanwhile."""
    return limits.tasks is not None and tasks + 1 >= limits.tasks
