"""Keeps a zygote alive: the first one is waited for, one that dies is replaced."""

import asyncio
import os
import random
import signal
from collections.abc import Sequence
from typing import Final, Protocol

import anyio

from hybridpool import events
from hybridpool._child import process_isolation
from hybridpool._ipc.frames import Imported
from hybridpool._lanes.children.registry import Forks
from hybridpool._policy import backoff
from hybridpool._zygote.client import News, Zygote
from hybridpool.errors import AppLoadError, PoolClosed, PoolError

#: seconds a zygote must last for its start to count as a success
MIN_LIFE_S: Final = 5.0


class UsesZygote(Protocol):
    """What forks children from a zygote: a lane, or several."""

    def use_zygote(self, zygote: Forks) -> None: ...
    def lose_zygote(self, cause: str) -> list[int]: ...
    def hear_zygote(self, news: News) -> object: ...


class ZygoteKeeper:
    """The zygote of one app, whichever process it is at the moment."""

    def __init__(self, app: str, imports: tuple[str, ...], bus: events.Bus) -> None:
        self._app = app
        self._imports = imports
        self._bus = bus
        self._lane: UsesZygote | None = None
        self._zygote: Zygote | None = None
        self._lost: asyncio.Future[str] | None = None

    async def start(self) -> Imported:
        """Start a zygote and wait until it has the app.

        :raises AppLoadError: if the app cannot be imported.
        """
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def on_lost(cause: str) -> None:
            # The task that waited for it may have been cancelled in this very turn, because the pool is being left.
            if not lost.done():
                lost.set_result(cause)

        self._lost = lost
        self._zygote = Zygote(self._news, on_lost)
        return await self._zygote.start(self._app, self._imports)

    @property
    def has_app(self) -> bool:
        """Children run tasks of an app; without one, functions of the parent's modules."""
        return bool(self._app)

    def share_folders(self, folders: Sequence[str]) -> None:
        """Let children know where modules are found by now."""
        if self._zygote is not None:
            self._zygote.share_folders(folders)

    @property
    def pid(self) -> int:
        """The process id of the present one."""
        if self._zygote is None:
            raise PoolClosed("there is no zygote yet")
        return self._zygote.pid

    async def keep(self, lane: UsesZygote) -> None:
        """Serve lanes for ever; `start` has been called."""
        self._lane = lane
        attempt = 0
        while self._lost is not None and self._zygote is not None:
            lane.use_zygote(self._zygote)
            began = anyio.current_time()
            cause = await self._lost
            attempt = backoff.next_attempt(attempt, lasted=anyio.current_time() - began, settled_after=MIN_LIFE_S)
            self._bus.emit(events.ZygoteLost(cause))
            pids = lane.lose_zygote(cause)
            for pid in pids:
                _kill_what_is_left(pid)
            process_isolation.kill_descendants(pids)
            if attempt > 1:
                await anyio.sleep(_pause(attempt - 1))
            await self._revive()

    async def close(self) -> None:
        """End the zygote, and with it the children that are left."""
        if self._zygote is not None:
            await self._zygote.close()

    async def _revive(self) -> None:
        attempt = 0
        while True:
            try:
                await self.start()
            except (AppLoadError, PoolError) as error:
                attempt += 1
                wait = _pause(attempt)
                self._bus.emit(events.ChildStartFailed("zygote", str(error), wait))
                await anyio.sleep(wait)
            else:
                return

    def _news(self, news: News) -> None:
        if self._lane is not None:
            self._lane.hear_zygote(news)


def _kill_what_is_left(group: int) -> None:
    """Kill what tasks of a dead child had started; the child itself the kernel has killed with the zygote."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Nothing was left, or the number belongs to another process by now.
        return


def _pause(attempt: int) -> float:
    return backoff.delay(attempt, first=0.5, factor=2.0, limit=30.0, jitter=random.random())
