"""InlinePool: the interface of `Pool` without children, for fast unit tests of code that takes a pool.

Arguments and values are pickled as on their way to a child and back, so what cannot be sent fails here too. A call
blocks the event loop: nothing else runs beside it, and it can be neither cancelled nor killed at a time limit.
"""

import asyncio
import pickle
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final, Self, cast

from hybridpool import _task_context
from hybridpool._child import functions
from hybridpool._ipc.blobs import IncomingBlob, OutgoingBlob
from hybridpool._ipc.frames import ChildOutcome, Returned, RunCall
from hybridpool._ipc.large_objects import LargeObject
from hybridpool._lanes.base import Job
from hybridpool._lanes.snapshot import LaneSnapshot
from hybridpool._lanes.supervised import SupervisedLanes
from hybridpool._lanes.wakeup import Wakeup
from hybridpool._outcome import Cancelled, Lost, Outcome
from hybridpool._pool import Pool
from hybridpool._pool.options import check_count
from hybridpool.errors import BrokerError, ChildStartFailed, PoolError

#: the name that calls get in place of a child's
HERE: Final = "InlinePool"


class InlinePool(Pool):
    """A `Pool` that runs each call in this process. It takes the options of `Pool`, and applies no limits.

    The initializer is called once, at entry; the code after its `yield` runs at exit, also if the block raised.
    There are no children: `stats` returns an empty list, and `resize` only checks the size.
    """

    __module__ = "hybridpool.testing"

    def __init__(self, size: int | None = 1, **options: Any) -> None:
        # One, because no calls run at once here; counting the CPUs takes reading files.
        super().__init__(size, **options)

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        before, supervised = _task_context.resource(), _InlineLane(self._configs["process"].size)
        self._enter()
        self._names.opened()
        try:
            made = _initialize(self._configs["process"].orders.initializer)
        except BaseException:
            self._loop = None
            raise
        # It has those parts of a supervised lane that a pool without children uses.
        self._supervised = cast("SupervisedLanes", supervised)
        try:
            yield self
            await supervised.finish()
        finally:
            self._supervised = self._loop = None
            supervised.abandon()
            try:
                _tear_down(made)
            finally:
                _task_context.set_resource(before)

    async def resize(self, size: int) -> None:
        """Check a size, and remember it.

        :raises ConfigError: if it is not a whole number of at least 1.
        """
        cast("_InlineLane", self._entered()).size = check_count("resize(…)", size)

    async def recycle(self, child: str) -> None:
        """Raise, because there is no child to replace.

        :raises PoolError: always.
        """
        raise PoolError(f"there is no child {child!r}: {HERE} has none")


class _InlineLane:
    """Runs jobs, one in each turn of the loop. It is a lane and its supervisors in one."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._waiting: deque[Job] = deque()
        self._running = False
        self._tasks: dict[Job, asyncio.Task[Outcome]] = {}
        self._at_rest = Wakeup()

    @property
    def lane(self) -> Self:
        return self

    def snapshot(self) -> LaneSnapshot:
        return LaneSnapshot(at=time.monotonic(), size=self.size, queued=len(self._waiting), running=int(self._running))

    def snapshots(self) -> list[LaneSnapshot]:
        return [self.snapshot()]

    def submit(self, job: Job) -> None:
        self._waiting.append(job)
        asyncio.get_running_loop().call_soon(self._next)

    def cancel(self, job: Job, _grace: float) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
            job.on_done(job, Cancelled(""), "", 0.0)
            self._look()
        elif job in self._tasks:
            self._tasks[job].cancel()

    async def finish(self) -> None:
        while self._waiting or self._running or self._tasks:
            await self._at_rest.wait()

    def abandon(self) -> None:
        """End the calls that wait, so that no caller waits for ever."""
        while self._waiting:
            job = self._waiting.popleft()
            job.on_done(job, Lost("the pool ended", ""), "", 0.0)
        for task in self._tasks.values():
            task.cancel()

    def _next(self) -> None:
        if self._waiting and not self._running:
            job = self._waiting.popleft()
            job.handed_at = time.monotonic()
            if job.lane == "async":
                self._begin(job)
                return
            self._running = True
            if isinstance(job.body, OutgoingBlob):
                # It is written by then: in a thread, if it is very large.
                job.body.prepare(partial(self._run, job))
            else:
                self._run(job)

    def _run(self, job: Job) -> None:
        _task_context.set_current_task(
            _task_context.RunningTask(job.id, job.task, job.retries, job.root_id, HERE, _refuse)
        )
        began = time.perf_counter()
        try:
            outcome = _outcome(job)
        finally:
            _task_context.set_current_task(None)
            self._running = False
        job.on_done(job, outcome, HERE, time.perf_counter() - began)
        self._look()
        self._next()

    def _begin(self, job: Job) -> None:
        """Run a coroutine beside the others, as the async lane does."""
        task = asyncio.get_running_loop().create_task(self._run_async(job))
        self._tasks[job] = task
        task.add_done_callback(partial(self._ended, job))
        self._next()

    async def _run_async(self, job: Job) -> Outcome:
        _task_context.set_current_task(
            _task_context.RunningTask(job.id, job.task, job.retries, job.root_id, HERE, _refuse)
        )
        call, file = _call_of(job)
        try:
            with _main_at_hand():
                function, args, kwargs = functions.read(call, file)
            value = await function(*args, **kwargs)
        except asyncio.CancelledError:
            return Cancelled(HERE)
        except BaseException as error:  # noqa: BLE001  # whatever a task raises is its outcome
            return functions.failed(job.task, error)
        with _main_at_hand():
            return _kept(job, functions.returned(job.task, value))

    def _ended(self, job: Job, task: "asyncio.Task[Outcome]") -> None:
        del self._tasks[job]
        # A task that was cancelled before its first step has no result.
        outcome = Cancelled(HERE) if task.cancelled() else task.result()
        job.on_done(job, outcome, HERE, time.monotonic() - (job.handed_at or 0.0))
        self._look()

    def _look(self) -> None:
        if not self._waiting and not self._running and not self._tasks:
            self._at_rest.notify_all()


def _outcome(job: Job) -> ChildOutcome:
    """Run a call."""
    call, file = _call_of(job)
    with _main_at_hand():
        return _kept(job, functions.run(call, file))


def _call_of(job: Job) -> tuple[RunCall, int | None]:
    """Return a job as children get it."""
    call = RunCall(0, job.task, job.id, job.content_type, b"", job.retries, job.root_id)
    if isinstance(job.body, OutgoingBlob):
        call.parts = job.body.sizes
        return call, job.body.file
    call.body = job.body
    return call, None


def _kept(job: Job, outcome: ChildOutcome | LargeObject) -> ChildOutcome:
    """Return an outcome; a large value becomes the job's blob."""
    if isinstance(outcome, LargeObject):
        job.blob = IncomingBlob(outcome.write(), outcome.sizes)
        return Returned(b"", "", outcome.sizes)
    return outcome


@contextmanager
def _main_at_hand() -> Generator[None]:
    """Give the script the second name that it has in children, where it is run again; here it is loaded already."""
    known = sys.modules.get("__mp_main__")
    sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
    try:
        yield
    finally:
        if known is None:
            del sys.modules["__mp_main__"]


def _refuse(_message: bytes) -> None:
    raise BrokerError("this pool has no broker to publish to")


def _initialize(pickled: bytes) -> Generator[object] | None:
    """Call the initializer; returns the generator that tears its resource down, if it is one."""
    _task_context.set_resource(None)
    if not pickled:
        return None
    try:
        made = pickle.loads(pickled)()
        resource = next(made, None) if isinstance(made, Generator) else made
    except (Exception, SystemExit) as error:
        raise ChildStartFailed(f"the initializer failed: {error!r}") from error
    _task_context.set_resource(resource)
    return made if isinstance(made, Generator) else None


def _tear_down(made: Generator[object] | None) -> None:
    for _ in made or ():
        raise RuntimeError("the initializer yielded twice; it should yield once, and then give back")
