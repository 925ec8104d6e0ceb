"""A picture of the figures: bars of the medians with the spread over the repeats, as an SVG file."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from tests.benchmarks.worker_bars import Found, middle
from tests.benchmarks.worker_systems import OURS
from tests.benchmarks.worker_table import short

#: what is drawn: title, measure, figure
PANELS: Sequence[tuple[str, str, str]] = (
    ("No-op tasks per second, 2 children (more is better)", "drain", "tasks/s"),
    ("Milliseconds from publishing to start, median, 200 messages a second (less is better)", "latency", "p50 ms"),
    ("Share of the ideal with tasks of 1 ms CPU time (more is better)", "cpu", "share of ideal"),
    ("Tasks per second while children are replaced (more is better)", "recycle", "tasks/s"),
    ("MiB of the whole tree at rest (less is better)", "memory", "at rest"),
    ("Calls published per second (more is better)", "publish", "calls/s"),
)
#: in units of the picture
WIDTH, LABEL, BAR, STEP, HEAD, MARGIN = 880, 250, 14, 21, 30, 16
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}.note{font-size:11px}"
    ".ours{fill:#2f6f4f}.other{fill:#9aa7b4}.raw{fill:#d7dde3}.spread{stroke:#24292f;stroke-width:1.2}"
    "@media(prefers-color-scheme:dark){text{fill:#d8dee4}.spread{stroke:#d8dee4}.raw{fill:#4a545e}}"
)


def picture(results: Mapping[str, Found], notes: Sequence[str]) -> str:
    """Draw all panels for which there are figures.

    :param notes: lines that stand below: what was measured, on what.
    """
    parts: list[str] = []
    height = MARGIN
    for title, measure, figure in PANELS:
        rows = {row: value for row in results.get(measure, ()) if (value := middle(results[measure], row, figure)) > 0}
        if rows:
            parts += panel(title, rows, results[measure], figure, height)
            height += HEAD + STEP * len(rows) + MARGIN
    for note in notes:
        parts.append(f'<text class="note" x="{MARGIN}" y="{height + 8}">{escape(note)}</text>')
        height += STEP
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><style>{_STYLE}</style>'
    return "\n".join([head, *parts, "</svg>", ""])


def panel(title: str, rows: Mapping[str, float], found: Found, figure: str, top: int) -> Iterator[str]:
    """Draw one group of bars."""
    spreads = {row: _spread(found, row, figure) for row in rows}
    most = max(high for _, high in spreads.values())
    room = WIDTH - LABEL - 90

    def x(value: float) -> float:
        return round(LABEL + room * value / most, 1)

    yield f'<text class="title" x="{MARGIN}" y="{top + 14}">{escape(title)}</text>'
    for at, (row, value) in enumerate(rows.items()):
        y = top + HEAD + STEP * at
        middle_of_bar, (low, high) = y + BAR / 2, spreads[row]
        yield f'<text x="{LABEL - 8}" y="{y + 11}" text-anchor="end">{escape(row)}</text>'
        yield f'<rect class="{_kind(row)}" x="{LABEL}" y="{y}" width="{x(value) - LABEL:.1f}" height="{BAR}"/>'
        if high > low:
            yield f'<path class="spread" d="M{x(low)} {middle_of_bar}H{x(high)}"/>'
        yield f'<text x="{max(x(value), x(high)) + 6:.1f}" y="{y + 11}">{short(value)}</text>'


def _spread(found: Found, row: str, figure: str) -> tuple[float, float]:
    values = [run[figure] for run in found[row] if not isinstance(run, str) and figure in run]
    return min(values), max(values)


def _kind(row: str) -> str:
    if row.startswith(OURS):
        return "ours"
    return "raw" if row.startswith("raw") else "other"
