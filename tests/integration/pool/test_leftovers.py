"""Functions that do to their child what they should not: fork, close files, write into the channel, leave a mess."""

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

import anyio
import pytest

from hybridpool import Pool
from hybridpool.errors import ChildLost, TaskFailed, TimeLimitExceeded
from tests.integration.pool.helpers import PATIENCE

# starting the zygote waits for its exec
pytestmark = pytest.mark.may_block


def pid() -> int:
    """Return the child's pid."""
    return os.getpid()


def fork_and_come_back(how: str) -> str:
    """Fork, and have both processes come back."""
    made = ctypes.CDLL(None).fork() if how == "in C" else os.fork()
    if made == 0:
        if how == "exits":
            sys.exit(5)
        if how == "raises":
            raise ValueError("in the forked one")
        return "forked"
    return f"parent {os.waitstatus_to_exitcode(os.waitpid(made, 0)[1])}"


def send_garbage(message: bytes) -> str:
    """Write something into every socket that is open."""
    for number in range(3, 64):
        try:
            with socket.socket(fileno=os.dup(number)) as copy:
                copy.send(message)
        except OSError:
            continue
    return "sent"


def close_everything() -> str:
    """Close all descriptors, as careless daemons do."""
    os.closerange(3, 4096)
    return "closed"


def close_and_open() -> str:
    """Close all descriptors, and open other sockets in their place."""
    os.closerange(3, 4096)
    globals()["_kept"] = [socket.socketpair() for _ in range(30)]
    return "closed"


def leave(what: str) -> str:
    """Leave something behind."""
    match what:
        case "alarm":
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        case "attention":
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        case "blocked":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        case "ignored":
            for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_IGN)
        case _:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return what


def be_long() -> str:
    """Take half a second, and return something that goes in a file."""
    time.sleep(0.5)
    return "x" * 200_000


def spin() -> None:
    """Never end."""
    while True:
        time.sleep(0.01)


def end(kind: type[BaseException], *arguments: Any) -> None:
    """Raise something that asks more than this function to end."""
    raise kind(*arguments)


@pytest.mark.parametrize(("how", "status"), [("returns", 0), ("exits", 5), ("raises", 1), ("in C", 0)], ids=str)
async def test_a_fork_that_comes_back(one: Pool, how: str, status: int) -> None:
    """A process that a function forked ends like a program; the call has one result, and the child lives on."""
    before = await one.run(pid)
    assert await one.run(fork_and_come_back, how) == f"parent {status}"
    assert [await one.run(pid) for _ in range(3)] == [before] * 3


@pytest.mark.parametrize("message", [b"garbage", b"\xc1", b"\x90", b"\x91\x92\x14\x01"])
async def test_garbage_in_the_channel(one: Pool, message: bytes) -> None:
    """A child that sends an unreadable message is replaced; its call ends, and the next one runs."""
    with anyio.fail_after(PATIENCE):
        # It may have answered before it is killed.
        with suppress(ChildLost):
            assert await one.run(send_garbage, message) == "sent"
        assert await one.run(pid) > 0


@pytest.mark.parametrize("function", [close_everything, close_and_open])
async def test_the_channel_is_closed(one: Pool, function: Any) -> None:
    """A function that closes its child's descriptors returns its result, and another child runs the next call."""
    before = await one.run(pid)
    with anyio.fail_after(PATIENCE):
        assert await one.run(function) == "closed"
        assert await one.run(pid) != before


@pytest.mark.parametrize("what", ["alarm", "attention", "blocked", "ignored", "file size"])
async def test_the_next_call_finds_a_clean_process(one: Pool, what: str) -> None:
    """A call runs, is limited, and returns large values, whatever signals and limits the child's last call left."""
    before = await one.run(pid)
    assert await one.run(leave, what) == what
    assert len(await one.run(be_long)) == 200_000
    assert await one.run(leave, what) == what
    with pytest.raises(TimeLimitExceeded, match="soft"):
        await one.run(spin, timeout=PATIENCE, soft_timeout=0.2)
    assert await one.run(pid) == before


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(SystemExit, (3,)), (KeyboardInterrupt, ()), (GeneratorExit, ()), (StopIteration, (5,))],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_would_end_the_caller(one: Pool, kind: type[BaseException], arguments: tuple[Any, ...]) -> None:
    """An exception that would end a program is raised to the caller as `TaskFailed`, and the child lives on."""
    before = await one.run(pid)
    with pytest.raises(TaskFailed, match=kind.__name__):
        await one.run(end, kind, *arguments)
    assert await one.run(pid) == before
