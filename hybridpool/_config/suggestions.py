"""Suggests the name that was probably meant by a mistyped one. A wrong suggestion is worse than none."""

import re
from collections.abc import Iterable

#: letters of a name for each typing error that it may have beyond the first, and the limit of errors
_LETTERS_PER_TYPO = 6
_MAX_TYPOS = 2


def find_similar(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that `name` was probably meant to be.

    Similar are a name with one or two typing errors, the beginning of only one name (`prio`), and a name that lacks
    words of only one longer name, or of only one behind its first word (`max_memory` for
    `worker_max_memory_per_child`, although there is `worker_async_max_memory_per_child` too).

    :returns: None if no name is similar enough.
    """
    words = _split_words(name)
    letters = len("".join(words))
    if letters < 2:
        return None
    candidates = {
        candidate: parts for candidate in sorted(set(known)) if len("".join(parts := _split_words(candidate))) > 1
    }
    limit = min(_MAX_TYPOS, 1 + letters // _LETTERS_PER_TYPO)
    typos = [(_count_typos(words, parts, limit), len(candidate), candidate) for candidate, parts in candidates.items()]
    fewest, _, best = min(typos, default=(limit + 1, 0, ""))
    if fewest <= limit and fewest < letters:
        return best
    starting = [candidate for candidate in candidates if letters > 2 and candidate.startswith(name)]
    if len(starting) == 1:
        return starting[0]
    containing = [candidate for candidate, parts in candidates.items() if letters > 3 and _contains(parts, words)]
    starting = [candidate for candidate in containing if candidates[candidate][: len(words)] == words]
    after_first = [candidate for candidate in containing if candidates[candidate][1 : 1 + len(words)] == words]
    return next((found[0] for found in (containing, starting, after_first) if len(found) == 1), None)


def suggest(name: str, known: Iterable[str], celery_names: Iterable[str] = (), *, quoted: bool = False) -> str:
    """Return the end of a message about an unknown name: the name that was meant, or that Celery has it.

    :param celery_names: names that Celery has and hybridpool does not have.
    """
    if name in celery_names:
        return ": Celery has it, and it is not there yet"
    similar = find_similar(name, known)
    return "" if similar is None else f"; did you mean {similar!r}?" if quoted else f"; did you mean {similar}?"


def _split_words(name: str) -> list[str]:
    return [word for word in re.split(r"[^0-9a-z]+", name.lower()) if word]


def _singular(words: list[str]) -> list[str]:
    return [f"{word[:-3]}y" if word.endswith("ies") else word.removesuffix("s") for word in words]


def _count_typos(words: list[str], parts: list[str], limit: int) -> int:
    """Count the typing errors against a known name, with or without its first word; singular and plural are equal."""
    forms = [form for form in (parts, parts[1:]) if form]
    pairs = [(words, form) for form in forms] + [(_singular(words), _singular(form)) for form in forms]
    return min(_distance("_".join(one), "_".join(other), limit) for one, other in pairs)


def _contains(longer: list[str], words: list[str]) -> bool:
    """Tell whether the longer name contains these words in sequence."""
    return any(longer[at : at + len(words)] == words for at in range(len(longer) - len(words) + 1))


def _distance(one: str, other: str, limit: int) -> int:
    """Count the letters to insert, drop, replace, or swap with their neighbour; `limit` + 1 stands for more."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    before: list[int] = []
    costs = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        earlier, before, costs = before, costs, [at]
        for to, wanted in enumerate(other, 1):
            cost = min(before[to] + 1, costs[-1] + 1, before[to - 1] + (letter != wanted))
            if at > 1 and to > 1 and letter == other[to - 2] and one[at - 2] == wanted:
                cost = min(cost, earlier[to - 2] + 1)
            costs.append(cost)
    return min(costs[-1], limit + 1)
