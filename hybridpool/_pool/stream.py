"""`Pool.map`: a bounded number of calls under way, values as they come."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

import anyio

from hybridpool._lanes.base import Job
from hybridpool._lanes.wakeup import Wakeup
from hybridpool._outcome import Outcome
from hybridpool._pool.call import release, result_of

T = TypeVar("T")
#: calls under way for each child, so that none is idle
_MIN_CALLS_PER_CHILD: Final = 8
Begin = Callable[[T, Callable[..., None]], Job]


class _Slot:
    """One item under way. A future for each would cost more than the call itself."""

    __slots__ = ("done", "job", "outcome", "value", "wakeup")

    def __init__(self, wakeup: Wakeup, done: deque["_Slot"] | None) -> None:
        self.wakeup = wakeup
        self.done = done
        self.job: Job | None = None
        self.outcome: Outcome | None = None
        #: gives a large value
        self.value: Callable[[], object] | None = None

    def ended(self, job: Job, outcome: Outcome, _child: str, _runtime: float) -> None:
        release(job, outcome, self._end)

    def _end(self, outcome: Outcome, value: Callable[[], object] | None) -> None:
        self.outcome, self.value = outcome, value
        if self.done is not None:
            self.done.append(self)
        self.wakeup.notify_all()


class _CallWindow(Generic[T]):
    """The calls that are under way, or ended and not yielded yet."""

    def __init__(self, begin: Begin[T], window: int, children: int, *, ordered: bool) -> None:
        self._begin = begin
        self._window = window
        # High enough that each child has a call.
        self._low = max(window // 2, min(window - 1, _MIN_CALLS_PER_CHILD * children))
        #: notified when a call or the input has ended
        self.wakeup = Wakeup()
        #: notified when more calls may be submitted
        self.has_room = Wakeup()
        #: in the order of the items
        self._calls: deque[_Slot] = deque()
        #: in the order of their ends, if values are yielded in that order
        self._done: deque[_Slot] | None = None if ordered else deque()
        self.under_way = 0

    @property
    def is_full(self) -> bool:
        """Whether no more calls may be under way."""
        return self.under_way >= self._window

    @property
    def is_low(self) -> bool:
        """Whether to submit more calls: to wait for this makes batches, which are sent together."""
        return self.under_way <= self._low

    def add(self, item: T) -> None:
        """Submit the call for an item."""
        slot = _Slot(self.wakeup, self._done)
        slot.job = self._begin(item, slot.ended)
        self._calls.append(slot)
        self.under_way += 1

    def next(self) -> _Slot | None:
        """Remove and return the next ended call to yield; None: there is none yet."""
        slot = self._ready()
        if slot is None:
            return None
        self.under_way -= 1
        if self.is_low:
            self.has_room.notify_all()
        return slot

    def _ready(self) -> _Slot | None:
        calls, done = self._calls, self._done
        if done is None:
            return calls.popleft() if calls and calls[0].outcome is not None else None
        if not done:
            return None
        # Yielded calls stay in `_calls` until they reach its head, so that no search is needed.
        while calls and calls[0].outcome is not None:
            calls.popleft()
        return done.popleft()

    def unfinished(self) -> list[Job]:
        """Return the jobs of calls that have not ended."""
        return [slot.job for slot in self._calls if slot.outcome is None and slot.job is not None]


async def stream(
    begin: Begin[T],
    cancel: Callable[[Job], None],
    items: Iterable[T] | AsyncIterable[T],
    *,
    check: Callable[[], object],
    ordered: bool,
    window: int,
    children: int,
    name: str,
) -> AsyncGenerator[Any]:
    """Yield the values of calls on items.

    :param begin: submits the call for an item, with the callback for its end.
    :param check: raises if the calls cannot be waited for here.
    :param window: how many may be under way.
    :param children: how many can work at once.
    """
    check()
    calls = _CallWindow(begin, window, children, ordered=ordered)
    source: _SyncItems[T] | _AsyncItems[T]
    source = _AsyncItems(items, calls) if isinstance(items, AsyncIterable) else _SyncItems(items, calls)
    try:
        while True:
            source.fill()
            slot = calls.next()
            if slot is not None and slot.outcome is not None:
                yield result_of(name, slot.outcome, slot.value)
            elif calls.under_way or not source.ended:
                await calls.wakeup.wait()
            else:
                return
    finally:
        for job in calls.unfinished():
            cancel(job)
        await source.close()


class _SyncItems(Generic[T]):
    """Submits calls from an iterable."""

    def __init__(self, items: Iterable[T], calls: _CallWindow[T]) -> None:
        self._items: Iterator[T] = iter(items)
        self._calls = calls
        self.ended = False

    def fill(self) -> None:
        """Submit calls until the window is full."""
        if self.ended or not self._calls.is_low:
            return
        while not self._calls.is_full:
            try:
                item = next(self._items)
            except StopIteration:
                self.ended = True
                return
            self._calls.add(item)

    async def close(self) -> None:
        """Take no more items; the iterator stays usable."""
        self.ended = True


class _AsyncItems(Generic[T]):
    """Submits calls from an async iterable, in its own task: values are yielded while it waits for an item."""

    def __init__(self, items: AsyncIterable[T], calls: _CallWindow[T]) -> None:
        self._calls = calls
        self._task = asyncio.ensure_future(self._feed(items))
        self._task.add_done_callback(lambda _: calls.wakeup.notify_all())

    async def _feed(self, items: AsyncIterable[T]) -> None:
        async for item in items:
            self._calls.add(item)
            while self._calls.is_full:
                await self._calls.has_room.wait()

    @property
    def ended(self) -> bool:
        """There are no more items."""
        return self._task.done()

    def fill(self) -> None:
        """Raise the error of the iterable, if it has raised."""
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        """Take no more items."""
        self._task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait((self._task,))
        if not self._task.cancelled():
            # Its error was raised already, or came after the iteration had ended.
            self._task.exception()
