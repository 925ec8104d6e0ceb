"""Finds functions that only wait while they hold a child which other calls wait for; they belong on a thread."""

from typing import Final

#: seconds; shorter calls are not measured
MIN_RUNTIME_S: Final = 0.1
#: percent of its runtime that a call which waits may use the CPU
MAX_CPU_PERCENT: Final = 5
#: calls in a row that must have waited
MIN_CALLS: Final = 20
#: seconds between two pieces of advice about one task
REPEAT_AFTER_S: Final = 24 * 3600.0
#: tasks that are remembered
MAX_TASKS: Final = 1000


class WaitingAdvice:
    """Counts the calls of each task that waited, one after the other."""

    def __init__(self) -> None:
        self._waited: dict[str, int] = {}
        self._said_at: dict[str, float] = {}

    def note(self, task: str, *, cpu_percent: int, runtime: float, are_others_waiting: bool, now: float) -> bool:
        """Record a call; True: advice is due.

        :param cpu_percent: of its runtime.
        :param runtime: seconds.
        :param are_others_waiting: calls waited for a child when it ended.
        :param now: seconds of a monotonic clock.
        """
        if runtime < MIN_RUNTIME_S:
            return False
        if cpu_percent > MAX_CPU_PERCENT:
            self._waited.pop(task, None)
            return False
        if not are_others_waiting or (task not in self._waited and len(self._waited) >= MAX_TASKS):
            return False
        waited = self._waited[task] = self._waited.get(task, 0) + 1
        if waited < MIN_CALLS:
            return False
        said_at = self._said_at.get(task)
        if said_at is not None and now - said_at < REPEAT_AFTER_S:
            return False
        self._said_at[task] = now
        return True
