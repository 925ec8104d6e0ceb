"""The demo's counts, its expectations and its summary."""

import statistics
from collections import Counter

import attrs

from hybridpool import events


@attrs.define
class Tally:
    """Counts events and results."""

    #: how many tasks are to be sent
    total: int
    #: seconds from before the send to the result, of each task
    waits: list[float] = attrs.field(factory=list)
    succeeded: int = 0
    #: errors that came as results, by type
    failed: Counter[str] = attrs.field(factory=Counter)
    redelivered: int = 0
    spawned: int = 0
    recycled: int = 0
    killed: int = 0
    #: sizes of the pool before and after each change
    scaled: list[tuple[int, int]] = attrs.field(factory=list)
    #: finished tasks by child
    by_child: Counter[str] = attrs.field(factory=Counter)
    #: largest delay of the event loop, in seconds
    lag: float = 0.0
    #: processes that were still there after the worker's end
    left: int = 0

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.TaskSucceeded(child=child) | events.TaskFailed(child=child):
                self.by_child[child] += 1
            case events.TaskLost():
                self.redelivered += 1
            case events.ChildSpawned():
                self.spawned += 1
            case events.ChildRetired(reason=reason) if reason.startswith("max_tasks_per_child"):
                self.recycled += 1
            case events.ChildGone(expected=False):
                self.killed += 1
            case events.PoolScaled(before, after):
                self.scaled.append((before, after))
            case _:
                pass

    def answered(self, wait: float, error: Exception | None) -> None:
        """Note the result of a task."""
        self.waits.append(wait)
        if error is None:
            self.succeeded += 1
        else:
            self.failed[type(error).__name__] += 1

    def surprises(self) -> list[str]:
        """Return what did not go as expected, one text each."""
        ups = sum(after > before for before, after in self.scaled)
        downs = sum(after < before for before, after in self.scaled)
        expected = {
            f"{self.succeeded} of {self.total - 1} tasks succeeded": self.succeeded == self.total - 1,
            f"failures should be one ValueError, and are {dict(self.failed)}": self.failed == {"ValueError": 1},
            f"{self.killed} children died, not one": self.killed == 1,
            f"{self.redelivered} tasks were delivered again, not one": self.redelivered == 1,
            "no child was recycled": self.recycled > 0,
            "the pool did not grow": ups > 0,
            "the pool did not shrink": downs > 0,
            f"{self.left} processes were left behind": self.left == 0,
        }
        return [text for text, is_so in expected.items() if not is_so]

    def summary(self, duration: float) -> list[tuple[str, str]]:
        """Return the lines of the summary: topic and text."""
        median, late = percentiles(self.waits)
        numbered = {int(name.rpartition("-")[2]): count for name, count in self.by_child.items()}
        ran = (f"{number}: {count}" for number, count in sorted(numbered.items()))
        failed = ", ".join(f"{count} failed ({kind})" for kind, count in self.failed.items()) or "none failed"
        return [
            ("tasks", f"{self.total} sent, {self.succeeded} succeeded, {failed}, {self.redelivered} redelivered"),
            ("children", f"{self.spawned} forked, {self.recycled} recycled, {self.killed} killed"),
            ("tasks per child", ", ".join(ran)),
            ("pool size", "; ".join(f"{before} → {after}" for before, after in self.scaled) or "unchanged"),
            ("send to result", f"p50 {median * 1000:.1f} ms, p99 {late * 1000:.1f} ms, waiting in the queue included"),
            ("loop lag", f"{self.lag * 1000:.1f} ms at the worst"),
            ("left behind", "no process" if self.left == 0 else f"{self.left} processes"),
            ("duration", f"{duration:.1f} s"),
        ]


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return the 50th and the 99th; zeros if there are too few values."""
    if len(values) < 2:
        return 0.0, 0.0
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]
