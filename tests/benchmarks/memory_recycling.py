"""How many children it takes if the app's resident size is above the memory limit, while its tasks take nothing."""

import importlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from tests.benchmarks import memory_work as work

STAGE = "recycling"
TASKS = 60
MIB = 1024 * 1024
LIMIT = 60 * MIB
#: seconds after which a pool has had time enough
ENOUGH = 45.0
#: figures by name
Figures = dict[str, float]


async def ours() -> Figures:
    """Measure a Pool, which limits what a child owns alone."""
    from hybridpool import Pool

    async with Pool(1, max_memory_per_child=LIMIT, preload=[*work.BALLAST_APP, work.__name__]) as pool:
        return _figures([await pool.run(work.little, number) for number in range(TASKS)])


async def billiards() -> Figures:
    """Measure billiard's pool, which is Celery's and limits the high-water mark of resident size."""
    for name in work.BALLAST_APP:
        importlib.import_module(name)
    found: list[tuple[int, work.Pages]] = []
    until = time.monotonic() + ENOUGH
    pool = importlib.import_module("billiard.pool").Pool(1, max_memory_per_child=LIMIT // 1024)
    while len(found) < TASKS and time.monotonic() < until:
        found.append(pool.apply_async(work.little, (len(found),)).get(ENOUGH))
    return _figures(found)


def _figures(found: Sequence[tuple[int, work.Pages]]) -> Figures:
    return {
        "children": len({pid for pid, _ in found}),
        "tasks done": len(found),
        "MiB resident in a child": max(pages.resident for _, pages in found) / MIB,
        "MiB its own": max(pages.private for _, pages in found) / MIB,
    }


POOLS: Mapping[str, Callable[[], Awaitable[Figures]]] = {"hybridpool": ours, "billiard": billiards}
