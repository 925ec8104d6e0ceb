"""Pool: functions of an async program, run in forked children under supervision.

    async with Pool(4) as pool:
        value = await pool.run(function, argument)

No broker. The children, their supervision and the limits are those of the worker (`supervised`).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn, ParamSpec, Self, TypeVar

from hybridpool import events
from hybridpool._child import functions
from hybridpool._client.asynclib import running_loop, without_stale_cancellation
from hybridpool._ipc.frames import Enqueue, EnqueueAnswer
from hybridpool._lanes.base import Job
from hybridpool._lanes.supervised import LaneConfig, SupervisedLanes
from hybridpool._lanes.zygote_keeper import ZygoteKeeper
from hybridpool._pool.call import FunctionNames, check_loop
from hybridpool._pool.calls import PoolCalls, PoolLane
from hybridpool._pool.open_close import OpenClose
from hybridpool._pool.options import check_count, lane_configs, read_options
from hybridpool._pool.stats import ChildStats, child_stats
from hybridpool._task import LaneName
from hybridpool.errors import PoolClosed, PoolError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
#: the default of `run`'s limits, which may be given as None
_NOT_GIVEN: Final = object()


class Pool(PoolCalls, OpenClose):
    """Runs functions in forked children, which exist inside ``async with``.

    Leaving the block normally waits for the calls that were submitted; leaving it by an exception kills the children.
    Where one task enters and another one leaves (cells of a notebook, halves of a fixture) use `open` and `close`.

    :param size: how many children work at once; None: one per CPU that this process may use.
    :param options: see `PoolOptions`.
    :raises ConfigError: if an option has a wrong value.
    """

    __module__ = "hybridpool"

    def __init__(self, size: int | None = None, **options: Any) -> None:
        self._options = read_options(size, options)
        self._configs: dict[LaneName, LaneConfig] = lane_configs(self._options)
        self._bus = events.Bus()
        self._names = FunctionNames()
        self._supervised: SupervisedLanes | None = None
        #: the loop that it was entered on
        self._loop: asyncio.AbstractEventLoop | None = None
        if self._options.on_event is not None:
            self._bus.subscribe(self._options.on_event)

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        if functions.is_running_main():
            raise PoolError(
                'this script starts a pool when it is imported: have it do so under `if __name__ == "__main__"`'
            )
        self._enter()
        try:
            async with self._run():
                yield self
        finally:
            self._loop = None

    @asynccontextmanager
    async def _run(self) -> AsyncGenerator[None]:
        keeper = ZygoteKeeper("", tuple(self._options.preload), self._bus)
        self._names.opened()
        await keeper.start()
        ended: BaseException | None = None
        block_error: Exception | None = None
        try:
            async with SupervisedLanes(keeper, self._configs, self._bus, _refuse) as supervised:
                self._supervised = supervised
                try:
                    with without_stale_cancellation():
                        yield
                    await self._finish()
                except Exception as error:
                    block_error = error
                    raise
                finally:
                    self._supervised = None
        except BaseExceptionGroup as group:
            ended = _without_group(group, block_error)
        # Raised outside of `except`, so that the user does not see the exception group of the pool's own tasks.
        if ended is not None:
            raise ended

    # ---- calls -------------------------------------------------------------------------------------------

    def lane(self, name: LaneName) -> PoolLane:
        """Give the same pool with another choice of where calls run.

        Without it functions run in a child of their own ("process"), and coroutine functions on the event loop of a
        child that runs many of them ("async"). ``pool.lane("thread")`` runs functions that wait on the threads of one
        child. That child starts with the first call for it. Its calls share its death: each raises `ChildLost` then.

        :raises ConfigError: if there is no such lane.
        """
        return PoolLane(self, name)

    # ---- children ----------------------------------------------------------------------------------------

    async def resize(self, size: int) -> None:
        """Have so many children work at once. Growing waits until they are ready; shrinking lets busy ones finish.

        :raises ConfigError: if the size is not a whole number of at least 1.
        """
        lane = self._entered().lane
        check_count("resize(…)", size)
        self._entered().ensure_fd_limit(size)
        lane.resize(size)
        while lane.size == size and lane.snapshot().serving < size:
            await lane.wait_changed()

    async def recycle(self, child: str) -> None:
        """Replace a child after what it has in hand; returns when it is gone.

        It works until its replacement is ready.

        :raises PoolError: if there is no child of that name.
        """
        lane = self._entered().lane_of(child)
        if lane is None:
            children = ", ".join(one.name for one in self.stats())
            raise PoolError(f"there is no child {child!r}; there are {children or 'none'}")
        lane.retire(child, "asked to", once_replaced=True)
        try:
            while lane.has_child(child):
                await lane.wait_changed()
        except BaseException:
            lane.keep(child)
            raise

    def stats(self) -> list[ChildStats]:
        """Return what each child is doing."""
        return [child for lane in self._entered().snapshots() for child in child_stats(lane)]

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Pool cannot be pickled: its children belong to this process; send its options, and make another"
        )

    # ---- inside ------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        """Note the loop that this is entered on.

        :raises PoolError: if no loop of asyncio runs.
        """
        self._loop = running_loop("a Pool", PoolError)

    def _entered(self) -> SupervisedLanes:
        if self._supervised is None or self._loop is None:
            raise PoolClosed("the pool is not entered: use it inside `async with Pool() as pool`")
        try:
            check_loop(self._loop)
        except PoolError:
            # In a fork of the program the loop differs too; then the fork is the error to report.
            self._supervised.check_process()
            raise
        return self._supervised

    def _cancel(self, job: Job) -> None:
        # Without a lane every call has ended, or its end is about to be reported.
        if self._supervised is not None:
            self._supervised.cancel(job, self._options.grace)

    async def _finish(self) -> None:
        """Wait for the calls that were submitted, then let the children go."""
        supervised = self._entered()
        await supervised.finish()
        supervised.stop_taking()
        await supervised.drain(self._options.grace)


def _without_group(group: BaseExceptionGroup[BaseException], block_error: Exception | None) -> BaseException:
    """Return what ended the pool: its own error if there was one, otherwise the error of the block."""
    pool_errors = [error for error in group.exceptions if error is not block_error]
    if not pool_errors and block_error is not None:
        return block_error
    return pool_errors[0] if len(pool_errors) == 1 else group


def _refuse(frame: Enqueue, answer: Callable[[EnqueueAnswer], None]) -> None:
    answer(EnqueueAnswer(frame.ticket, "this pool has no broker to publish to"))
