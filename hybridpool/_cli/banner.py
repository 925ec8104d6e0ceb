"""The start-up banner, in the layout of Celery's."""

import platform
import time

from hybridpool import __version__
from hybridpool._child.printable import one_line
from hybridpool._config import Settings, masked
from hybridpool._task import LaneName, lane_of
from hybridpool._worker.bootstrap import Prepared

_LAYOUT = """
 -------------- {node} v{version} (hybridpool)
--- ***** -----
-- ******* ---- {system} {now}
- *** --- * ---
- ** ---------- [config]
- ** ---------- .> app:         {app}
- ** ---------- .> transport:   {transport}
- ** ---------- .> results:     {results}
- *** --- * --- .> concurrency: {concurrency}
- *** --- * --- .> prefetch:    {prefetch}
-- ******* ---- .> task events: {task_events}
--- ***** -----
 -------------- [queues]
{queues}

[tasks]
{tasks}

"""


def banner(prepared: Prepared, queues: tuple[str, ...]) -> str:
    """Return the banner. It never contains a password, nor a control character from a name."""
    settings = prepared.resolved.settings
    return _LAYOUT.format(
        node=one_line(prepared.node),
        version=__version__,
        system=platform.platform(),
        now=time.strftime("%Y-%m-%d %H:%M:%S"),
        app=one_line(prepared.app),
        transport=masked(settings.broker_url),
        results=_results(prepared),
        concurrency=_concurrency(prepared),
        prefetch=_prefetch(settings),
        task_events="ON" if settings.worker_send_task_events else "OFF (enable -E to monitor tasks in this worker)",
        queues="\n".join(
            f"                .> {queue:<16} exchange=(default) key={queue}" for queue in map(one_line, queues)
        ),
        tasks="\n".join(
            f"  . {one_line(name)}{_beside(lane_of(prepared.tasks[name], settings.default_lane))}"
            for name in sorted(prepared.tasks)
        ),
    )


def _concurrency(prepared: Prepared) -> str:
    """Say how many calls run at once, by lane; why so many, if there is only the process lane."""
    sizes, lanes = prepared.range, prepared.lanes
    size = f"{sizes.start}" if sizes.is_fixed else f"{{min={sizes.floor}, max={sizes.ceiling}}}"
    if len(lanes) == 1:
        return f"{size} (prefork): {sizes.why}"
    parts = [f"{size} (prefork)"] if lanes["process"].processes else []
    for lane in ("async", "thread"):
        if lane in lanes:
            count = lanes[lane].processes
            parts.append(f"{lanes[lane].calls} ({lane}, {count} {'process' if count == 1 else 'processes'})")
    return ", ".join(parts)


def _results(prepared: Prepared) -> str:
    if prepared.guest is not None:
        return one_line(prepared.guest.results)
    backend = prepared.resolved.settings.result_backend
    return masked(backend) if backend else "disabled://"


def _beside(lane: LaneName) -> str:
    return "" if lane == "process" else f" ({lane})"


def _prefetch(settings: Settings) -> str:
    multiplier = settings.worker_prefetch_multiplier
    if settings.worker_disable_prefetch:
        return "only what can start now"
    if multiplier == "auto":
        return "auto: by how long tasks take"
    return f"{multiplier} per child" if multiplier else "no limit"
