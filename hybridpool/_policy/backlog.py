"""Decides when a worker takes no more messages, because too much of what it has done waits to be stored or sent.

A message that is acknowledged late keeps its place in the prefetch until its result is stored. One that was
acknowledged when its task began does not, so nothing but this bounds how many of them wait.
"""

from typing import Final

#: outcomes that may wait, and bytes of their messages and results, before no more messages are taken
MAX_WAITING: Final = 1000
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
#: messages are taken again when so much of that is left: each change costs the broker a request for each queue
GO_ON_AT: Final = 0.5


def holds_back(waiting: int, size: int, *, is_held_back: bool) -> bool:
    """Decide whether messages are not taken.

    :param size: bytes.
    :param is_held_back: they are not taken now.
    """
    share = GO_ON_AT if is_held_back else 1.0
    return waiting > MAX_WAITING * share or size > MAX_WAITING_BYTES * share
