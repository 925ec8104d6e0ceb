"""`Pool.map`: a bounded number of calls under way, values as they come."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

from hybridpool.lanes.bell import Bell
from hybridpool.lanes.job import Job
from hybridpool.outcome import Outcome
from hybridpool.pool.call import read

R = TypeVar("R")
T = TypeVar("T")


class _Slot:
    """One item under way. A future for each would cost more than the call itself."""

    __slots__ = ("bell", "done", "job", "outcome")

    def __init__(self, bell: Bell, done: deque["_Slot"] | None) -> None:
        self.bell = bell
        self.done = done
        self.job: Job | None = None
        self.outcome: Outcome | None = None

    def ended(self, _job: Job, outcome: Outcome, _child: str, _runtime: float) -> None:
        self.outcome = outcome
        if self.done is not None:
            self.done.append(self)
        self.bell.ring()


async def stream(
    begin: Callable[[T, Callable[..., None]], Job],
    cancel: Callable[[Job], None],
    items: Iterable[T] | AsyncIterable[T],
    *,
    ordered: bool,
    window: int,
    name: str,
) -> AsyncGenerator[Any]:
    """Give the values of calls on items.

    :param begin: submits the call for an item, and says whom to tell.
    :param window: how many may be under way.
    """
    bell = Bell()
    #: under way or not given yet, in the order of the items
    line: deque[_Slot] = deque()
    #: ended and not given yet, if the order does not matter
    done: deque[_Slot] | None = None if ordered else deque()
    under_way = 0
    source = _Source(items)
    try:
        while True:
            # Filling up only when half is done keeps the calls coming in bursts, which travel together.
            if under_way <= window // 2:
                while under_way < window:
                    item = await source.next()
                    if item is _END:
                        break
                    slot = _Slot(bell, done)
                    slot.job = begin(cast("T", item), slot.ended)
                    line.append(slot)
                    under_way += 1
            if not under_way:
                return
            ready = _ready(line, done)
            if ready is None:
                await bell.wait()
                continue
            under_way -= 1
            if ready.outcome is not None:
                yield read(name, ready.outcome)
    finally:
        for slot in line:
            if slot.outcome is None and slot.job is not None:
                cancel(slot.job)


def _ready(line: deque[_Slot], done: deque[_Slot] | None) -> _Slot | None:
    if done is None:
        return line.popleft() if line[0].outcome is not None else None
    if not done:
        return None
    # Those that are given stay in the line until they reach its head, so that nothing is searched for.
    while line and line[0].outcome is not None:
        line.popleft()
    return done.popleft()


_END = object()


class _Source:
    """An iterable of either colour, one item at a time."""

    def __init__(self, items: Iterable[object] | AsyncIterable[object]) -> None:
        self._later: AsyncIterator[object] | None = None
        self._now: Iterator[object] | None = None
        if isinstance(items, AsyncIterable):
            self._later = aiter(items)
        else:
            self._now = iter(items)

    async def next(self) -> object:
        """Return the next item, or `_END` for ever."""
        if self._now is not None:
            return next(self._now, _END)
        return _END if self._later is None else await anext(self._later, _END)
