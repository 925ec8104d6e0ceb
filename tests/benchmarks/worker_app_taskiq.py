"""The benchmark's tasks as taskiq's: short ones as coroutine functions, what keeps a CPU or waits as plain ones.

That is how its documentation has them: the first run on its loop, the others in its threads.
"""

import asyncio
import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

from tests.benchmarks import lanes_work
from tests.benchmarks import worker_work as work

# not by name: the tools that check this file do not have it
taskiq: Any = importlib.import_module("taskiq_aio_pika")

work.begin()
_QUEUE = taskiq.Queue(name=os.environ[work.QUEUE])
broker = taskiq.AioPikaBroker(
    os.environ[work.BROKER], qos=int(os.environ.get(work.PREFETCH, "10")), task_queues=[_QUEUE]
)


def on_loop(function: Callable[..., None]) -> Callable[..., Any]:
    """Make a coroutine function of it."""

    @functools.wraps(function)
    async def called(*args: Any) -> None:
        function(*args)

    return called


tasks: dict[str, Any] = {}
for _name in work.TASKS:
    _function = getattr(work, _name)
    tasks[_name] = broker.task(task_name=_name)(_function if _name in {"spin", "nap", "linger"} else on_loop(_function))
for _name, _waiting in lanes_work.COROUTINES.items():
    tasks[_name] = broker.task(task_name=_name)(_waiting)


def send(task: str, *args: object) -> None:
    """Send one call."""

    async def sent() -> None:
        await broker.startup()
        await tasks[task].kiq(*args)
        await broker.shutdown()

    asyncio.run(sent())
