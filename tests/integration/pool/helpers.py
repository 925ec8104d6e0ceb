"""Pools, gates at which children wait, journals in which they write."""

import os
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio

from hybridpool import Pool

#: seconds; a test that waits longer for anything has failed. Nothing is expected to take so long on a busy machine
PATIENCE = 60.0


class Gate:
    """Where children wait, and tell that they do."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._fds = []
        for suffix in (".entered", ".go"):
            os.mkfifo(self.path + suffix)
            # for reading and writing, so that opening does not wait for the other side
            self._fds.append(os.open(self.path + suffix, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        self._entered, self._go = self._fds
        self._text = ""

    async def came(self, number: int = 1) -> list[int]:
        """Wait until so many more have come; return their pids."""
        with anyio.fail_after(PATIENCE):
            while self._text.count("\n") < number:
                await anyio.wait_readable(self._entered)
                self._text += os.read(self._entered, 4096).decode()
        lines = self._text.splitlines()
        self._text = "".join(line + "\n" for line in lines[number:])
        return [int(line) for line in lines[:number]]

    def nobody(self) -> bool:
        """Tell whether no process has come since."""
        with suppress(BlockingIOError):
            self._text += os.read(self._entered, 4096).decode()
        return not self._text

    def let(self, number: int = 1) -> None:
        """Let so many through."""
        os.write(self._go, b"." * number)

    def close(self) -> None:
        """Close."""
        for fd in self._fds:
            os.close(fd)


class Journal:
    """A file to which children append lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.path = str(path)

    def lines(self) -> list[str]:
        """Return what stands there."""
        return self._path.read_text().splitlines() if self._path.exists() else []


@asynccontextmanager
async def open_pool(size: int, **options: Any) -> AsyncGenerator[Pool]:
    """Have a pool; a test in it that hangs has failed, and so has a pool that cannot be left.

    A call that is given up may take its time to stop, unless the test says how long.
    """
    options.setdefault("grace", PATIENCE)
    with anyio.fail_after(3 * PATIENCE):
        async with Pool(size, **options) as pool:
            yield pool


async def outcomes(calls: Sequence[Awaitable[Any]]) -> list[object]:
    """Wait for calls; return for each its value or what it raised."""
    found: list[object] = []
    for call in calls:
        try:
            with anyio.fail_after(PATIENCE):
                found.append(await call)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  # it is what the test wants to look at
            found.append(error)
    return found


async def waited(call: Awaitable[Any]) -> BaseException | None:
    """Wait for one call; return what it raised."""
    [found] = await outcomes([call])
    return found if isinstance(found, BaseException) else None


async def idle(pool: Pool, number: int) -> None:
    """Wait until the pool is nothing but so many idle children."""
    with anyio.fail_after(PATIENCE):
        while [child.state for child in pool.stats()] != ["idle"] * number:
            await anyio.lowlevel.checkpoint()
