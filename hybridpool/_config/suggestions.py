"""What somebody who mistyped a name meant. A suggestion that means something else is worse than none."""

import re
from collections.abc import Iterable

#: letters of a name to each slip that it may have, and the most slips
_LETTERS_A_SLIP = 6
_MOST_SLIPS = 2


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that `name` was probably meant to be.

    Near is a name with a slip or two of the keyboard in it, the beginning of just one name (`prio`), and one that lacks
    words of a longer name (`max_memory` for `worker_max_memory_per_child`), if it is clear of which.

    :return: None if nothing is near enough to be worth showing.
    """
    words = _words(name)
    letters = len("".join(words))
    if letters < 2:
        return None
    candidates = {candidate: own for candidate in sorted(set(known)) if len("".join(own := _words(candidate))) > 1}
    most = min(_MOST_SLIPS, 1 + letters // _LETTERS_A_SLIP)
    slips = [(_slips(words, own, most), len(candidate), candidate) for candidate, own in candidates.items()]
    least, _, best = min(slips, default=(most + 1, 0, ""))
    if least <= most and least < letters:
        return best
    begun = [candidate for candidate in candidates if letters > 2 and candidate.startswith(name)]
    if len(begun) == 1:
        return begun[0]
    holding = [candidate for candidate, own in candidates.items() if letters > 3 and _holds(own, words)]
    begun = [candidate for candidate in holding if candidates[candidate][: len(words)] == words]
    return next((found[0] for found in (holding, begun) if len(found) == 1), None)


def hint(name: str, known: Iterable[str], celerys: Iterable[str] = (), *, quoted: bool = False) -> str:
    """Return the end of a message about a name that is not known: what was meant, or that Celery has it.

    :param celerys: names that Celery has, and hybridpool has not.
    """
    if name in celerys:
        return ": Celery has it, and it is not there yet"
    near = nearest(name, known)
    return "" if near is None else f"; did you mean {near!r}?" if quoted else f"; did you mean {near}?"


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^0-9a-z]+", name.lower()) if word]


def _singular(words: list[str]) -> list[str]:
    return [f"{word[:-3]}y" if word.endswith("ies") else word.removesuffix("s") for word in words]


def _slips(words: list[str], own: list[str], most: int) -> int:
    """Count the slips from a known name, with or without its first word; the singular for the plural is none."""
    forms = [form for form in (own, own[1:]) if form]
    pairs = [(words, form) for form in forms] + [(_singular(words), _singular(form)) for form in forms]
    return min(_distance("_".join(one), "_".join(other), most) for one, other in pairs)


def _holds(longer: list[str], words: list[str]) -> bool:
    """Tell whether the words stand in the longer name, one after the other."""
    return any(longer[at : at + len(words)] == words for at in range(len(longer) - len(words) + 1))


def _distance(one: str, other: str, most: int) -> int:
    """Count the letters to insert, drop, replace, or swap with their neighbour; `most` + 1 stands for more."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        earlier, before, row = before, row, [at]
        for to, wanted in enumerate(other, 1):
            cost = min(before[to] + 1, row[-1] + 1, before[to - 1] + (letter != wanted))
            if at > 1 and to > 1 and letter == other[to - 2] and one[at - 2] == wanted:
                cost = min(cost, earlier[to - 2] + 1)
            row.append(cost)
    return min(row[-1], most + 1)
