"""Pool: functions of an async program, run in forked children under supervision.

    async with Pool(4) as pool:
        value = await pool.run(function, argument)

No broker. The children, their supervision and the limits are those of the worker (`supervised`).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn, ParamSpec, Self, TypeVar, cast, overload

import anyio

from hybridpool import events
from hybridpool._child import functions
from hybridpool._client.asynclib import running_loop, without_stale_cancellation
from hybridpool._ipc.frames import Enqueue, EnqueueAnswer
from hybridpool._lanes.base import Job
from hybridpool._lanes.prefork.supervised import LaneConfig, SupervisedLane
from hybridpool._lanes.prefork.zygote_keeper import ZygoteKeeper
from hybridpool._pool.call import Call, FunctionNames, check_loop, submitted, write
from hybridpool._pool.open_close import OpenClose
from hybridpool._pool.options import check_count, check_seconds, lane_config, read_options
from hybridpool._pool.stats import ChildStats, child_stats
from hybridpool._pool.stream import stream
from hybridpool.errors import CannotSend, PoolClosed, PoolError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
#: the default of `run`'s limits, which may be given as None
_NOT_GIVEN: Final = object()


class Pool(OpenClose):
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
        self._config: LaneConfig = lane_config(self._options)
        self._bus = events.Bus()
        self._names = FunctionNames()
        self._supervised: SupervisedLane | None = None
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
            async with SupervisedLane(keeper, self._config, self._bus, _refuse) as supervised:
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

    @overload
    async def run(
        self,
        function: Callable[..., R],
        /,
        *args: Any,
        timeout: float | None,
        soft_timeout: float | None = None,
        **kwargs: Any,
    ) -> R: ...
    @overload
    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def run(
        self,
        function: Callable[..., R],
        /,
        *args: Any,
        timeout: Any = _NOT_GIVEN,
        soft_timeout: Any = _NOT_GIVEN,
        **kwargs: Any,
    ) -> R:
        """Run a function in a child and return its value, or raise what it raised, with the child's traceback.

        Cancelling the wait stops the work: a call that has not begun never will, one at work is asked to stop
        (`TaskCancelled` is raised in it), and after the pool's `grace` its child is killed.

        A function that has a parameter named `timeout` or `soft_timeout` itself gets what is given by that name, as if
        it were called here; to limit it, call it in a function of your own that has no such parameter, or use
        `Pool(time_limit=…)`.

        :param timeout: seconds it may run before its child is killed; the pool's `time_limit` if None.
        :param soft_timeout: seconds after which `SoftTimeLimitExceeded` is raised in it.
        :raises CannotSend: if the function or an argument cannot be sent.
        :raises ConfigError: if a limit is not seconds.
        :raises PoolError: if the pool was entered on another event loop.
        :raises ChildLost: if its child died; nothing else is lost by that.
        :raises TimeLimitExceeded: if it ran over `timeout`.
        :raises PoolClosed: if the pool is not entered, or is being left.
        """
        hard = self._limit(function, kwargs, "timeout", timeout)
        soft = self._limit(function, kwargs, "soft_timeout", soft_timeout)
        call = self._submit(function, args, kwargs, hard, soft)
        try:
            return await call
        except BaseException:
            if call.state not in ("done", "cancelled"):
                call.cancel()
                with anyio.CancelScope(shield=True):
                    await call.wait()
            raise

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Run a function in a child, and return a handle at once: to be awaited, looked at, cancelled.

        :raises CannotSend: if the function or an argument cannot be sent.
        :raises PoolClosed: if the pool is not entered, or is being left.
        """
        return self._submit(function, args, kwargs, None, None)

    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T] | AsyncIterable[T],
        *,
        ordered: bool = True,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[R]:
        """Run a function on each item, and give the values as they come.

        Items are taken as there is room for them, so the input may be endless. The first call that fails raises
        here, when its turn comes; leaving the iteration gives up what is under way.

        :param ordered: give values in the order of the items; else as they are done.
        :param limit: how many items may be under way; None: 128 for each child.
        :param timeout: as in `run`, for each call.
        """
        submit, options = self._entered().submit, self._options
        self._names.name(function)
        hard = options.time_limit if timeout is None else check_seconds("map(timeout=…)", timeout)

        def begin(item: T, on_done: Callable[..., None]) -> Job:
            task, content_type, body = write(self._names, function, (item,), {})
            job = Job(
                task=task,
                content_type=content_type,
                body=body,
                on_done=on_done,
                hard_limit=hard,
                soft_limit=options.soft_time_limit,
            )
            submit(job)
            return job

        if limit is not None:
            check_count("map(limit=…)", limit)
        if not isinstance(items, AsyncIterable):
            try:
                items = iter(items)
            except TypeError:
                raise CannotSend(f"map takes an iterable of items, not {items!r}") from None
        children = max(1, self._entered().lane.size)
        window = limit if limit is not None else 128 * children
        name = _name(function)
        # Checked again when the iteration begins, which may be on another loop.
        check = self._entered
        return stream(
            begin, self._cancel, items, check=check, ordered=ordered, window=window, children=children, name=name
        )

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
        lane = self._entered().lane
        children = [one.name for one in lane.snapshot().children]
        if child not in children:
            raise PoolError(f"there is no child {child!r}; there are {', '.join(children) or 'none'}")
        lane.retire(child, "asked to", once_replaced=True)
        try:
            while lane.has_child(child):
                await lane.wait_changed()
        except BaseException:
            lane.keep(child)
            raise

    def stats(self) -> list[ChildStats]:
        """Return what each child is doing."""
        return child_stats(self._entered().lane.snapshot())

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

    def _entered(self) -> SupervisedLane:
        if self._supervised is None or self._loop is None:
            raise PoolClosed("the pool is not entered: use it inside `async with Pool() as pool`")
        try:
            check_loop(self._loop)
        except PoolError:
            # In a fork of the program the loop differs too; then the fork is the error to report.
            self._supervised.check_process()
            raise
        return self._supervised

    def _limit(self, function: Callable[..., object], kwargs: dict[str, Any], name: str, value: Any) -> float | None:
        """Return a limit of `run`, or hand the value on to a function that has a parameter of that name."""
        if value is _NOT_GIVEN:
            return None
        if self._names.has_parameter(function, name):
            kwargs[name] = value
            return None
        return None if value is None else check_seconds(f"run({name}=…)", value)

    def _submit(
        self, function: Callable[..., R], args: Any, kwargs: Any, timeout: float | None, soft: float | None
    ) -> Call[R]:
        return submitted(
            _name(function),
            lambda on_done: self._begin(function, args, kwargs, on_done, timeout, soft),
            self._cancel,
            # A pool without a loop is not entered: `_begin` raises then.
            cast("asyncio.AbstractEventLoop", self._loop),
        )

    def _begin(
        self,
        function: Callable[..., object],
        args: Any,
        kwargs: Any,
        on_done: Callable[..., None],
        timeout: float | None,
        soft: float | None,
    ) -> Job:
        name, content_type, body = write(self._names, function, args, kwargs)
        options = self._options
        job = Job(
            task=name,
            content_type=content_type,
            body=body,
            on_done=on_done,
            hard_limit=options.time_limit if timeout is None else timeout,
            soft_limit=options.soft_time_limit if soft is None else soft,
        )
        self._entered().submit(job)
        return job

    def _cancel(self, job: Job) -> None:
        # Without a lane every call has ended, or its end is about to be reported.
        if self._supervised is not None:
            self._supervised.lane.cancel(job, self._options.grace)

    async def _finish(self) -> None:
        """Wait for the calls that were submitted, then let the children go."""
        supervised = self._entered()
        await supervised.finish()
        supervised.stop_taking()
        await supervised.drain(self._options.grace)


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _without_group(group: BaseExceptionGroup[BaseException], block_error: Exception | None) -> BaseException:
    """Return what ended the pool: its own error if there was one, otherwise the error of the block."""
    pool_errors = [error for error in group.exceptions if error is not block_error]
    if not pool_errors and block_error is not None:
        return block_error
    return pool_errors[0] if len(pool_errors) == 1 else group


def _refuse(frame: Enqueue, answer: Callable[[EnqueueAnswer], None]) -> None:
    answer(EnqueueAnswer(frame.ticket, "this pool has no broker to publish to"))
