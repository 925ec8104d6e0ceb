"""The tasks of the chaos run, beside those of `tests.faults.apps`; and who runs them, written into the same journal.

A line ``w1.0 pid child-of-zygote time`` says that a child of the first worker's first life was born.
"""

import os
import time
from typing import Final

from hybridpool import current_task
from hybridpool.child.context import Running
from tests.faults.apps import app, journalled, write

__all__ = ["app"]

#: in the environment of a worker: its name
WHO: Final = "CHAOS_WHO"
#: words of the journal
RAISED: Final = "raised"
ASKED: Final = "asked"
CHILD_OF: Final = "child-of-"


class MeantError(Exception):
    """What a task raises that shall fail."""


@app.worker_process_init
def tell_whose() -> None:
    """Let the account know which worker, and which zygote, this child belongs to."""
    write(os.environ[WHO], f"{CHILD_OF}{os.getppid()}")


@app.task
def slow(seconds: float) -> None:
    """Be so long at work that something happens meanwhile."""
    with journalled():
        time.sleep(seconds)


@app.task(throws=(MeantError,))
def raises() -> None:
    """Fail, as it is meant to."""
    running = current_task()
    assert running is not None
    write(running.id, "start")
    write(running.id, RAISED)
    raise MeantError(running.id)


@app.task(bind=True)
def retries(running: Running, countdown: float) -> None:
    """Ask for one more attempt, and succeed in that."""
    write(running.id, "start")
    if not running.retries:
        write(running.id, ASKED)
        running.retry(countdown=countdown)
    write(running.id, "done")
