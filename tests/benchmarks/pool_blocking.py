"""The pools whose callers block, each used as its own documentation says for many small calls.

They run inside a coroutine that never suspends, which costs them nothing.
"""

import importlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from hybridpool._child.process_isolation import die_with_parent
from tests.benchmarks.pool_peer import Note, Peer

#: seconds without an answer after which a call counts as lost
PATIENCE = 2.0


class Multiprocessing(Peer):
    """`multiprocessing.Pool.apply_async`."""

    name = "multiprocessing apply_async"
    library = "multiprocessing"

    async def open(self, children: int, recycle: int | None, preload: Sequence[str]) -> None:
        self.pool = importlib.import_module(self.library).Pool(children, maxtasksperchild=recycle)

    async def once(self, function: Callable[[Any], Any], item: object) -> Any:
        return self.pool.apply_async(function, (item,)).get(PATIENCE)

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        gather([self.pool.apply_async(function, (item,)) for item in items], note)

    async def close(self) -> None:
        self.pool.terminate()


class MultiprocessingMap(Multiprocessing):
    """`multiprocessing.Pool.map`, which answers when all is done."""

    name = "multiprocessing map, chunksize 1"
    measures = frozenset({"throughput"})

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        for value in self.pool.map(function, items, chunksize=1):
            note(value)


class Billiard(Multiprocessing):
    """Celery's fork of multiprocessing."""

    name, module, library = "billiard apply_async", "billiard", "billiard"


class Mpire(Multiprocessing):
    """`mpire.WorkerPool.apply_async`; `imap` if children are to be replaced, which only that can do."""

    name, module = "mpire apply_async", "mpire"

    async def open(self, children: int, recycle: int | None, preload: Sequence[str]) -> None:
        self.lifespan = recycle
        self.pool = importlib.import_module("mpire").WorkerPool(n_jobs=children)

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        if self.lifespan is None:
            gather([self.pool.apply_async(function, (item,)) for item in items], note)
            return
        for value in self.pool.imap(function, items, chunk_size=1, worker_lifespan=self.lifespan):
            note(value)


class Executor(Peer):
    """`ProcessPoolExecutor.submit`."""

    name = "ProcessPoolExecutor submit"

    async def open(self, children: int, recycle: int | None, preload: Sequence[str]) -> None:
        # it cannot replace children that were forked from its own process
        context = multiprocessing.get_context("fork" if recycle is None else "forkserver")
        self.pool = ProcessPoolExecutor(children, mp_context=context, max_tasks_per_child=recycle)

    def begin(self, function: Callable[[Any], Any], item: object) -> "Future[Any]":
        """Start one call."""
        return self.pool.submit(function, item)  # type: ignore[no-any-return]  # whichever library's pool

    async def once(self, function: Callable[[Any], Any], item: object) -> Any:
        return self.begin(function, item).result(PATIENCE)

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        calls = []
        try:
            for item in items:
                calls.append(self.begin(function, item))  # noqa: PERF401  # those begun count when it breaks
        finally:
            gather_futures(calls, note)

    async def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


class Loky(Executor):
    """joblib's executor."""

    name, module = "loky submit", "loky"
    measures = Executor.measures - {"recycle"}

    async def open(self, children: int, recycle: int | None, preload: Sequence[str]) -> None:
        self.pool = importlib.import_module("loky").ProcessPoolExecutor(children)

    async def close(self) -> None:
        self.pool.shutdown(wait=False, kill_workers=True)


class Pebble(Executor):
    """`pebble.ProcessPool.schedule`."""

    name, module = "pebble schedule", "pebble"

    async def open(self, children: int, recycle: int | None, preload: Sequence[str]) -> None:
        self.pool = importlib.import_module("pebble").ProcessPool(max_workers=children, max_tasks=recycle or 0)

    def begin(self, function: Callable[[Any], Any], item: object) -> "Future[Any]":
        return self.pool.schedule(function, args=[item])  # type: ignore[no-any-return]  # as above

    async def close(self) -> None:
        self.pool.stop()


class Pipe(Peer):
    """The floor: bytes through a pipe to a forked child and back, one at a time, no function, nothing supervised."""

    name = "bare pipe ping-pong"
    measures = frozenset({"throughput", "latency", "payload"})

    async def open(self, children: int, recycle: int | None, preload: Sequence[str]) -> None:
        self.ends = []
        for _ in range(children):
            near, far = multiprocessing.Pipe()
            if not os.fork():
                self.echo(far)
            far.close()
            self.ends.append(near)

    def echo(self, end: "Connection[Any, Any]") -> NoReturn:
        """Be the child; it dies with its parent, of the signal below."""
        die_with_parent(os.getppid())
        while True:
            end.send_bytes(end.recv_bytes())

    async def once(self, function: Callable[[Any], Any], item: object) -> Any:
        self.ends[0].send_bytes(item if isinstance(item, bytes) else b"noop")
        return self.ends[0].recv_bytes()

    async def many(self, function: Callable[[Any], Any], items: Iterable[Any], note: Note) -> None:
        for _ in range(0, len(list(items)), len(self.ends)):
            for end in self.ends:
                end.send_bytes(b"noop")
            for end in self.ends:
                note(end.recv_bytes())

    async def close(self) -> None:
        for end in self.ends:
            end.close()


def gather(calls: Iterable[Any], note: Note) -> None:
    """Take the outcomes of results as multiprocessing has them; after one that does not come, wait no more."""
    patience = PATIENCE
    for call in calls:
        call.wait(patience)
        if not call.ready():
            patience = 0.01
            continue
        try:
            value = call.get()
        except Exception as error:  # noqa: BLE001  # whatever the call or the pool raised
            value = error
        note(value)


def gather_futures(calls: Iterable["Future[Any]"], note: Note) -> None:
    """Take the outcomes of futures; after one that does not come, wait no more."""
    patience = PATIENCE
    for call in calls:
        try:
            note(call.result(patience))
        except TimeoutError:
            patience = 0.01
        except Exception as error:  # noqa: BLE001  # whatever the call or the pool raised
            note(error)
