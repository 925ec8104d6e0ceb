"""Kills a child that owns too much memory in the middle of a task; retiring after one is `policy.recycle`'s part."""

from functools import partial
from typing import Final

import anyio

from hybridpool._daemon_threads import run_in_daemon_thread
from hybridpool._lanes.prefork import memory_readings
from hybridpool._lanes.prefork.lane import ProcessLane
from hybridpool._outcome import Lost

#: seconds between looks while a call is at work. What a child can take in that time it may be over its limit
_PERIOD: Final = 0.1
_MIB: Final = 1024 * 1024


async def watch_memory(lane: ProcessLane, limit: int) -> None:
    """Watch for ever.

    :param limit: bytes a child may own alone.
    """
    while True:
        at_work = {
            child.pid: (child, child.in_hand[0][0]) for child in lane.dispatcher.busy if child.pid and child.in_hand
        }
        if not at_work:
            await lane.dispatcher.begun.wait()
        else:
            owned = await run_in_daemon_thread(partial(memory_readings.owned, list(at_work), above=limit))
            for pid, size in owned.items():
                if size > limit:
                    child, seq = at_work[pid]
                    cause = f"memory: it owned {size / _MIB:.0f} MiB, over its limit of {limit / _MIB:.0f} MiB"
                    lane.watchdog.end(child, seq, Lost(cause, child.name, peak=size))
        await anyio.sleep(_PERIOD)
