"""The functions that the pool's tests run in children."""

import functools
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

import hybridpool
from hybridpool.errors import SoftTimeLimitExceeded, TaskCancelled

#: which process imported this module
IMPORTED_BY = os.getpid()


def child_name() -> str:
    """Return the name of the child that runs this."""
    running = hybridpool.current_task()
    assert running is not None
    return running.child


def add(x: int, y: int = 1) -> int:
    """Add."""
    return x + y


def who() -> int:
    """Return the pid."""
    return os.getpid()


def whose() -> str:
    """Return the child's name."""
    return child_name()


def whose_of(_number: int) -> str:
    """Return the child's name."""
    return child_name()


def spin(seconds: float) -> int:
    """Be busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return os.getpid()


def length(data: bytes) -> int:
    """Measure."""
    return len(data)


def loaded(*names: str) -> list[str]:
    """Return which of these modules are loaded."""
    return [name for name in names if name in sys.modules]


def zeros(size: int) -> bytes:
    """Return something large."""
    return bytes(size)


# ---- gates and journals ----------------------------------------------------------------------------------------------


def enter(gate: str) -> None:
    """Tell the test that waits at the gate that this process has come."""
    tell(gate + ".entered", f"{os.getpid()}\n")


def pass_through(gate: str) -> None:
    """Tell that this process has come, and wait to be let through."""
    enter(gate)
    with Path(gate + ".go").open("rb", buffering=0) as go:
        go.read(1)


def hold(gate: str, value: Any = None) -> Any:
    """Wait at the gate."""
    pass_through(gate)
    return value


def hold_if(gate: str, number: int) -> int:
    """Wait at the gate if the number is 0."""
    if not number:
        pass_through(gate)
    return number


def tell(file: str, text: str) -> None:
    """Append to a file, whole."""
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def note(journal: str, text: object) -> Any:
    """Leave a line in a journal."""
    tell(journal, f"{text}\n")
    return text


def note_or_die(journal: str, number: int, deadly: int) -> int:
    """Leave a line in a journal, or die before."""
    if number == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    tell(journal, f"{number}\n")
    return number


# ---- failing ---------------------------------------------------------------------------------------------------------


def fail(*words: object) -> NoReturn:
    """Fail."""
    raise ValueError(*words)


def fail_at(number: int, bad: int) -> int:
    """Fail at one number."""
    if number == bad:
        raise ValueError(number)
    return number


class Odd(Exception):
    """Cannot be unpickled: it wants more than its arguments."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(one + other)


def fail_oddly() -> NoReturn:
    """Fail with an exception that does not travel."""
    raise Odd(1, 2)


def leave(status: int) -> NoReturn:
    """Leave the interpreter as a script does."""
    sys.exit(status)


def die() -> None:
    """Die."""
    os.kill(os.getpid(), signal.SIGKILL)


def unsendable() -> object:
    """Return what cannot be sent."""
    return threading.Lock()


def local_function() -> Callable[[], int]:
    """Return what only cloudpickle can send."""
    return lambda: 42


# ---- being stuck -----------------------------------------------------------------------------------------------------


def nap(seconds: float) -> float:
    """Sleep."""
    time.sleep(seconds)
    return seconds


def loop() -> None:
    """Never end, in Python."""
    while True:
        pass


def count() -> int:
    """Take very long, in C, without looking at signals."""
    return sum(range(10**11))


def match() -> object:
    """Take very long, in C."""
    return re.match(r"(a+)+$", "a" * 60 + "b")


def deaf() -> None:
    """Never end, whatever is raised."""
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001  # that is what it is for
            continue


class Stuck:
    """Cannot be unpickled in reasonable time."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Sleep where it is unpickled."""
        return time.sleep, (60,)


def careless(gate: str) -> str:
    """Wait, in code that catches every Exception."""
    try:
        enter(gate)
        time.sleep(60)
    except Exception:  # noqa: BLE001  # that is what it is for
        return "swallowed"
    return "slept"


def careful(gate: str, journal: str) -> str:
    """Wait, and clean up when stopped."""
    try:
        enter(gate)
        time.sleep(60)
    except (SoftTimeLimitExceeded, TaskCancelled) as stopped:
        tell(journal, f"{type(stopped).__name__}{stopped.args}\n")
        return "cleaned up"
    return "slept"


def wait_forever(gate: str) -> None:
    """Wait."""
    enter(gate)
    time.sleep(60)


def wait_deaf(gate: str) -> None:
    """Wait, whatever is raised."""
    try:
        enter(gate)
        time.sleep(60)
    finally:
        deaf()


# ---- what a child has ------------------------------------------------------------------------------------------------


def plain_resource() -> list[int]:
    """Return this child's resource."""
    return [os.getpid()]


def resource() -> Any:
    """Return what the initializer made."""
    return hybridpool.resource()


def fail_with_resource() -> None:
    """Fail while the resource is there."""
    raise ValueError(hybridpool.resource())


def kept(journal: str) -> Generator[str]:
    """Open, keep, give back."""
    tell(journal, f"open {os.getpid()}\n")
    yield f"resource of {os.getpid()}"
    tell(journal, f"close {os.getpid()}\n")


def kept_until_let_go(gate: str) -> Generator[None]:
    """Give back only when let."""
    yield
    pass_through(gate)


def held_birth(gate: str, flag: str) -> None:
    """Start only when let, while the flag is there."""
    if Path(flag).exists():
        pass_through(gate)


def never_born() -> None:
    """Hang at the start."""
    time.sleep(60)


def no_database() -> None:
    """Fail at the start."""
    raise RuntimeError("no database")


def imported_by() -> int:
    """Tell which process imported this module."""
    return IMPORTED_BY


hoard: list[bytes] = []


def keep(size: int) -> str:
    """Own more memory from now on."""
    hoard.append(os.urandom(size))
    return child_name()


# ---- children of children --------------------------------------------------------------------------------------------


def square(x: int) -> int:
    """Multiply."""
    return x * x


def give(value: Any) -> Any:
    """Return what was given."""
    return value


class Numbers:
    """A value that hands out its memory, as an array of numbers does."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle with the memory apart."""
        return Numbers, (pickle.PickleBuffer(self.data),)


def set_first(numbers: Numbers, value: int) -> Numbers:
    """Change an array."""
    numbers.data[0] = value
    return numbers


def note_and_die(journal: str, data: bytes) -> NoReturn:
    """Write down how much came, and die."""
    tell(journal, f"{len(data)}\n")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still here")


def _refuse(_data: object) -> NoReturn:
    raise ValueError("cannot be read")


class Unreadable:
    """A value that can be written, and not read."""

    def __init__(self, size: int) -> None:
        self.data = bytes(size)

    def __reduce__(self) -> Any:
        """Pickle."""
        return _refuse, (self.data,)


def unreadable(size: int) -> Unreadable:
    """Return what cannot be read."""
    return Unreadable(size)


class Model:
    """An initializer with much to carry."""

    def __init__(self, weights: bytes) -> None:
        self.weights = weights

    def __call__(self) -> bytes:
        """Be the resource."""
        return self.weights


def resource_size() -> int:
    """Return how large the resource is."""
    held = hybridpool.resource()
    assert isinstance(held, bytes)
    return len(held)


def weigh(mib: int, gate: str) -> int:
    """Own so much memory, and pass a gate with it."""
    held = bytearray(mib * 1024 * 1024)
    pass_through(gate) if Path(gate + ".go").exists() else time.sleep(3600)
    return len(held) // 1024 // 1024


def by_processes() -> list[int | None]:
    """Start processes of one's own; return their exit codes."""
    processes = [get_context("fork").Process(target=square, args=(n,)) for n in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def by_executor(method: str) -> list[int]:
    """Have a pool of one's own."""
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as executor:
        return list(executor.map(square, range(5)))


def by_subprocess() -> str:
    """Run a program."""
    return subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, check=True).stdout


def leave_process() -> int:
    """Start a process that outlives the call."""
    return subprocess.Popen(["sleep", "3600"], stdin=subprocess.DEVNULL).pid


def _doubled(function: Callable[[int], int]) -> Callable[[int], int]:
    @functools.wraps(function)
    def inner(number: int) -> int:
        return 2 * function(number)

    return inner


@_doubled
def decorated(number: int) -> int:
    """Return it, doubled by the decorator."""
    return number


def fetch(url: str, timeout: float = 30.0, *, soft_timeout: float = 20.0) -> list[object]:
    """Return the arguments."""
    return [url, timeout, soft_timeout]


async def async_generator(number: int) -> AsyncGenerator[int]:
    """Yield it."""
    yield number


async def coroutine(number: int) -> int:
    """Return it, later."""
    return number


def generator(number: int) -> Iterator[int]:
    """Give it."""
    yield number
