"""Entering and leaving by two different tasks: two cells of a notebook, the two halves of a fixture."""

import asyncio
from typing import Self

import anyio

from hybridpool.errors import PoolError


class OpenedInParts(anyio.AsyncContextManagerMixin):
    """What is entered by `async with` can also be opened, and closed later from any task."""

    _keeper: asyncio.Task[None] | None = None
    _closing: asyncio.Event

    async def open(self) -> Self:
        """Enter it in a task of its own, for where `async with` cannot be. Whatever ends the pool, `close` raises.

        :raises PoolError: if it is open already.
        """
        if self._keeper is not None:
            raise PoolError("the pool is open already")
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep(opened))
        try:
            # Not the keeper alone: it would end with the cell that is stopped while it waits here.
            await asyncio.wait((opened, self._keeper), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self.close()
            raise
        if not opened.done():
            await self.close()
        return self

    async def close(self) -> None:
        """Leave what was opened, after the calls that were submitted. What is not open is left alone.

        :raises PoolError: what ended the pool, if something did.
        """
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            self._closing.set()
            await keeper

    async def _keep(self, opened: asyncio.Future[None]) -> None:
        async with self:
            opened.set_result(None)
            await self._closing.wait()
