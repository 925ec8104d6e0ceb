"""Has another library's app mark tasks as revoked in its result backend at once: their messages may come much later."""

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

import anyio

from hybridpool._ipc.envelope import MARK_REVOKED
from hybridpool._policy.fallback import NotFinished
from hybridpool._protocol.remote_control import MAX_IDS
from hybridpool._worker.finisher import Finisher

log = logging.getLogger(__name__)
#: ids that the child is given in one call, so that other calls of it come between
_AT_ONCE: Final = 1000


class AppRevocations:
    """Ids that the app has still to mark, and the loop that has it do so."""

    def __init__(self, finisher: Finisher, running: Callable[[], Collection[str]]) -> None:
        """:param running: returns the ids of the tasks that run here: how they end is recorded when they end."""
        self._finisher = finisher
        self._running = running
        self._ids: dict[str, None] = {}
        self._added = anyio.Event()
        #: set when what was added is marked, or cannot be
        self._marked = anyio.Event()

    def add(self, ids: Iterable[str]) -> anyio.Event:
        """Add ids that have been revoked; beyond a bound they are marked when their messages come.

        :returns: what is set when they are marked, or cannot be.
        """
        for task_id in ids:
            if len(self._ids) < MAX_IDS:
                self._ids[task_id] = None
        self._added.set()
        return self._marked

    async def run(self) -> None:
        """Have them marked, for ever."""
        while True:
            await self._added.wait()
            self._added = anyio.Event()
            marked, self._marked = self._marked, anyio.Event()
            running = frozenset(self._running())
            ids, self._ids = [one for one in self._ids if one not in running], {}
            for start in range(0, len(ids), _AT_ONCE):
                try:
                    await self._finisher.command(MARK_REVOKED, {"ids": ids[start : start + _AT_ONCE]})
                except NotFinished as error:
                    log.warning("revoked tasks are not marked before their messages come: %s", error)
                    break
            marked.set()
