"""Kills a child that owns too much memory in the middle of a task; `policy.recycle` decides on retiring after one."""

from functools import partial
from typing import Final

import anyio

from hybridpool._daemon_threads import run_in_daemon_thread
from hybridpool._lanes.prefork import memory_readings
from hybridpool._lanes.prefork.lane import PreforkLane
from hybridpool._outcome import Lost

#: seconds between readings while a call runs. A child may be over its limit by what it can allocate in that time
PERIOD_S: Final = 0.1
_MIB: Final = 1024 * 1024


async def watch_memory(lane: PreforkLane, limit: int) -> None:
    """Watch for ever.

    :param limit: bytes a child may own alone.
    """
    while True:
        running = {
            child.pid: (child.name, child.current.number)
            for child in lane.snapshot().children
            if child.pid and child.current is not None
        }
        if not running:
            await lane.wait_calls_given()
        else:
            owned = await run_in_daemon_thread(partial(memory_readings.owned, list(running), above=limit))
            for pid, size in owned.items():
                if size > limit:
                    child, number = running[pid]
                    cause = f"memory: it owned {size / _MIB:.0f} MiB, over its limit of {limit / _MIB:.0f} MiB"
                    lane.kill_for(child, number, Lost(cause, child, peak=size))
        await anyio.sleep(PERIOD_S)
