"""What a worker needs before it can run: the app imported in a zygote, its tasks, and the settings resolved."""

import socket
from collections.abc import Sequence

import attrs
import msgspec

from hybridpool import events
from hybridpool._config import Layer, PoolRange, Resolved, check_queues, layers_from, node_name, pool_range, resolve
from hybridpool._lanes.zygote_keeper import ZygoteKeeper
from hybridpool._task import TaskOptions, tasks_from


@attrs.frozen(kw_only=True)
class Prepared:
    """An imported app, and how the worker is to run it."""

    zygote: ZygoteKeeper
    app: str
    node: str
    resolved: Resolved
    range: PoolRange
    tasks: dict[str, TaskOptions]
    #: names of threads that the app's import left running; a child has none of them, as a fork copies only one thread
    threads: tuple[str, ...]


async def prepare(app: str, layers: Sequence[Layer], bus: events.Bus) -> Prepared:
    """Import the app in a zygote, and resolve the settings: `layers` over the app's own.

    :raises AppLoadError: if the app cannot be imported.
    :raises ConfigError: if settings do not fit together.
    """
    keeper = ZygoteKeeper(app, resolve(layers).settings.imports, bus)
    imported = await keeper.start()
    try:
        manifest = msgspec.json.decode(imported.manifest)
        resolved = resolve([*layers, *layers_from(manifest["settings"])])
        check_queues(resolved)
        return Prepared(
            zygote=keeper,
            app=manifest["app"],
            node=node_name(resolved.settings.worker_hostname, socket.gethostname()),
            resolved=resolved,
            range=pool_range(resolved),
            tasks=tasks_from(manifest["tasks"]),
            threads=imported.threads,
        )
    except BaseException:
        await keeper.close()
        raise
