"""Keeps a zygote alive: the first one is waited for, one that dies is replaced, and the app can be loaded anew.

Then another zygote imports it, while the first one's children work. Children are forked from the new one from then on,
and the old one is kept until its last child has ended.
"""

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
    def lose_zygote(self, zygote: Forks, cause: str) -> list[int]: ...
    def hear_zygote(self, news: News) -> object: ...


class ZygoteKeeper:
    """The zygote of one app, whichever process it is at the moment."""

    def __init__(self, app: str, imports: tuple[str, ...], bus: events.Bus) -> None:
        self._app = app
        self._imports = imports
        self._bus = bus
        self._lane: UsesZygote | None = None
        self._zygote: Zygote | None = None
        #: others whose children have not all ended
        self._renewed: list[Zygote] = []
        #: zygotes that died on their own, and the causes
        self._losses: asyncio.Queue[tuple[Zygote, str]] = asyncio.Queue()

    async def start(self) -> Imported:
        """Start a zygote and wait until it has the app.

        :raises AppLoadError: if the app cannot be imported.
        """
        self._zygote, imported = await self._started(self._imports)
        return imported

    async def _started(self, imports: tuple[str, ...]) -> tuple[Zygote, Imported]:
        def on_lost(cause: str) -> None:
            self._losses.put_nowait((zygote, cause))

        zygote = Zygote(self._news, on_lost)
        return zygote, await zygote.start(self._app, imports)

    @property
    def has_app(self) -> bool:
        """Children run tasks of an app; without one, functions of the parent's modules."""
        return bool(self._app)

    def share_folders(self, folders: Sequence[str]) -> None:
        """Let children know where modules are found by now."""
        for zygote in self._all():
            zygote.share_folders(folders)

    def _all(self) -> list[Zygote]:
        return [*self._renewed, self._zygote] if self._zygote is not None else list(self._renewed)

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
        if self._zygote is None:
            raise PoolClosed("there is no zygote yet")
        lane.use_zygote(self._zygote)
        began = anyio.current_time()
        while True:
            zygote, cause = await self._losses.get()
            self._bus.emit(events.ZygoteLost(cause))
            pids = lane.lose_zygote(zygote, cause)
            for pid in pids:
                _kill_what_is_left(pid)
            process_isolation.kill_descendants(pids)
            if zygote is not self._zygote:
                continue
            attempt = backoff.next_attempt(attempt, lasted=anyio.current_time() - began, settled_after=MIN_LIFE_S)
            if attempt > 1:
                await anyio.sleep(_pause(attempt - 1))
            await self._revive(zygote)
            lane.use_zygote(self._zygote)
            began = anyio.current_time()

    async def renew(self, imports: Sequence[str] = ()) -> Imported:
        """Load the app anew, in another zygote, from which children are forked then.

        :param imports: further modules to import.
        :raises AppLoadError: if the app cannot be imported; nothing has changed then.
        :raises PoolError: if no process can be started; likewise.
        """
        zygote, imported = await self._started((*self._imports, *imports))
        if self._zygote is not None:
            self._renewed.append(self._zygote)
        self._zygote = zygote
        if self._lane is not None:
            self._lane.use_zygote(zygote)
        return imported

    def renewed(self) -> list[Zygote]:
        """Return those that another one has replaced."""
        return list(self._renewed)

    async def drop(self, zygote: Zygote) -> None:
        """End one of them: it has no children any more."""
        await zygote.close()
        if zygote in self._renewed:
            self._renewed.remove(zygote)

    async def close(self) -> None:
        """End the zygotes, and with them the children that are left."""
        for zygote in self._all():
            await zygote.close()

    async def _revive(self, lost: Zygote) -> None:
        attempt = 0
        # unless the app was loaded anew meanwhile
        while self._zygote is lost:
            try:
                zygote, _ = await self._started(self._imports)
            except (AppLoadError, PoolError) as error:
                attempt += 1
                wait = _pause(attempt)
                self._bus.emit(events.ChildStartFailed("zygote", str(error), wait))
                await anyio.sleep(wait)
            else:
                if self._zygote is lost:
                    self._zygote = zygote
                else:
                    await zygote.close()

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
