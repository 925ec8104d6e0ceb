"""How many processes each lane has, and how many calls one of them runs at once."""

from collections.abc import Mapping

import attrs

from hybridpool._config.pool_names import apply_pool_name
from hybridpool._config.pool_range import pool_range
from hybridpool._config.sources import Resolved
from hybridpool._task import LaneName, TaskOptions, lane_of
from hybridpool.errors import ConfigError

_SHARED: tuple[LaneName, ...] = ("async", "thread")


@attrs.frozen(kw_only=True)
class LaneSize:
    """The size of one lane."""

    #: of the process lane, at the start
    processes: int
    #: calls that one process runs at once
    slots: int

    @property
    def calls(self) -> int:
        """Calls that run in the lane at once."""
        return self.processes * self.slots


def lane_sizes(resolved: Resolved, tasks: Mapping[str, TaskOptions]) -> dict[LaneName, LaneSize]:
    """Decide the size of each lane: of "process" always, of "async" and "thread" if a task runs there.

    The process lane has no children if the app has tasks, and none of them runs in it.

    :param tasks: those of the app, by name.
    :raises ConfigError: if a lane has more processes than calls, or a setting contradicts the pool's name.
    """
    resolved = apply_pool_name(resolved)
    used = {lane_of(task, resolved.settings.default_lane) for task in tasks.values()}
    children = pool_range(resolved).start if "process" in used or not used else 0
    sizes: dict[LaneName, LaneSize] = {"process": LaneSize(processes=children, slots=1)}
    for lane in _SHARED:
        size = _shared(resolved, lane)
        if lane in used:
            sizes[lane] = size
    return sizes


def _shared(resolved: Resolved, lane: LaneName) -> LaneSize:
    """Return the size of a lane whose processes run many calls; slots are rounded up."""
    of_calls, of_processes = f"worker_{lane}_concurrency", f"worker_{lane}_processes"
    calls: int = getattr(resolved.settings, of_calls)
    processes: int = getattr(resolved.settings, of_processes)
    if processes > calls:
        raise ConfigError(
            f"{of_processes} {processes} (from {resolved.source_of(of_processes)}) is above {of_calls} {calls} (from "
            f"{resolved.source_of(of_calls)}), and each process runs at least one call; lower the one or raise "
            "the other"
        )
    return LaneSize(processes=processes, slots=-(-calls // processes))
