"""Tables of the benchmark of workers: median [least–most] over the repeats, × the ratio to ours, and the bars below."""

import math
from collections.abc import Sequence

from tests.benchmarks.worker_bars import Found, middle, verdicts
from tests.benchmarks.worker_systems import OURS


def show(measure: str, title: str, found: Found) -> None:
    """Print one measure's table."""
    print(f"\n{measure}: {title}")
    figures = next((list(runs[0]) for runs in found.values() if runs and not isinstance(runs, str)), [])
    cells = {row: [cell(found, row, figure) for figure in figures] for row in found}
    wide = max((len(row) for row in found), default=0) + 1
    widths = [max(len(name), *(len(row[at]) for row in cells.values())) + 2 for at, name in enumerate(figures)]
    print(" " * (wide + 2) + "".join(name.rjust(width) for name, width in zip(figures, widths, strict=True)))
    for row, runs in found.items():
        text = runs if isinstance(runs, str) else "".join(c.rjust(w) for c, w in zip(cells[row], widths, strict=True))
        print(f"  {row:<{wide}}{'  ' if isinstance(runs, str) else ''}{text}")
    for bar, verdict in verdicts(measure, found):
        print(f"  bar  {bar:<70} {verdict}")


def cell(found: Found, row: str, figure: str) -> str:
    """Write a median, its spread, and its ratio to our row of the same kind."""
    runs = found[row]
    values = [run[figure] for run in runs if not isinstance(run, str) and figure in run]
    if not values:
        return "–"
    spread = "" if len(values) == 1 else f" [{short(min(values))}–{short(max(values))}]"
    us = ours_for(row, list(found))
    ours = middle(found, us, figure) if us else math.nan
    ratio = "" if row == us or math.isnan(ours) or not ours else f" ×{middle(found, row, figure) / ours:.2f}"
    return f"{short(middle(found, row, figure))}{spread}{ratio}"


def ours_for(row: str, rows: Sequence[str]) -> str:
    """Find what a row is compared with: ours of the same case if there are cases, else our first."""
    ours = [name for name in rows if name.startswith(OURS)]
    same = [name for name in ours if name.removeprefix(OURS) and row.endswith(name.removeprefix(OURS))]
    return next((name for name in same if "tuned" not in name), ours[0] if ours else "")


def short(value: float) -> str:
    """Write three digits that count."""
    if value >= 10_000:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
