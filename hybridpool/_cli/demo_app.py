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
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hybridpool import App

if TYPE_CHECKING:
    from hybridpool._client.result_handle import Handle

#: sends one task
Send: TypeAlias = "Callable[[], Coroutine[Any, Any, Handle[Any]]]"

#: how the name of a process begins while it runs a task; the kernel keeps 15 bytes of a name
AT_WORK: Final = "> "
app = App("demo")
log = logging.getLogger("demo")


@contextlib.contextmanager
def at_work(what: str) -> Generator[None]:
    """Put what this process does into its name, where the display reads it."""
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
    """Keep a CPU busy: walk at random and count the steps.

    It ends by the clock, so that the demo takes the same time on each machine.
    """
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
    """Raise, as user code may."""
    with at_work("fail"):
        raise ValueError("this task always fails")


@app.task(name="demo.die_once")
def die_once(note: str) -> str:
    """Kill the process that runs this; when it is delivered again, succeed.

    :param note: path of a file that does not exist yet; the first run makes it, so that the second run
        knows that it is the second.
    """
    with at_work("die_once"):
        try:
            Path(note).touch(exist_ok=False)
        except FileExistsError:
            return "done by another child"
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("no process survives SIGKILL")


def mixed(total: int, note: Path) -> list[Send]:
    """Return what to send, in order. The random numbers have a fixed seed, so that each demo is alike.

    :param note: as `die_once` takes it.
    """
    chance = random.Random(2)
    # the first of the second wave are long, so that two of them always run at the same time
    sends: list[Send] = [
        partial(crunch.enqueue, chance.uniform(0.1, 0.3))
        if number % 2 == 0 or total // 6 <= number < total // 6 + 2
        else partial(quick.enqueue, number)
        for number in range(total)
    ]
    for place in (1, total // 4, total // 2 + 1):
        sends[place] = partial(speak.enqueue, place)
    sends[3] = fail.enqueue
    sends[total // 2] = partial(die_once.enqueue, str(note))
    return sends
