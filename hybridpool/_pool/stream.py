"""`Pool.map`: a bounded number of calls under way, values as they come."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

import anyio

from hybridpool._lanes.base import Job
from hybridpool._lanes.wakeup import Wakeup
from hybridpool._outcome import Outcome
from hybridpool._pool.call import clear, read

T = TypeVar("T")
#: calls under way, for each child, with which none is idle
_ENOUGH: Final = 8
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
        blob = clear(job)
        if blob is None:
            self._end(outcome)
        else:
            blob.open(lambda value: self._end(outcome, value))

    def _end(self, outcome: Outcome, value: Callable[[], object] | None = None) -> None:
        self.outcome, self.value = outcome, value
        if self.done is not None:
            self.done.append(self)
        self.wakeup.notify_all()


class _Line(Generic[T]):
    """The calls under way, or ended and not given yet."""

    def __init__(self, begin: Begin[T], window: int, children: int, *, ordered: bool) -> None:
        self._begin = begin
        self._window = window
        # Never so low that a child might have nothing to do.
        self._low = max(window // 2, min(window - 1, _ENOUGH * children))
        #: rings when a call has ended, or the input
        self.wakeup = Wakeup()
        #: rings when there is room again
        self.room = Wakeup()
        #: in the order of the items
        self._line: deque[_Slot] = deque()
        #: in the order of their ends, if that is the order to give them in
        self._done: deque[_Slot] | None = None if ordered else deque()
        self.under_way = 0

    @property
    def is_full(self) -> bool:
        """No more may be under way."""
        return self.under_way >= self._window

    @property
    def is_low(self) -> bool:
        """It is time to fill up: doing so only now keeps the calls coming in bursts, which travel together."""
        return self.under_way <= self._low

    def add(self, item: T) -> None:
        """Submit the call for an item."""
        slot = _Slot(self.wakeup, self._done)
        slot.job = self._begin(item, slot.ended)
        self._line.append(slot)
        self.under_way += 1

    def next(self) -> _Slot | None:
        """Take out what is to be given next; None if it is not there yet."""
        slot = self._ready()
        if slot is None:
            return None
        self.under_way -= 1
        if self.is_low:
            self.room.notify_all()
        return slot

    def _ready(self) -> _Slot | None:
        line, done = self._line, self._done
        if done is None:
            return line.popleft() if line and line[0].outcome is not None else None
        if not done:
            return None
        # Those that are given stay in the line until they reach its head, so that nothing is searched for.
        while line and line[0].outcome is not None:
            line.popleft()
        return done.popleft()

    def left(self) -> list[Job]:
        """Return the calls that have not ended."""
        return [slot.job for slot in self._line if slot.outcome is None and slot.job is not None]


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
    """Give the values of calls on items.

    :param begin: submits the call for an item, and says whom to tell.
    :param check: raises if the calls cannot be waited for here.
    :param window: how many may be under way.
    :param children: how many can work at once.
    """
    check()
    line = _Line(begin, window, children, ordered=ordered)
    source: _Now[T] | _Later[T] = _Later(items, line) if isinstance(items, AsyncIterable) else _Now(items, line)
    try:
        while True:
            source.fill()
            slot = line.next()
            if slot is not None and slot.outcome is not None:
                yield read(name, slot.outcome, slot.value)
            elif line.under_way or not source.ended:
                await line.wakeup.wait()
            else:
                return
    finally:
        for job in line.left():
            cancel(job)
        await source.close()


class _Now(Generic[T]):
    """Fills the line from an iterable."""

    def __init__(self, items: Iterable[T], line: _Line[T]) -> None:
        self._items: Iterator[T] = iter(items)
        self._line = line
        self.ended = False

    def fill(self) -> None:
        """Submit as many as there is room for."""
        if self.ended or not self._line.is_low:
            return
        while not self._line.is_full:
            try:
                item = next(self._items)
            except StopIteration:
                self.ended = True
                return
            self._line.add(item)

    async def close(self) -> None:
        """Take no more; whose iterator it is may go on with it."""
        self.ended = True


class _Later(Generic[T]):
    """Fills the line from an async iterable, in a task of its own: values are given while it waits for an item."""

    def __init__(self, items: AsyncIterable[T], line: _Line[T]) -> None:
        self._line = line
        self._task = asyncio.ensure_future(self._feed(items))
        self._task.add_done_callback(lambda _: line.wakeup.notify_all())

    async def _feed(self, items: AsyncIterable[T]) -> None:
        async for item in items:
            self._line.add(item)
            while self._line.is_full:
                await self._line.room.wait()

    @property
    def ended(self) -> bool:
        """There are no more items."""
        return self._task.done()

    def fill(self) -> None:
        """Raise what the items have raised."""
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        """Take no more."""
        self._task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait((self._task,))
        if not self._task.cancelled():
            # What it raised is on its way already, or came too late to matter.
            self._task.exception()
