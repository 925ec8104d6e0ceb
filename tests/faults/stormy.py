"""A module to preload where signals rain; and tasks that are killed in the middle of what they send."""

import os
import signal
import time

#: what a program may well handle, and gets at any moment
RAIN = (signal.SIGWINCH, signal.SIGCONT)
#: seconds between two alarms
_ALARM = 0.0007


def shelter() -> None:
    """Have handlers that do nothing, so that each signal interrupts whatever the process is in."""
    for number in (*RAIN, signal.SIGALRM):
        signal.signal(number, lambda *_: None)


def alarmed() -> None:
    """Be woken all the time by a timer of one's own: an initializer."""
    signal.setitimer(signal.ITIMER_REAL, _ALARM, _ALARM)


def at_most(number: int) -> bytes:
    """Return a few bytes mostly, and very many at times."""
    return bytes(number if number % 500 else 2**20)


def big_and_doomed(size: int, after: float) -> bytes:
    """Return something large, and be killed about when it is under way.

    :param after: seconds.
    """
    doomed = os.getpid()
    if not os.fork():
        # sleep alone may be too coarse to hit the moment
        end = time.perf_counter() + after
        while time.perf_counter() < end:
            pass
        os.kill(doomed, signal.SIGKILL)
        os._exit(0)
    return bytes(size)


shelter()
