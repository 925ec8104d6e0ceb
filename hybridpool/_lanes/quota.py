"""Keeps calls of a task that may run only so many at once in this worker, until others of it have ended."""

from collections import deque

from hybridpool._lanes.base import Job


class TaskQuota:
    """Counts the calls at work of each task that has a limit of its own, and parks those above it."""

    def __init__(self) -> None:
        self._at_work: dict[str, int] = {}
        self._parked: dict[str, deque[Job]] = {}
        #: how many are parked
        self.count = 0

    def take(self, job: Job) -> bool:
        """Count a call that is about to start; False: it is parked instead.

        Call it only for a job with a `concurrency`.
        """
        if self.park_if_full(job):
            return False
        self._at_work[job.task] = self._at_work.get(job.task, 0) + 1
        return True

    def park_if_full(self, job: Job) -> bool:
        """Park a call if as many of its task are at work as may be; those of a higher priority come out first."""
        assert job.concurrency is not None
        if self._at_work.get(job.task, 0) < job.concurrency:
            return False
        insert_by_priority(self._parked.setdefault(job.task, deque()), job)
        self.count += 1
        return True

    def release(self, job: Job) -> Job | None:
        """Note that a call has ended, or was given back; return one that was parked for it."""
        left = self._at_work.get(job.task, 1) - 1
        if left:
            self._at_work[job.task] = left
        else:
            self._at_work.pop(job.task, None)
        return self._unpark(job.task)

    def replace(self, job: Job) -> Job | None:
        """Return a parked call that may start in place of one that was freed, and is taken back before it has."""
        assert job.concurrency is not None
        return self._unpark(job.task) if self._at_work.get(job.task, 0) < job.concurrency else None

    def _unpark(self, task: str) -> Job | None:
        waiting = self._parked.get(task)
        if not waiting:
            return None
        freed = waiting.popleft()
        self.count -= 1
        if not waiting:
            del self._parked[task]
        return freed

    def parked(self) -> list[Job]:
        """Return all that are parked."""
        return [job for waiting in self._parked.values() for job in waiting]

    def remove(self, job: Job) -> bool:
        """Take a parked call out; False: it is not here."""
        waiting = self._parked.get(job.task)
        if waiting is None or job not in waiting:
            return False
        waiting.remove(job)
        self.count -= 1
        if not waiting:
            del self._parked[job.task]
        return True


def insert_by_priority(queue: deque[Job], job: Job) -> None:
    """Put a call behind those of its priority and of higher ones."""
    if job.priority and queue and queue[-1].priority < job.priority:
        queue.insert(next(at for at, one in enumerate(queue) if one.priority < job.priority), job)
    else:
        queue.append(job)
