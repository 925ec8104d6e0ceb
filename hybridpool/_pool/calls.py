"""How functions are given to a pool: one call, a handle of one, or one for each item; and in which lane."""

import abc
import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable
from typing import Any, Final, ParamSpec, TypeVar, cast, get_args, overload

import anyio

from hybridpool._lanes.base import Job
from hybridpool._lanes.supervised import SupervisedLanes
from hybridpool._pool.call import Call, FunctionNames, submitted, write
from hybridpool._pool.options import PoolOptions, check_count, check_seconds
from hybridpool._pool.stream import stream
from hybridpool._task import LaneName
from hybridpool.errors import CannotSend, ConfigError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
#: the default of `run`'s limits, which may be given as None
_NOT_GIVEN: Final = object()


class PoolCalls(abc.ABC):
    """The calls of a pool."""

    _options: PoolOptions
    _names: FunctionNames
    #: the loop that the pool was entered on
    _loop: asyncio.AbstractEventLoop | None
    #: where calls run; None: as the function is
    _lane: LaneName | None = None

    @abc.abstractmethod
    def _entered(self) -> SupervisedLanes:
        """:raises PoolClosed: if the pool is not entered."""

    @abc.abstractmethod
    def _cancel(self, job: Job) -> None:
        """Give a call up."""

    @overload
    async def run(
        self,
        function: Callable[..., Coroutine[Any, Any, R]],
        /,
        *args: Any,
        timeout: float | None,
        soft_timeout: float | None = None,
        **kwargs: Any,
    ) -> R: ...
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
    async def run(self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def run(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        timeout: Any = _NOT_GIVEN,
        soft_timeout: Any = _NOT_GIVEN,
        **kwargs: Any,
    ) -> Any:
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

    @overload
    def submit(
        self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Call[R]: ...
    @overload
    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...
    def submit(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Call[Any]:
        """Run a function in a child, and return a handle at once: to be awaited, looked at, cancelled.

        :raises CannotSend: if the function or an argument cannot be sent.
        :raises PoolClosed: if the pool is not entered, or is being left.
        """
        return self._submit(function, args, kwargs, None, None)

    @overload
    def map(
        self,
        function: Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        ordered: bool = True,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[R]: ...
    @overload
    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T] | AsyncIterable[T],
        *,
        ordered: bool = True,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[R]: ...
    def map(
        self,
        function: Callable[[T], Any],
        items: Iterable[T] | AsyncIterable[T],
        *,
        ordered: bool = True,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Any]:
        """Run a function on each item, and give the values as they come.

        Items are taken as there is room for them, so the input may be endless. The first call that fails raises
        here, when its turn comes; leaving the iteration gives up what is under way.

        :param ordered: give values in the order of the items; else as they are done.
        :param limit: how many items may be under way; None: 128 for each child, and twice the slots of the other lanes.
        :param timeout: as in `run`, for each call.
        """
        submit, options = self._entered().submit, self._options
        self._names.name(function)
        lane = self._lane_of(function)
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
                lane=lane,
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
        children = max(1, self._entered().lane.size) if lane == "process" else 1
        slots = options.async_slots if lane == "async" else options.thread_slots
        window = limit if limit is not None else 128 * children if lane == "process" else 2 * slots
        name = _name(function)
        # Checked again when the iteration begins, which may be on another loop.
        check = self._entered
        return stream(
            begin, self._cancel, items, check=check, ordered=ordered, window=window, children=children, name=name
        )

    # ---- inside ------------------------------------------------------------------------------------------

    def _lane_of(self, function: Callable[..., object]) -> LaneName:
        """:raises CannotSend: if the function cannot run in the lane that was asked for."""
        is_async = self._names.is_coroutine_function(function)
        if self._lane is None:
            return "async" if is_async else "process"
        if is_async and self._lane == "thread":
            raise CannotSend(f'{_name(function)} is async def, and a thread runs plain functions: use the lane "async"')
        if not is_async and self._lane == "async":
            raise CannotSend(
                f"{_name(function)} is not async def, and would hold up all coroutines of its child: "
                'use the lane "thread" or "process"'
            )
        return self._lane

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
            lane=self._lane_of(function),
        )
        self._entered().submit(job)
        return job


class PoolLane(PoolCalls):
    """A pool whose calls run in one lane; made by `Pool.lane`."""

    __module__ = "hybridpool"

    def __init__(self, pool: PoolCalls, name: LaneName) -> None:
        if name not in get_args(LaneName):
            raise ConfigError(f"there is no lane {name!r}; there are {', '.join(get_args(LaneName))}")
        self._pool = pool
        self._options = pool._options
        self._names = pool._names
        self._lane = name

    @property
    def _loop(self) -> asyncio.AbstractEventLoop | None:  # type: ignore[override]  # a pool's own is set
        return self._pool._loop

    def _entered(self) -> SupervisedLanes:
        return self._pool._entered()

    def _cancel(self, job: Job) -> None:
        self._pool._cancel(job)


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
