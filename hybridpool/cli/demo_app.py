"""The demo's app: the tasks that `hybridpool demo` sends, and that its children import by name.

While a task runs, its child carries the task in the kernel's name of its process, where the display reads it and where
`ps` and `top` show it: a task of under a millisecond costs no message for that.
"""

import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from hybridpool import App

#: how the name of a process begins while it runs a task; the kernel keeps 15 bytes of a name
AT_WORK: Final = "> "
app = App("demo")
log = logging.getLogger("demo")


@contextlib.contextmanager
def at_work(what: str) -> Generator[None]:
    """Let the display see what this process does."""
    comm = Path("/proc/self/comm")
    before = comm.read_text()
    comm.write_text(AT_WORK + what)
    try:
        yield
    finally:
        comm.write_text(before)


@app.task(name="demo.quick")
def quick(number: int) -> int:
    """Do next to nothing."""
    with at_work("quick"):
        return number + 1


@app.task(name="demo.crunch")
def crunch(seconds: float) -> int:
    """Keep a CPU busy: walk at random, count the steps. By the clock, so that the demo lasts as long everywhere."""
    with at_work(f"crunch {seconds:.2f}"):
        steps, place, end = 0, 0.0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            place += random.gauss(0.0, 1.0)
            steps += 1
        return steps


@app.task(name="demo.speak")
def speak(number: int) -> None:
    """Print and log, as user code does."""
    with at_work("speak"):
        print(f"speak {number} prints this line")
        log.info("speak %d logs this one", number)


@app.task(name="demo.fail")
def fail() -> None:
    """Raise, as user code does too."""
    with at_work("fail"):
        raise ValueError("this task always fails")


@app.task(name="demo.die_once")
def die_once(note: str) -> str:
    """Kill the process that runs this; when it is delivered again, succeed.

    :param note: a file that does not exist yet; that it exists tells that this is the second time.
    """
    with at_work("die_once"):
        try:
            Path(note).touch(exist_ok=False)
        except FileExistsError:
            return "done by another child"
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("nobody survives SIGKILL")
