"""What somebody who mistyped a name probably meant."""

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that `name` was probably meant to be.

    A part of a longer name counts as near, because people leave out prefixes (`max_memory` for
    `worker_max_memory_per_child`), which a plain measure of likeness does not see.

    :return: None if nothing is near enough to be worth showing.
    """
    # Not above: every process of a worker would carry it for a mistake that nobody made.
    from difflib import get_close_matches

    candidates = sorted(known)
    close = get_close_matches(name, candidates, n=1, cutoff=0.75)
    if close:
        return close[0]
    parts = [candidate for candidate in candidates if len(name) > 3 and name in candidate]
    if parts:
        return min(parts, key=len)
    return next(iter(get_close_matches(name, candidates, n=1, cutoff=0.6)), None)
