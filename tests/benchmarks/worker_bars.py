"""What we want to reach: against others in the same run, against ourselves, or in plain figures; and whether we do."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

import attrs

#: figures of one measure by row, one mapping a repeat; a text in place of them says why there are none
Found = Mapping[str, Sequence[Mapping[str, float]] | str]


@attrs.frozen
class Bar:
    """A limit for our figure: the other row's figure times so much, or, without another row, that much."""

    measure: str
    row: str
    figure: str
    #: at least if positive, at most if negative
    limit: float
    other: str = ""

    def __str__(self) -> str:
        sign = "≥" if self.limit > 0 else "≤"
        against = f"{abs(self.limit):g} × {self.other}" if self.other else f"{abs(self.limit):g}"
        return f"{self.row}: {self.figure} {sign} {against}"


BARS: Sequence[Bar] = (
    Bar("drain", "hybridpool", "tasks/s", 4.5, "celery"),
    Bar("drain", "hybridpool, tuned", "tasks/s", 5.0, "celery"),
    Bar("drain", "hybridpool, tuned", "tasks/s", 1.2, "dramatiq, tuned"),
    Bar("drain", "hybridpool, tuned", "parent µs", -60.0),
    Bar("latency", "hybridpool", "p50 ms", -0.9),
    Bar("latency", "hybridpool", "p99 ms", -2.0),
    Bar("cpu", "hybridpool, tuned", "share of ideal", 0.85),
    Bar("recycle", "hybridpool -c 1, every 3", "tasks/s", 120.0),
    Bar("recycle", "hybridpool -c 1, every 3", "longest gap ms", -2.0, "hybridpool -c 1"),
    Bar("recycle", "hybridpool -c 1, every 10", "tasks/s", 100.0),
    Bar("recycle", "hybridpool -c 2, every 100", "tasks/s", 0.9, "hybridpool -c 2"),
    Bar("recycle", "hybridpool -c 2, every 10", "tasks/s", 0.5, "hybridpool -c 2"),
    Bar("memory", "hybridpool, bare", "at rest", -1.0, "celery, bare"),
    Bar("memory", "hybridpool, fat", "at rest", -0.8, "celery, fat"),
    Bar("memory", "hybridpool, fat, 4 children", "after tasks", -0.6, "celery, fat, 4 children"),
    Bar("startstop", "hybridpool", "first task s", -0.5),
    Bar("startstop", "hybridpool", "gone s", -0.2),
    Bar("ping", "hybridpool", "Celery's: p50", -3.0),
    Bar("ping", "hybridpool", "Celery's: p99", -8.0),
    Bar("ping", "hybridpool", "ready: p50", -3.0),
    Bar("ping", "hybridpool", "ready: p99", -8.0),
    Bar("second", "hybridpool, async", "processes", -3.0),
    Bar("second", "hybridpool, async", "PSS MiB", -0.5, "celery -c 5"),
    Bar("second", "hybridpool, async", "p99 ms", -15.0),
    Bar("second", "hybridpool, async", "p99 ms", -1.0, "celery -c 5"),
    Bar("hundred", "hybridpool, async", "processes", -3.0),
    Bar("hundred", "hybridpool, async", "PSS MiB", -1.0, "taskiq"),
    Bar("hundred", "hybridpool, async", "PSS MiB", -0.1, "celery -c 50, 10/s"),
    Bar("hundred", "hybridpool, async", "p50 ms", -4.0),
    Bar("hundred", "hybridpool, async", "p99 ms", -15.0),
    *(
        Bar("hundred", "hybridpool, async", figure, -1.0, peer)
        for peer in ("taskiq", "faststream", "dramatiq, threads", "celery, threads")
        for figure in ("p50 ms", "p99 ms")
    ),
    Bar("hundred", "hybridpool, async, recycled", "p99 ms", -1.5, "hybridpool, async"),
    Bar("hundred", "hybridpool, async, recycled", "run again", -0.0),
    Bar("hundred", "hybridpool, threads", "PSS MiB", -1.0, "celery, threads"),
    Bar("hundred", "hybridpool, threads", "p99 ms", -50.0),
    Bar("waiting", "hybridpool, async", "all started s", -1.0),
    Bar("waiting", "hybridpool, async", "PSS MiB", -130.0),
    Bar("waiting", "hybridpool, async", "parent KiB/call", -3.5),
    Bar("waiting", "hybridpool, async", "others KiB/call", -4.5),
    Bar("waiting", "hybridpool, async", "CPU %", -1.0),
    Bar("noops", "hybridpool, async, tuned", "tasks/s", 2.0, "taskiq, tuned"),
    Bar("noops", "hybridpool, async, tuned", "tasks/s", 1.5, "faststream, tuned"),
    Bar("noops", "hybridpool, async, tuned", "worker µs", -0.4, "taskiq, tuned"),
    Bar("noops", "hybridpool, async, tuned", "worker µs", -0.4, "faststream, tuned"),
    Bar("noops", "hybridpool, async, tuned", "tasks/s", 0.7, "hybridpool, prefork, tuned"),
    Bar("limits", "hybridpool, soft limit", "p99 ms", -10.0),
    Bar("limits", "hybridpool, hard limit", "p99 ms", -10.0),
    Bar("limits", "hybridpool, loop held", "p99 ms", -100.0),
    Bar("no-ops", "hybridpool", "tasks/s", 2.0, "celery"),
    Bar("recycling", "hybridpool, every 10", "tasks/s", 20.0, "celery, every 10"),
    Bar("fat", "hybridpool", "after tasks", -0.7, "celery"),
    Bar("death", "hybridpool, async", "next start s", -0.2),
    Bar("death", "hybridpool, async", "starts at most", -2.0),
    # what the async lane may hold at first, and a few tasks for each of two children
    Bar("mixed", "hybridpool, one queue", "held at first", -(16.0 + 2 * 4)),
    Bar("mixed", "hybridpool, one queue", "warnings", -1.0),
    Bar("mixed", "hybridpool, two queues", "p99 ms", -15.0),
)


def verdicts(measure: str, found: Found) -> Iterator[tuple[str, str]]:
    """Yield each bar of a measure, and how we stand to it."""
    for bar in (bar for bar in BARS if bar.measure == measure):
        ours, other = middle(found, bar.row, bar.figure), 1.0
        if bar.other:
            other = middle(found, bar.other, bar.figure)
        value = ours / other if other else math.nan
        if math.isnan(value):
            yield str(bar), "not measured"
            continue
        reached = value >= bar.limit if bar.limit > 0 else value <= -bar.limit
        yield str(bar), f"{value:.3g}{' ×' if bar.other else ''}  {'reached' if reached else 'MISSED'}"


def middle(found: Found, row: str, figure: str) -> float:
    """Return a figure's median over the repeats; not a number if there is none."""
    runs = found.get(row, ())
    values = [] if isinstance(runs, str) else [run[figure] for run in runs if figure in run]
    return statistics.median(values) if values else math.nan
