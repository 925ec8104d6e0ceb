"""Entering and leaving a pool in two different tasks: cells of a notebook, setup and teardown of a fixture."""

import asyncio
from typing import Self

import anyio

from hybridpool.errors import PoolError


class OpenClose(anyio.AsyncContextManagerMixin):
    """Adds `open` and `close`, which may be called from different tasks, to an async context manager."""

    _open_task: asyncio.Task[None] | None = None
    _closing: asyncio.Event

    async def open(self) -> Self:
        """Enter the pool in its own task, for code that cannot use `async with`. `close` raises an error of the pool.

        :raises PoolError: if it is open already.
        """
        if self._open_task is not None:
            raise PoolError("the pool is open already")
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._open_task = asyncio.create_task(self._hold_open(opened))
        try:
            # Waiting for the task alone would cancel it when the cell that waits here is stopped.
            await asyncio.wait((opened, self._open_task), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self.close()
            raise
        if not opened.done():
            await self.close()
        return self

    async def close(self) -> None:
        """Close the pool, after the calls that were submitted. If it is not open, do nothing.

        :raises PoolError: if the pool has failed; its error.
        """
        open_task, self._open_task = self._open_task, None
        if open_task is not None:
            self._closing.set()
            await open_task

    async def _hold_open(self, opened: asyncio.Future[None]) -> None:
        async with self:
            opened.set_result(None)
            await self._closing.wait()
