"""The app of the integration tests: the article's tasks, and tasks that do what users' tasks do at their worst.

A worker is started in this folder, so tasks are named ``worker.add``. Tests follow a running task through the FIFOs of
`tests.workers.Gate`, never through time.
"""

import ctypes
import io
import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from hybridpool import App, current_task

app = App("worker", result_backend="rpc://")
log = logging.getLogger("worker.tasks")
#: what leaking tasks have kept
kept: list[bytearray] = []
#: numbers the tasks of this process that count themselves
numbers = itertools.count(1)


class Unlucky(Exception):
    """A type that only this module has."""


def child_name() -> str:
    """Tell the child's name, as in the log."""
    running = current_task()
    return running.child if running else "no child"


# ---- the article's ---------------------------------------------------------------------------------------------------


@app.task
def task1() -> str:
    """Do nothing, and say where."""
    return child_name()


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@app.task
def busy(seconds: float) -> float:
    """Keep a CPU busy for so many seconds."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


# ---- values ----------------------------------------------------------------------------------------------------------


@app.task
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    """Give back what came."""
    return [list(args), kwargs]


@app.task
def shapes(*values: Any) -> list[str]:
    """Tell the types that arrived."""
    return [type(value).__name__ for value in values]


@app.task
def big(size: int) -> str:
    """Return a long text."""
    return "x" * size


@app.task
def fail(text: str) -> None:
    """Raise what every client knows."""
    raise ValueError(text)


@app.task
def fail_unlucky(text: str) -> None:
    """Raise what only this module knows."""
    raise Unlucky(text, 13)


@app.task
def exits(code: int) -> None:
    """Do what scripts do at their end."""
    sys.exit(code)


@app.task
def unsendable() -> object:
    """Return what has no JSON form."""
    return object()


@app.task
def count() -> list[Any]:
    """Count the calls in this process; siblings share nothing."""
    return [child_name(), next(numbers)]


@app.task
def identity() -> dict[str, Any]:
    """Tell what a task can know of itself and its process."""
    running = current_task()
    assert running is not None
    return {
        "id": running.id,
        "name": running.name,
        "retries": running.retries,
        "root_id": running.root_id,
        "pid": os.getpid(),
        "group": os.getpgid(0),
    }


# ---- synchronised ----------------------------------------------------------------------------------------------------


@app.task
def hold(gate: str, tag: str = "") -> str:
    """Say that it runs, then wait until the gate lets it go."""
    with Path(gate, "entered").open("w") as entered:
        entered.write(f"{child_name()} {os.getpid()} {tag}\n")
    with Path(gate, "release").open("rb", buffering=0) as release:
        release.read(1)
    return child_name()


@app.task
def note(path: str, text: str) -> None:
    """Append a line to a file."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")


@app.task
def write_together(gate: str, letter: str, length: int, lines: int) -> None:
    """Wait at the gate, then print and log long lines, as others do at the same time."""
    hold.function(gate)
    for _ in range(lines):
        print(f"printed {letter * length} end")
        log.info("logged %s end", letter * length)


@app.task
def speak() -> None:
    """Print and log in all the ways that there are."""
    print("a printed line")
    print("two lines\nat once")
    print("to stderr", file=sys.stderr)
    print("no newline", end="")
    log.debug("a debug line")
    log.info("a logged line")
    log.error("a line with ümläuts ✓")


def _speak_in_fork() -> None:
    print("printed by the fork")
    log.error("logged by the fork")


@app.task
def speak_through_others() -> int | None:
    """Print in a process that is forked, and in a thread."""
    print("begun by the task", end="")
    process = multiprocessing.get_context("fork").Process(target=_speak_in_fork, name="Process-1")
    process.start()
    process.join()
    print(", ended by the task")
    warnings.warn("careful", stacklevel=1)
    thread = threading.Thread(target=print, args=("printed by a thread",))
    thread.start()
    thread.join()
    return process.exitcode


@app.task
def take_logging_and_streams() -> None:
    """Do to logging and sys.stdout what scripts do that own their process."""
    logging.basicConfig(level=logging.ERROR, force=True)
    logging.disable(logging.INFO)
    print("printed after it was taken")
    sys.stdout = io.TextIOWrapper(sys.stdout.detach())  # type: ignore[union-attr]
    sys.stderr.close()


@app.task
def talk(text: str) -> None:
    """Print it and log it."""
    print(text)
    log.warning("%s", text)


@app.task
def enqueue_another(path: str) -> str:
    """Send another task from inside a task, through the parent."""
    return note.delay(path, "second").id


@app.task
def enqueue_to(queue: str) -> str:
    """Send another task to a queue."""
    return add.options(queue=queue).delay(2, 3).id


@app.task
def enqueue_at_last(gate: str, queue: str) -> None:
    """Wait at the gate, then send another task."""
    hold.function(gate)
    add.options(queue=queue).delay(2, 3)


@app.task
def wait_for_another() -> int:
    """Do what a task must not do."""
    return add.delay(2, 3).get(1)


# ---- deaths ----------------------------------------------------------------------------------------------------------


@app.task
def kill_self(signum: int = signal.SIGKILL) -> None:
    """Die by a signal."""
    os.kill(os.getpid(), signum)


@app.task
def leave(code: int) -> None:
    """Leave without a word."""
    os._exit(code)


@app.task
def drain_outcomes(code: int) -> None:
    """Say something and leave at once."""
    print("these are my last words")
    os._exit(code)


@app.task
def segfault() -> None:
    """Read from address 0."""
    ctypes.string_at(0)


@app.task
def leak(size: int) -> str:
    """Keep so many bytes, all of them written."""
    kept.append(bytearray(b"x") * size)
    return child_name()


@app.task
def orphan(gate: str) -> int:
    """Start a process that is alone in the world, and ends when the gate lets it go; returns its pid."""
    told = subprocess.run(
        ["sh", "-c", 'head -c1 < "$0/release" > /dev/null & echo $!', gate],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(told.stdout)


@app.task
def grandchild() -> int:
    """Start a process that would sleep for an hour, and leave it."""
    return subprocess.Popen(["sleep", "3600"]).pid
