"""How many CPUs this process may use: the machine's number is wrong in a container and under `taskset`.

`usable` decides from readings and is pure. `usable_cpus` takes the readings: the scheduler's affinity mask, and the CPU
quota of every cgroup (version 1 or 2) from this process's own up to the root, since the tightest of them counts.
A reading that is not available is left out.
"""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hybridpool._config import cgroup


def usable(affinity: int, quotas: Iterable[float]) -> int:
    """Return how many children can run at once: the smallest reading, rounded up, at least 1.

    :param affinity: CPUs in the affinity mask.
    :param quotas: CPUs that cgroups allow, as fractions (0.5: half of one CPU's time).
    """
    return max(1, min([affinity, *map(math.ceil, quotas)]))


def quota_of(limit: str, period: str) -> float | None:
    """Read a cgroup's CPU quota, in CPUs; both values are µs. None if there is no limit (`max`, or -1 in version 1)."""
    try:
        allowed, every = int(limit), int(period)
    except ValueError:
        return None
    return allowed / every if allowed > 0 and every > 0 else None


def usable_cpus(root: Path = Path("/")) -> int:
    """Count the CPUs that this process may use.

    :param root: where /proc and /sys are.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return usable(affinity, _quotas(root))


def _quotas(root: Path) -> Iterator[float]:
    for version, folder in cgroup.folders("cpu", root):
        if version == 2:
            limit, _, period = cgroup.read(folder / "cpu.max").partition(" ")
        else:
            limit, period = cgroup.read(folder / "cpu.cfs_quota_us"), cgroup.read(folder / "cpu.cfs_period_us")
        quota = quota_of(limit, period)
        if quota is not None:
            yield quota
