"""How long to wait before the next attempt: growing, bounded, and spread so that many clients do not retry at once.

Used for connections to the broker and for children that fail to start. The caller passes the random number.
"""

from typing import Final

#: attempts to publish one message over connections that break
ATTEMPTS: Final = 8
#: the pauses between them: seconds after the first, twice as long after each, up to a limit; six seconds in all.
#: A quorum queue whose leader has died accepts nothing until another leader is elected
_FIRST_PAUSE_S, _FACTOR, _MAX_PAUSE_S = 0.1, 2.0, 1.6


def pause(attempt: int) -> float:
    """Return the seconds to wait after a failed attempt to publish.

    :param attempt: the number of the attempt, from 1.
    """
    return ceiling(attempt, first=_FIRST_PAUSE_S, factor=_FACTOR, limit=_MAX_PAUSE_S)


def delay(attempt: int, *, first: float, factor: float, limit: float, jitter: float) -> float:
    """Return the seconds to wait before the given attempt.

    The wait grows from ``first`` by ``factor`` with each attempt up to ``limit``; half of it is fixed, the other
    half is multiplied by ``jitter``.

    :param attempt: the number of attempts that failed so far in a row, from 1.
    :param jitter: a random number from 0 to 1.
    :raises ValueError: if an argument is out of its range.
    """
    if attempt < 1 or first < 0 or factor < 1 or limit < first or not 0 <= jitter <= 1:
        raise ValueError(f"no such backoff: {attempt=} {first=} {factor=} {limit=} {jitter=}")
    return ceiling(attempt, first=first, factor=factor, limit=limit) * (1 + jitter) / 2


def ceiling(attempt: int, *, first: float, factor: float, limit: float) -> float:
    """Return the longest wait that `delay` can give for this attempt, in seconds."""
    try:
        return min(limit, first * factor ** (attempt - 1))
    except OverflowError:  # the thousandth attempt of a worker that never gives up
        return limit if first else 0.0


def next_attempt(attempt: int, *, lasted: float, settled_after: float) -> int:
    """Return the attempt's number after something ended that had started.

    An end soon after the start counts as one more failure. Otherwise a process that starts and dies at once would be
    started again without a pause, for ever.

    :param lasted: seconds it was up.
    :param settled_after: seconds after which a start counts as a success.
    """
    return 1 if lasted >= settled_after else attempt + 1
