"""What a worker needs before it can run: the app imported in a zygote, its tasks, and the settings resolved."""

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from hybridpool import events
from hybridpool._config import (
    LaneSize,
    Layer,
    PoolRange,
    Resolved,
    apply_pool_name,
    check_queues,
    file_name,
    lane_sizes,
    layers_from,
    logging_config,
    node_name,
    pool_range,
    resolve,
)
from hybridpool._lanes.zygote_keeper import ZygoteKeeper
from hybridpool._task import LaneName, TaskOptions, tasks_from
from hybridpool._worker.guest import Guest, check_guest, read_guest, with_direct_queue, with_queues
from hybridpool.errors import ConfigError


@attrs.frozen(kw_only=True)
class Prepared:
    """An imported app, and how the worker is to run it."""

    zygote: ZygoteKeeper
    app: str
    node: str
    #: with what the name of the pool implies
    resolved: Resolved
    range: PoolRange
    #: the lanes that have tasks, and the process lane
    lanes: Mapping[LaneName, LaneSize]
    tasks: dict[str, TaskOptions]
    #: names of threads that the app's import left running; a child has none of them, as a fork copies only one thread
    threads: tuple[str, ...]
    #: for `logging.config.dictConfig`
    logging: dict[str, Any] | None = None
    #: an app of another library; None: one of ours
    guest: Guest | None = None

    def file_name(self, pattern: str | None) -> str | None:
        """Expand %n and %h in a file's name, as Celery does."""
        return None if pattern is None else file_name(pattern, self.node, socket.gethostname())


async def prepare(
    app: str,
    layers: Sequence[Layer],
    bus: events.Bus,
    *,
    guests: Sequence[Layer] = (),
    refusal: ConfigError | None = None,
) -> Prepared:
    """Import the app in a zygote, and resolve the settings: `layers` over the app's own.

    :param guests: layers between these, for an app of another library only.
    :param refusal: why an app of ours cannot be run.
    :raises AppLoadError: if the app cannot be imported.
    :raises ConfigError: if settings do not fit together.
    """
    keeper = ZygoteKeeper(app, resolve(layers).settings.imports, bus)
    imported = await keeper.start()
    try:
        manifest = msgspec.json.decode(imported.manifest)
        guest = read_guest(manifest)
        if guest is None and refusal is not None:
            raise refusal
        between = guests if guest is not None else ()
        resolved = apply_pool_name(resolve([*layers, *between, *layers_from(manifest["settings"])]))
        node = node_name(resolved.settings.worker_hostname, socket.gethostname())
        tasks = tasks_from(manifest["tasks"])
        check_queues(resolved)
        lanes = lane_sizes(resolved, tasks)
        if guest is not None:
            guest, direct = with_direct_queue(with_queues(guest, resolved.settings.queues), node)
            resolved = _consuming(resolved, direct)
            check_guest(guest, resolved, lanes)
        return Prepared(
            zygote=keeper,
            app=manifest["app"],
            node=node,
            resolved=_with_file_names(resolved, node),
            range=pool_range(resolved),
            lanes=lanes,
            tasks=tasks,
            threads=imported.threads,
            logging=logging_config(resolved),
            guest=guest,
        )
    except BaseException:
        await keeper.close()
        raise


def _consuming(resolved: Resolved, queue: str | None) -> Resolved:
    """Consume one more queue."""
    if queue is None:
        return resolved
    settings = attrs.evolve(resolved.settings, worker_queues=(*resolved.settings.queues, queue))
    return attrs.evolve(resolved, settings=settings)


def _with_file_names(resolved: Resolved, node: str) -> Resolved:
    settings, host = resolved.settings, socket.gethostname()
    log, state = (
        pattern and file_name(pattern, node, host) for pattern in (settings.worker_logfile, settings.worker_state_db)
    )
    return attrs.evolve(resolved, settings=attrs.evolve(settings, worker_logfile=log, worker_state_db=state))
