"""All pools that are compared; here those that an event loop can wait for, ours first."""

import asyncio
import importlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import anyio
import anyio.to_process

from hybridpool._pool import Pool
from tests.benchmarks import pool_blocking as blocking
from tests.benchmarks import pool_work
from tests.benchmarks.pool_peer import WHOLE, Note, Peer


class Ours(Peer):
    """`pool.map`."""

    name = "hybridpool map"
    # the first call that fails ends a map, so a crash is measured with `submit`
    measures = WHOLE - {"crash"}

    async def open(self, children: int, recycle: int | None, preload: Sequence[str]) -> None:
        self.pool = Pool(children, max_tasks_per_child=recycle, preload=preload)
        await self.pool.__aenter__()

    async def once(self, function: Callable[[Any], Any], item: object) -> Any:
        return await self.pool.run(function, item)

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        async for value in self.pool.map(function, items):
            note(value)

    async def close(self) -> None:
        await self.pool.__aexit__(None, None, None)


class OurCalls(Ours):
    """`pool.submit`, 200 in flight: what `pool.run` costs without the tasks that await it."""

    name = "hybridpool submit, 200 in flight"
    measures = frozenset({"throughput", "cpu", "lag", "crash"})

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        source = iter(items)
        flight = deque(self.pool.submit(function, item) for item in islice(source, 200))
        while flight:
            try:
                note(await flight.popleft())
            except Exception as error:  # noqa: BLE001  # whatever the call raised
                note(error)
            for item in islice(source, 1):
                flight.append(self.pool.submit(function, item))


class OurTasks(Ours):
    """`pool.run` by 200 tasks of the program, each with one call after the other."""

    name = "hybridpool run, 200 tasks"
    measures = frozenset({"throughput", "lag"})

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        source = iter(items)

        async def task() -> None:
            for item in source:
                note(await self.pool.run(function, item))

        await asyncio.gather(*(task() for _ in range(200)))


class ExecutorInLoop(blocking.Executor):
    """`loop.run_in_executor` with a ProcessPoolExecutor, 200 in flight: how async programs use it."""

    name = "run_in_executor, 200 in flight"
    measures = frozenset({"throughput", "latency", "payload", "cpu", "lag"})

    async def once(self, function: Callable[[Any], Any], item: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, item)

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        source, loop = iter(items), asyncio.get_running_loop()
        flight = deque(loop.run_in_executor(self.pool, function, item) for item in islice(source, 200))
        while flight:
            note(await flight.popleft())
            for item in islice(source, 1):
                flight.append(loop.run_in_executor(self.pool, function, item))


class Aiomultiprocess(Peer):
    """`await aiomultiprocess.Pool.map`: all values at the end. Its children run coroutine functions only."""

    name, module = "aiomultiprocess map", "aiomultiprocess"
    measures = WHOLE - {"recycle", "crash"}

    async def open(self, children: int, recycle: int | None, preload: Sequence[str]) -> None:
        self.pool = importlib.import_module("aiomultiprocess").Pool(children, maxtasksperchild=recycle or 0)

    async def once(self, function: Callable[[Any], Any], item: object) -> Any:
        return await self.pool.apply(pool_work.in_loop, ((function, item),))

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        for value in await self.pool.map(pool_work.in_loop, [(function, item) for item in items]):
            note(value)

    async def close(self) -> None:
        self.pool.terminate()


class AiomultiprocessEach(Aiomultiprocess):
    """`async for` over it: each value as it comes, by polling."""

    name = "aiomultiprocess map, one by one"
    measures = frozenset({"recycle", "crash"})

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        async for value in self.pool.map(pool_work.in_loop, [(function, item) for item in items]):
            note(value)


class Anyio(Peer):
    """`anyio.to_process.run_sync`; as many tasks as children, each with its next call."""

    name = "anyio.to_process"
    measures = WHOLE - {"recycle"}

    async def open(self, children: int, recycle: int | None, preload: Sequence[str]) -> None:
        self.limiter = anyio.CapacityLimiter(children)
        self.children = children

    async def once(self, function: Callable[[Any], Any], item: object) -> Any:
        return await anyio.to_process.run_sync(function, item, limiter=self.limiter)

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        source = iter(items)

        async def one_after_another() -> None:
            for item in source:
                try:
                    note(await self.once(function, item))
                except Exception as error:  # noqa: BLE001  # whatever the call raised
                    note(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(self.children):
                tasks.start_soon(one_after_another)


PEERS: Sequence[type[Peer]] = (
    *(Ours, OurCalls, OurTasks),
    *(blocking.Multiprocessing, blocking.MultiprocessingMap, blocking.Billiard),
    *(blocking.Executor, ExecutorInLoop, blocking.Loky, blocking.Pebble, blocking.Mpire),
    *(Aiomultiprocess, AiomultiprocessEach, Anyio, blocking.Pipe),
)
