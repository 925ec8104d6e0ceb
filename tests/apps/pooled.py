"""The app of the pool's tests. A task that waits asks the parent for something, and goes on when it is answered."""

import gc
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from hybridpool import App, current_task

app = App("pooled")
#: a child's calls so far
calls: list[str] = []


def asked(text: str) -> None:
    """Ask the parent, and wait for its answer."""
    running = current_task()
    assert running is not None
    running._enqueue(text.encode())


@app.task(name="add")
def add(x: int, y: int = 1) -> int:
    """Add two numbers."""
    return x + y


@app.task(name="who")
def who() -> list[Any]:
    """Tell the child's name and how many calls it has had."""
    running = current_task()
    assert running is not None
    calls.append(running.id)
    return [running.child, len(calls)]


@app.task(name="hold")
def hold() -> str:
    """Wait at the parent's gate."""
    running = current_task()
    assert running is not None
    asked(running.id)
    return running.child


@app.task(name="hold_at")
def hold_at(gate: str, then: str = "") -> str:
    """Say that it runs, wait at a FIFO, and go on; the parent need not answer for that."""
    print("entered", flush=True)
    with Path(gate).open("rb", buffering=0) as fifo:
        fifo.read(1)
    if then:
        asked(then)
    return "done"


@app.task(name="outlast")
def outlast(seconds: float, then: str = "") -> str:
    """Be busy so long, whatever is raised meanwhile; say what was.

    :param then: not empty: go on whatever is raised, and log one line when that holds.
    """
    heard, end, said = "nothing", time.monotonic() + seconds, not then
    while time.monotonic() < end:
        try:
            if not said:
                said = True
                logging.getLogger("pooled").warning("begun")
            time.sleep(end - time.monotonic())
        except BaseException as error:
            heard = repr(error)
            if not then:
                raise
    return heard


@app.task(name="wander")
def wander(steps: int) -> int:
    """Be deep in C for so many steps; no signal is looked at meanwhile."""
    return sum(range(steps))


@app.task(name="late_modules")
def late_modules() -> list[str]:
    """Name the modules that were imported after this process was forked: the others' are frozen."""
    return [found.__name__ for found in gc.get_objects() if isinstance(found, ModuleType)]


@app.task(name="fail")
def fail() -> None:
    """Fail."""
    raise ValueError("wrong")


@app.task(name="die")
def die(signum: int = signal.SIGKILL) -> None:
    """Die."""
    os.kill(os.getpid(), signum)
    signal.pause()


@app.task(name="leave")
def leave(status: int) -> None:
    """Leave without a word."""
    os._exit(status)


@app.task(name="leave_if")
def leave_if(status: int) -> None:
    """Leave without a word, or not."""
    if status:
        os._exit(status)


@app.task(name="echo")
def echo(text: str) -> str:
    """Give back."""
    return text


@app.task(name="blow_up")
def blow_up(size: int) -> str:
    """Return something large."""
    return "x" * size


@app.task(name="chance")
def chance() -> list[float]:
    """Wait, so that each child has one, and tell three random numbers."""
    asked("chance")
    return [random.random() for _ in range(3)]


@app.task(name="self_portrait")
def self_portrait() -> dict[str, Any]:
    """Wait, so that each child has one, and tell what the system knows of this process."""
    asked("self_portrait")
    fds = {}
    for entry in list(Path("/proc/self/fd").iterdir()):
        try:
            fds[int(entry.name)] = str(entry.readlink())
        except OSError:
            # what listed the folder
            continue
    return {
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "session": os.getsid(0),
        "threads": threading.active_count(),
        "stdin": sys.stdin.read() if sys.stdin else None,
        "fds": fds,
    }


@app.task(name="bring_up")
def bring_up() -> int:
    """Start a process that outlives its task."""
    return subprocess.Popen(["sleep", "3600"], stdin=subprocess.DEVNULL).pid
