"""The start-up banner, in the layout of Celery's."""

import platform
import time

from hybridpool import __version__
from hybridpool._child.printable import one_line
from hybridpool._config import masked
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
-- ******* ---- .> task events: OFF
--- ***** -----
 -------------- [queues]
{queues}

[tasks]
{tasks}

"""


def banner(prepared: Prepared, queues: tuple[str, ...]) -> str:
    """Return the banner. It never contains a password, nor a control character from a name."""
    settings, sizes = prepared.resolved.settings, prepared.range
    size = f"{sizes.start}" if sizes.floor == sizes.ceiling else f"{{min={sizes.floor}, max={sizes.ceiling}}}"
    return _LAYOUT.format(
        node=one_line(prepared.node),
        version=__version__,
        system=platform.platform(),
        now=time.strftime("%Y-%m-%d %H:%M:%S"),
        app=one_line(prepared.app),
        transport=masked(settings.broker_url),
        results=masked(settings.result_backend) if settings.result_backend else "disabled://",
        concurrency=f"{size} ({settings.worker_pool}): {sizes.why}",
        queues="\n".join(
            f"                .> {queue:<16} exchange=(default) key={queue}" for queue in map(one_line, queues)
        ),
        tasks="\n".join(f"  . {one_line(name)}" for name in sorted(prepared.tasks)),
    )
