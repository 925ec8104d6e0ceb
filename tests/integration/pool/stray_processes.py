"""Processes that tasks start and leave, each kind harder to end with its child than the one before."""

import os
import subprocess
import sys

import anyio

from hybridpool import Pool
from tests.integration.pool import functions

#: the ways to start a process
KINDS = ("own session", "daemon", "line of sessions")


def start(kind: str) -> list[int]:
    """Start what outlives the call, outside of the child's process group; return the pids."""
    match kind:
        case "own session":
            return [subprocess.Popen(["sleep", "3600"], stdin=subprocess.DEVNULL, start_new_session=True).pid]
        case "daemon":
            return [_daemon()]
        case _:
            words = ["sh", "-c", "setsid sleep 3600 & echo $!; wait"]
            shell = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
            assert shell.stdout is not None
            return [shell.pid, int(shell.stdout.readline())]


def _daemon() -> int:
    """Start a process as daemons do: its parent is gone, and so is the session that it came from."""
    told, tell = os.pipe()
    between = os.fork()
    if not between:
        os.setsid()
        daemon = os.fork()
        if daemon:
            os.write(tell, str(daemon).encode())
            os._exit(0)
        os.execvp("sleep", ["sleep", "3600"])
    os.waitpid(between, 0)
    os.close(tell)
    with os.fdopen(told) as pipe:
        return int(pipe.read())


def start_and_stay(kind: str, journal: str, gate: str, own: int = 0) -> int:
    """Leave a line about this process and all that it has started, and wait to be let, whatever is raised."""
    functions.keep(own)
    functions.tell(journal, f"{os.getpid()} {' '.join(map(str, start(kind)))}\n")
    while True:
        try:
            functions.pass_through(gate)
        except BaseException:  # noqa: BLE001  # it is deaf
            continue
        return os.getpid()


def by_a_pool(number: int) -> list[int]:
    """Have a pool of one's own."""

    async def use() -> list[int]:
        async with Pool(2) as pool:
            return [value async for value in pool.map(functions.square, range(number))]

    return anyio.run(use)


async def _tell_and_wait(kind: str) -> None:
    async with Pool(2) as pool:
        await pool.resize(2)
        print(*await pool.run(start, kind), flush=True)  # noqa: T201
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(_tell_and_wait, sys.argv[1])
