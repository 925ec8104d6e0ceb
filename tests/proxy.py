"""A TCP proxy between a client and a broker, which does to connections what networks do to them.

`cut` resets them, `stall` makes their packets vanish while both ends believe in the connection, `delay` makes each
packet late, `refuse` accepts no more connections, `byte_filter` decides what goes on (`tests.frame_breakpoints`).
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio

CHUNK = 65536


class Connection:
    """One connection through the proxy."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.ends = (near, far)
        #: its packets vanish, also the one that closes it
        self.is_dead = False

    def cut(self) -> None:
        """Reset both halves."""
        for end in self.ends:
            end.transport.abort()


#: told the connection, whether the bytes are on their way to the broker, and the bytes; returns those that go on
ByteFilter = Callable[[Connection, bool, bytes], bytes]


class Proxy:
    """Listens on a port of its own while it is entered."""

    def __init__(self, target: int, byte_filter: ByteFilter = lambda connection, outward, data: data) -> None:
        """:param target: the port of 127.0.0.1 that it leads to."""
        self.port = 0
        self._filter = byte_filter
        #: seconds that each packet takes, either way
        self.delay = 0.0
        #: in the order in which they came, also those that are over
        self.connections: list[Connection] = []
        self._target = target
        self._is_stalled = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, family=socket.AF_INET)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.refuse()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)

    def stall(self) -> None:
        """From now on the packets of every connection vanish, and those of new ones until `resume`."""
        self._is_stalled = True
        for connection in self.connections:
            connection.is_dead = True

    def resume(self) -> None:
        """Let new connections through; those that were stalled stay dead."""
        self._is_stalled = False

    def cut(self) -> None:
        """Reset every connection."""
        for connection in self.connections:
            connection.cut()

    def refuse(self) -> None:
        """Take no more connections, for good."""
        if self._server is not None:
            self._server.close()

    async def _accept(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        far_in, far_out = await asyncio.open_connection("127.0.0.1", self._target)
        connection = Connection(near_out, far_out)
        connection.is_dead = self._is_stalled
        self.connections.append(connection)
        # asyncio's server prints a traceback for a cancelled connection: the way in which ours end at the latest
        with suppress(asyncio.CancelledError):
            await self._connect(connection, near_in, far_in)

    async def _connect(
        self, connection: Connection, near_in: asyncio.StreamReader, far_in: asyncio.StreamReader
    ) -> None:
        near_out, far_out = connection.ends
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._carry, connection, near_in, far_out, True)
                group.start_soon(self._carry, connection, far_in, near_out, False)
        except* (OSError, RuntimeError):
            pass  # an end is gone; uvloop says the latter
        finally:
            connection.cut()

    async def _carry(
        self, connection: Connection, source: asyncio.StreamReader, target: asyncio.StreamWriter, outward: bool
    ) -> None:
        try:
            while data := await source.read(CHUNK):
                if self.delay:
                    await anyio.sleep(self.delay)
                if not connection.is_dead and (kept := self._filter(connection, outward, data)):
                    target.write(kept)
                    await target.drain()
        except OSError:
            if not connection.is_dead:
                raise
        if connection.is_dead:
            # nor does the other end hear that this one is gone
            await anyio.sleep_forever()
        target.write_eof()
