"""Loads the app anew while the worker runs (`pool_restart`): new code, no gap.

A second zygote imports the app. If that fails, nothing has changed. Then each child is replaced by one of the new
zygote, one after the other: a child goes only when another one is ready in its place, and finishes its calls first.
Tasks that only the new code has are taken when the last child of the old one has ended. Settings are not read again.
"""

import logging
from collections.abc import Callable, Sequence

import anyio
import attrs
import msgspec

from hybridpool._ipc.frames import Imported
from hybridpool._lanes.supervised import SupervisedLanes
from hybridpool._task import TaskOptions, lane_of, tasks_from
from hybridpool._worker.bootstrap import Prepared
from hybridpool._worker.guest import read_guest
from hybridpool.errors import AppLoadError, PoolError

log = logging.getLogger(__name__)


class Renewal:
    """The loop that does it when it is asked for."""

    def __init__(self, lanes: SupervisedLanes, prepared: Prepared, on_renewed: Callable[[Prepared], None]) -> None:
        """:param on_renewed: called with what is known of the app when all children have its new code."""
        self._lanes = lanes
        self._prepared = prepared
        self._on_renewed = on_renewed
        self._wanted: tuple[str, ...] | None = None
        self._asked = anyio.Event()
        self._round = anyio.CancelScope()

    def ask(self, modules: Sequence[str] = ()) -> None:
        """Have the app loaded anew; if that is under way, once more.

        :param modules: to import besides.
        """
        self._wanted = tuple(modules)
        self._asked.set()
        self._round.cancel()

    async def run(self) -> None:
        """Load it whenever that is asked for, for ever."""
        while True:
            await self._asked.wait()
            self._asked, modules = anyio.Event(), self._wanted or ()
            with anyio.CancelScope() as self._round:
                await self._renew(modules)

    async def _renew(self, modules: tuple[str, ...]) -> None:
        log.info("Loading the app anew; children are replaced one after the other")
        try:
            imported = await self._lanes.renew(modules)
        except (AppLoadError, PoolError) as error:
            log.error("The app cannot be loaded anew, and the worker goes on with what it has: %s", error)
            return
        self._prepared = self._read(imported)
        self._on_renewed(self._prepared)
        log.info("All children have the app that was loaded anew")

    def _read(self, imported: Imported) -> Prepared:
        manifest = msgspec.json.decode(imported.manifest)
        found, settings = tasks_from(manifest["tasks"]), self._prepared.resolved.settings

        def has_lane(task: TaskOptions) -> bool:
            return lane_of(task, settings.default_lane) in self._prepared.lanes

        for task in found.values():
            if not has_lane(task):
                log.error("Task %s needs a lane that this worker was started without: restart the worker", task.name)
        tasks = {name: task for name, task in found.items() if has_lane(task)}
        return attrs.evolve(self._prepared, tasks=tasks, guest=read_guest(manifest))
