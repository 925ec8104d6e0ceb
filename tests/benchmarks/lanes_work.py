"""What waiting tasks of the benchmarks do, as coroutine functions; `linger` of worker_work is the plain one."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from tests.benchmarks import worker_work as work

#: in the environment: the lane whose tasks our app has, or "mixed" for two; lanes without tasks have no child
LANE = "BENCH_LANE"
#: in the environment: the queue of the coroutines, if that is not the one of all tasks
ASIDE = "BENCH_ASIDE"
#: seconds after which a call of `outstay`, `outlast` or `hold` is ended
LIMIT = 2.0


async def nothing() -> None:
    """Do nothing: what is left is the system's own cost."""
    work.count()


async def rest(sent: float, seconds: float) -> None:
    """Write down that it has started, and wait."""
    work.write_mark(sent)
    await asyncio.sleep(seconds)
    work.count()


async def outstay(sent: float, limit: float) -> None:
    """Wait beyond a limit; write down when that should have ended it, and when it did."""
    end = time.time() + limit
    try:
        await asyncio.sleep(10 * limit)
    except BaseException:
        work.write_mark(end)
        work.count()
        raise


async def hold(sent: float, limit: float) -> None:
    """Hold the loop beyond a limit; write down when that should have ended it, and when it did."""
    end = time.time() + limit
    try:
        while time.time() < end + 5 * limit:
            continue
    except BaseException:
        work.write_mark(end)
        work.count()
        raise


COROUTINES: Mapping[str, Callable[..., Coroutine[Any, Any, None]]] = {
    function.__name__: function for function in (nothing, rest, outstay, hold)
}
