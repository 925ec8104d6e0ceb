"""Kills a child that owns too much memory in the middle of a task; retiring after one is `policy.recycle`'s part."""

from functools import partial
from typing import Final

import anyio

from hybridpool.daemon_threads import run_in_daemon_thread
from hybridpool.lanes.process import ProcessLane
from hybridpool.outcome import Lost
from hybridpool.supervisors import scales

#: seconds between looks while a call is at work. What a child can take in that time it may be over its limit
_PERIOD: Final = 0.1
_MIB: Final = 1024 * 1024


async def watch_memory(lane: ProcessLane, limit: int) -> None:
    """Watch for ever.

    :param limit: bytes a child may own alone.
    """
    while True:
        at_work = {link.pid: (link, link.in_hand[0][0]) for link in lane.desk.busy if link.pid and link.in_hand}
        if not at_work:
            await lane.desk.begun.wait()
        else:
            owned = await run_in_daemon_thread(partial(scales.owned, list(at_work), above=limit))
            for pid, size in owned.items():
                if size > limit:
                    link, seq = at_work[pid]
                    cause = f"memory: it owned {size / _MIB:.0f} MiB, over its limit of {limit / _MIB:.0f} MiB"
                    lane.warden.end(link, seq, Lost(cause, link.name, peak=size))
        await anyio.sleep(_PERIOD)
