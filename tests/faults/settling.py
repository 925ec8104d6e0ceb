"""The app of the tests of seams: one task for each way in which a call ends, for which different things follow.

Its journal has a line for each attempt, as in `tests.faults.apps`; an attempt is named ``id.retries``.
"""

import os
import signal

from hybridpool import App, current_task
from hybridpool.errors import Reject, Retry
from tests.faults.apps import removed, write

app = App("settling", result_backend="rpc://")


def attempt(dies_if: str = "") -> int:
    """Write an attempt down; returns how many came before it.

    :param dies_if: the child dies in it while this file exists, which is removed; empty: it does not.
    """
    running = current_task()
    assert running is not None
    name = f"{running.id}.{running.retries}"
    write(name, "start")
    if dies_if and removed(dies_if):
        os.kill(os.getpid(), signal.SIGKILL)
    write(name, "done")
    return running.retries


@app.task
def returned() -> int:
    """Return."""
    return attempt()


@app.task
def raised() -> None:
    """Raise."""
    attempt()
    raise LookupError("no such customer")


@app.task(default_retry_delay=0)
def retried() -> int:
    """Ask for one more attempt."""
    if attempt() == 0:
        raise Retry
    return 1


@app.task
def rejected() -> None:
    """Be rejected for good."""
    attempt()
    raise Reject("no stock")


@app.task
def lost(dies_if: str) -> int:
    """Lose the child, once."""
    return attempt(dies_if)
