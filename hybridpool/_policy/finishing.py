"""How many children of another library's app record how tasks ended, where no child could record it.

One is enough as long as the app's result backend answers at once. Where it is slow, those that wait would stand in
line, thousands of them after a mass revoke, and the messages behind them in the queue too.
"""

from typing import Final

#: children at most: each is a process with the app's memory, and connections to its backend
MAX_FINISHERS: Final = 4
#: seconds from the request until the app has recorded it, above which one more child helps
SLOW_S: Final = 0.5


def finishers(size: int, *, waiting: int, took: float) -> int:
    """Return how many children to have.

    :param size: how many there are to be now.
    :param waiting: requests that are not answered.
    :param took: seconds from the latest answered request to its answer; 0: none was answered lately.
    """
    if not waiting:
        return 1
    if took > SLOW_S and waiting > size:
        return min(size + 1, MAX_FINISHERS)
    return max(size, 1)
