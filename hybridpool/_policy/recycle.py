"""Decides when a child is replaced: by its number of tasks, its own memory, or its age."""

import attrs

_MIB = 1024 * 1024


@attrs.frozen(kw_only=True)
class RecycleLimits:
    """What a child may reach before it is replaced; None: no limit."""

    tasks: int | None = None
    #: bytes the child owns alone
    memory: int | None = None
    #: seconds since the order to fork it
    age: float | None = None
    #: the largest share, from 0 to 1, that a single child's count and age may fall short of these
    jitter: float = 0.0

    @property
    def spares(self) -> int:
        """READY children to keep beyond the pool's size, so that one that leaves is replaced at once."""
        # A child that is too old works until its replacement is ready, and needs no spare.
        return 0 if self.tasks is None and self.memory is None else 1


def limits_for_child(limits: RecycleLimits, *, chance: float) -> RecycleLimits:
    """Return the limits of one child: the common ones, less a share that differs from child to child.

    Otherwise children that were forked together and do the same work would be replaced all at one moment. A count is
    never lowered by less than one whole task, so small ones stay as they are.

    :param chance: a random number from 0 to 1, 1 excluded.
    :raises ValueError: if it, or the jitter, is out of its range.
    """
    if not 0 <= limits.jitter <= 1 or not 0 <= chance < 1:
        raise ValueError(f"no such share: {limits.jitter=} {chance=}")
    tasks, age = limits.tasks, limits.age
    if tasks is not None:
        tasks = max(1, tasks - int((int(tasks * limits.jitter) + 1) * chance))
    if age is not None:
        age -= age * limits.jitter * chance
    return RecycleLimits(tasks=tasks, memory=limits.memory, age=age)


def retire_reason(limits: RecycleLimits, *, tasks: int, owned: int) -> str | None:
    """Return why the child must be retired after the task it just finished, with the figure; None if it stays.

    :param tasks: how many it has run.
    :param owned: bytes it owned alone in its last report; 0: under the limit.
    """
    if limits.tasks is not None and tasks >= limits.tasks:
        return f"max_tasks_per_child: {tasks} tasks"
    if limits.memory is not None and owned > limits.memory:
        return f"max_memory_per_child: {owned / _MIB:.1f} MiB own, limit {limits.memory / _MIB:.1f} MiB"
    return None


def age_reason(limits: RecycleLimits, *, age: float) -> str | None:
    """Return why the child must be replaced although it may be idle; None if it stays.

    :param age: seconds since the order to fork it.
    """
    if limits.age is not None and age >= limits.age:
        return f"max_age_per_child: {age:.0f} s"
    return None


def is_last(limits: RecycleLimits, *, tasks: int) -> bool:
    """Tell whether the next task is the child's last by count, so that its replacement can be made ready meanwhile."""
    return limits.tasks is not None and tasks + 1 >= limits.tasks
