"""The app of the tests of delays: tasks that note when they run, on the clock that all processes of a machine share."""

import time
from pathlib import Path

from hybridpool import App, RunningTask

app = App("delayed", result_backend="rpc://")


@app.task
def stamp(path: str) -> float:
    """Note the moment in a file, and return it."""
    now = time.monotonic()
    with Path(path).open("a") as file:
        file.write(f"{now}\n")
    return now


@app.task(bind=True)
def again(self: RunningTask, path: str, countdown: float) -> float:
    """Note the moment; at the first attempt ask for a second one."""
    now = stamp.function(path)
    if self.retries == 0:
        self.retry(countdown=countdown)
    return now
