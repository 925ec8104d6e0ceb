"""Publishing rates, each by a program that does nothing else.

    python -m tests.benchmarks.worker_publish "celery delay" 1000     prints calls per second

Run by the benchmark of workers, with its environment.
"""

import asyncio
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.benchmarks import worker_work as work
from tests.benchmarks.worker_bench import Bench, Trouble
from tests.benchmarks.worker_steady import Figures, Sizes
from tests.rabbit import wait_for

#: seconds
DEADLINE = 60.0
#: what a way returns that this version does not have
ABSENT = -1.0
#: calls before the clock runs, which make connections
WARM = 20


def _app(family: str) -> Any:
    return importlib.import_module(f"tests.benchmarks.worker_app_{family}")


def _blocking(call: Callable[[], object], count: int) -> float:
    for _ in range(WARM):
        call()
    begun = time.perf_counter()
    for _ in range(count):
        call()
    return count / (time.perf_counter() - begun)


async def _in_flight(call: Callable[[], Awaitable[object]], count: int, width: int) -> float:
    """Await so many calls, a certain number at a time."""

    async def one_after_another(share: int) -> None:
        for _ in range(share):
            await call()

    await one_after_another(WARM)
    begun = time.perf_counter()
    await asyncio.gather(*(one_after_another(count // width) for _ in range(width)))
    return count // width * width / (time.perf_counter() - begun)


# ---- ways ------------------------------------------------------------------------------------------------------------


async def ours_async(count: int, width: int) -> float:
    """`enqueue`."""
    app = _app("hybridpool").app
    async with app:
        return await _in_flight(app.tasks["noop"].enqueue, count, width)


async def ours_many(count: int) -> float:
    """`enqueue_many`, if there is one: a list of calls, each a tuple of arguments."""
    app = _app("hybridpool").app
    many = getattr(app.tasks["noop"], "enqueue_many", None)
    if many is None:
        return ABSENT
    async with app:
        await many([()] * WARM)
        begun = time.perf_counter()
        await many([()] * count)
        return count / (time.perf_counter() - begun)


def ours_sync(count: int) -> float:
    """`delay`."""
    app = _app("hybridpool").app
    try:
        return _blocking(app.tasks["noop"].delay, count)
    finally:
        app.close()


def ours_loose(count: int) -> float:
    """`delay` without waiting for the broker, until all of them are sent."""
    app = _app("hybridpool").app
    call = app.tasks["noop"].options(confirm=False)
    for _ in range(WARM):
        call.delay()
    begun = time.perf_counter()
    for _ in range(count):
        call.delay()
    app.close()
    return count / (time.perf_counter() - begun)


def celery(count: int) -> float:
    """`delay`, which does not wait for the broker's word."""
    return _blocking(_app("celery").app.tasks["noop"].delay, count)


def dramatiq(count: int) -> float:
    """`send`, which does not wait for the broker's word."""
    app = _app("dramatiq")
    try:
        return _blocking(app.actors["noop"].send, count)
    finally:
        app.broker.close()


async def taskiq(count: int, width: int) -> float:
    """`kiq`."""
    app = _app("taskiq")
    await app.broker.startup()
    try:
        return await _in_flight(app.tasks["noop"].kiq, count, width)
    finally:
        await app.broker.shutdown()


async def faststream(count: int, width: int) -> float:
    """`publish`."""
    app = _app("faststream")
    await app.broker.connect()
    try:
        queue = app.QUEUE
        await app.broker.declare_queue(queue)
        return await _in_flight(lambda: app.broker.publish(["noop"], queue=queue), count, width)
    finally:
        await app.broker.stop()


#: the first word is the system's name
WAYS: Mapping[str, Callable[[int], float]] = {
    "hybridpool enqueue, one by one": lambda count: asyncio.run(ours_async(count, 1)),
    "hybridpool enqueue, 100 at once": lambda count: asyncio.run(ours_async(count, 100)),
    "hybridpool enqueue_many": lambda count: asyncio.run(ours_many(count)),
    "hybridpool delay": ours_sync,
    "hybridpool delay, unconfirmed": ours_loose,
    "celery delay": celery,
    "dramatiq send": dramatiq,
    "taskiq kiq, one by one": lambda count: asyncio.run(taskiq(count, 1)),
    "taskiq kiq, 32 at once": lambda count: asyncio.run(taskiq(count, 32)),
    "faststream publish, one by one": lambda count: asyncio.run(faststream(count, 1)),
    "faststream publish, 32 at once": lambda count: asyncio.run(faststream(count, 32)),
}


# ---- from outside ----------------------------------------------------------------------------------------------------


def publish(bench: Bench, way: str, sizes: Sizes) -> Figures:
    """Calls that are published to a queue without a consumer, all of which must arrive: calls/s."""
    queue = bench.queue()
    words = [sys.executable, "-m", "tests.benchmarks.worker_publish", way, str(sizes.calls)]
    environment = {**bench.environment, work.QUEUE: queue}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if done.returncode:
        raise Trouble(f"failed: {done.stderr.strip().rpartition(chr(10))[2]}")
    rate = float(json.loads(done.stdout))
    if rate == ABSENT:
        raise Trouble("none: there is no such call yet")
    if not wait_for(lambda: bench.console.depth(queue) >= sizes.calls, 10):
        raise Trouble(f"{bench.console.depth(queue)} of {sizes.calls} arrived")
    return {"calls/s": rate}


if __name__ == "__main__":
    assert os.environ[work.QUEUE]
    print(json.dumps(WAYS[sys.argv[1]](int(sys.argv[2]))))
