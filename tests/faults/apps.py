"""The app of the fault tests: its tasks write into a journal what happens to them, before and after.

A line is ``id pid start|done time``, appended with one write, so lines of different processes never mix and what was
written survives its writer. Times are of the machine's monotonic clock: one clock for all processes.
"""

import ctypes
import errno
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridpool import App, current_task

#: path of the journal, in the environment of the process that runs tasks
JOURNAL = "FAULTS_JOURNAL"
#: in the environment: what a child does at its start, "dies" or "hangs"; and a folder: if it is empty, the child starts
FATE, FATES = "FAULTS_BIRTH", "FAULTS_BIRTHS"
#: in the environment: seconds after which a zygote that has imported this dies
ZYGOTE_LASTS = "FAULTS_ZYGOTE_LASTS"
#: the ids under which starts of children and of zygotes stand in the journal
BORN, ZYGOTE = "birth", "zygote"
#: seconds of work of a number: enough that a run of two thousand can be interrupted
WORK = 0.001
#: seconds between two looks for a file
POLL = 0.05

app = App("faults")


def write(task_id: str, what: str) -> None:
    """Append a line to the journal; if a task before has left no descriptor, as soon as there is one."""
    journal = -1
    while journal < 0:
        try:
            journal = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            time.sleep(WORK)
    try:
        os.write(journal, f"{task_id} {os.getpid()} {what} {time.monotonic():.6f}\n".encode())
    finally:
        os.close(journal)


@contextmanager
def journalled() -> Iterator[str]:
    """Write the start and, if it comes to that, the end of the task at work; give its id."""
    running = current_task()
    assert running is not None
    write(running.id, "start")
    yield running.id
    write(running.id, "done")


def stand_in(gate: str, tag: str) -> None:
    """Say that we run, and wait to be let go; see `tests.workers.Gate`."""
    running = current_task()
    with Path(gate, "entered").open("w") as entered:
        entered.write(f"{running.child if running else ''} {os.getpid()} {tag}\n")
    with Path(gate, "release").open("rb", buffering=0) as release:
        release.read(1)


@app.worker_init
def conception() -> None:
    """Be a zygote as the test wants it."""
    lasts = os.environ.get(ZYGOTE_LASTS)
    write(ZYGOTE, "start")
    if lasts is not None:
        signal.setitimer(signal.ITIMER_REAL, float(lasts))


@app.worker_process_init
def birth() -> None:
    """Start, die or hang as the test says."""
    fate, fates = os.environ.get(FATE), os.environ.get(FATES)
    write(BORN, "start")
    if fate is None or (fates is not None and not any(removed(str(path)) for path in Path(fates).iterdir())):
        return
    if fate == "dies":
        os._exit(7)
    while True:
        signal.pause()


@app.task
def number(gate: str = "") -> None:
    """Count: one line more in the journal, after a millisecond of work, or when the gate lets it go."""
    with journalled() as task_id:
        if gate:
            stand_in(gate, task_id)
        end = time.perf_counter() + WORK
        while time.perf_counter() < end:
            pass


@app.task(acks_late=False)
def number_once(gate: str = "") -> None:
    """As `number`, acknowledged before it starts."""
    number(gate)


@app.task
def fatal(how: str, only_if: str = "") -> None:
    """End the child.

    :param only_if: do so only while this file exists, and remove it; empty: each time.
    """
    with journalled():
        if not only_if or removed(only_if):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            DEATHS[how]()


@app.task
def with_process(gate: str) -> None:
    """Start a process that would sleep for an hour, and stand in the gate with its pid as tag."""
    with journalled():
        process = subprocess.Popen(["sleep", "3600"])
        stand_in(gate, str(process.pid))
        process.kill()
        process.wait()


def exists(path: str) -> bool:
    """Tell whether there is such a file."""
    return Path(path).exists()


def removed(path: str) -> bool:
    """Remove a file; False if another process was quicker."""
    try:
        Path(path).unlink()
    except FileNotFoundError:
        return False
    return True


def _segfault() -> None:
    ctypes.string_at(0)


DEATHS: dict[str, Callable[[], object]] = {
    "exits": lambda: os._exit(3),
    "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfaults": _segfault,
}
