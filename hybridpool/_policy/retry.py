"""Decides when a task that failed is run again.

The numbers are Celery's: `default_retry_delay` of 180 s, and with `retry_backoff` the factor times two to the power of
the retries before, at most `retry_backoff_max` of 600 s, and by default anything from nothing to that ("full jitter").
"""

from typing import Final

import attrs

DEFAULT_DELAY_S: Final = 180.0
DEFAULT_MAX_BACKOFF_S: Final = 600.0
#: seconds; a hundred years, so that the end of every wait can be written as a datetime
_MAX_WAIT_S: Final = 100 * 365 * 86400.0


@attrs.frozen(kw_only=True)
class RetryPace:
    """How long a task waits for its next attempt. In seconds."""

    delay: float = DEFAULT_DELAY_S
    #: the first wait; None: `delay` each time
    backoff: float | None = None
    max_backoff: float = DEFAULT_MAX_BACKOFF_S
    jitter: bool = True


def wait(pace: RetryPace, *, retries: int, countdown: float | None, chance: float) -> float:
    """Return the seconds until the next attempt.

    :param retries: attempts before the one that failed.
    :param countdown: what the task itself asked for.
    :param chance: a random number from 0 to 1.
    :raises ValueError: if `chance` is out of its range.
    """
    if not 0 <= chance <= 1:
        raise ValueError(f"no chance: {chance!r}")
    if countdown is not None:
        return min(max(0.0, countdown), _MAX_WAIT_S)
    if pace.backoff is None:
        return min(pace.delay, _MAX_WAIT_S)
    # After 64 doublings any backoff of a microsecond or more has reached the limit.
    longest = min(_MAX_WAIT_S, pace.max_backoff, pace.backoff * 2.0 ** min(retries, 64))
    return longest * chance if pace.jitter else longest
