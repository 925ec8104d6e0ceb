"""Tables of the figures: median over the repeats, least and most, and the ratio to ours; then the bars."""

import math
import statistics
from collections.abc import Mapping, Sequence

#: figures of one measure by peer, one mapping a repeat; a text in place of them says why there are none
Found = Mapping[str, Sequence[Mapping[str, float]] | str]
Results = Mapping[str, Found]
#: bar's name, measure, our peer and figure, the other's figure and peer, and: at least, or at most, so many times
BARS = (
    ("map ≥ 6 × apply_async", "throughput", "hybridpool map", "2 child/s", "multiprocessing apply_async", 6.0),
    (
        "run ≥ 3 × apply_async",
        "throughput",
        "hybridpool submit, 200 in flight",
        "2 child/s",
        "multiprocessing apply_async",
        3.0,
    ),
    ("round trip ≤ 1.0 × its", "latency", "hybridpool map", "p50 µs", "multiprocessing apply_async", -1.0),
)


def show(measure: str, title: str, found: Found) -> None:
    """Print one measure's table."""
    print(f"\n{measure}: {title}")
    peers = {peer: runs for peer, runs in found.items() if not isinstance(runs, str) and runs}
    if not peers:
        print("  nothing was measured")
        return
    us = next(iter(peers.values()))
    names = list(us[0])
    wide = max(len(peer) for peer in found) + 1
    cells = {peer: [_cell(runs, us, name) for name in names] for peer, runs in peers.items()}
    widths = [max(len(name), *(len(row[at]) for row in cells.values())) + 2 for at, name in enumerate(names)]
    print(" " * (wide + 2) + "".join(name.rjust(width) for name, width in zip(names, widths, strict=True)))
    for peer, runs in found.items():
        if isinstance(runs, str):
            print(f"  {peer:<{wide}}  {runs}")
        else:
            print(f"  {peer:<{wide}}" + "".join(c.rjust(w) for c, w in zip(cells[peer], widths, strict=True)))


def _cell(runs: Sequence[Mapping[str, float]], us: Sequence[Mapping[str, float]], name: str) -> str:
    values = [run[name] for run in runs if name in run]
    if not values or any(math.isnan(value) for value in values):
        return "never"
    middle, ours = statistics.median(values), statistics.median(run[name] for run in us)
    spread = "" if len(values) == 1 else f" [{_short(min(values))}–{_short(max(values))}]"
    ratio = "" if runs is us or not ours or math.isnan(ours) else f" ×{middle / ours:.2f}"
    return f"{_short(middle)}{spread}{ratio}"


def _short(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def show_bars(results: Results) -> None:
    """Print how we stand against the bars; the ratio of the medians of this run."""
    print("\nbars")
    for name, measure, our_peer, figure, peer, limit in BARS:
        ours, other = (_median(results, measure, who, figure) for who in (our_peer, peer))
        if ours is None or other is None:
            print(f"  {name:<26} not measured")
            continue
        ratio = ours / other
        held = ratio >= limit if limit > 0 else ratio <= -limit
        print(f"  {name:<26} {ratio:5.2f} ×   {'reached' if held else 'MISSED'}")


def _median(results: Results, measure: str, peer: str, figure: str) -> float | None:
    runs = results.get(measure, {}).get(peer)
    if not runs or isinstance(runs, str):
        return None
    return statistics.median(run[figure] for run in runs)
