"""`Pool.map`: order, bounds, endless and slow input, failure, leaving early."""

import asyncio
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from functools import partial
from itertools import count

import anyio
import pytest

from hybridpool import Pool, errors
from tests.integration.pool import functions
from tests.integration.pool.helpers import PATIENCE, Gate, Journal, idle, open_pool

# starting a zygote reads the pipe on which exec would tell its failure
pytestmark = pytest.mark.may_block


async def later(number: int) -> AsyncIterator[int]:
    """Give numbers as a queue would."""
    for value in range(number):
        await anyio.lowlevel.checkpoint()
        yield value


async def take_all(stream: AsyncIterable[object]) -> None:
    """Take whatever comes."""
    async for _ in stream:
        continue


class Counted:
    """Endless input that knows how much of it was taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for number in count():
            self.taken += 1
            yield number

    async def later(self) -> AsyncIterator[int]:
        """Give the same as a queue would."""
        for number in self:
            await anyio.lowlevel.checkpoint()
            yield number


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": use}) for use in (False, True)], ids=str)
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
async def test_values(two: Pool, ordered: bool) -> None:
    """A map returns each value once, and in the order of the items if asked to."""
    for items in (range(500), later(500)):
        values = [value async for value in two.map(functions.add, items, ordered=ordered)]
        assert (values if ordered else sorted(values)) == [number + 1 for number in range(500)]


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
async def test_many_items(two: Pool, ordered: bool) -> None:
    """A map of twenty thousand items returns all of their values."""
    with anyio.fail_after(PATIENCE):
        values = [value async for value in two.map(functions.add, range(20_000), ordered=ordered)]
    assert len(values) == 20_000
    assert sum(values) == sum(range(1, 20_001))


async def test_no_items(two: Pool) -> None:
    """A map of no items ends at once."""
    assert [value async for value in two.map(functions.add, [])] == []
    assert [value async for value in two.map(functions.add, later(0), ordered=False)] == []


async def test_endless_input(two: Pool) -> None:
    """A map reads at most `limit` items of its input ahead of the values that were taken."""
    items = Counted()
    taken = 0
    async for value in two.map(functions.add, items, limit=10):
        taken += 1
        assert value == taken
        assert items.taken <= taken + 10
        if taken == 200:
            break
    await idle(two, 2)


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_limit(limit: int, ordered: bool, gate: Gate) -> None:
    """Exactly `limit` calls of a map are under way at a time, as long as there are items."""
    async with open_pool(4) as pool:
        values: list[int] = []

        async def collect() -> None:
            items = range(6)
            values.extend(
                [v async for v in pool.map(partial(functions.hold, gate.path), items, limit=limit, ordered=ordered)]
            )

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect)
            await gate.came(limit)
            for _ in range(0 if ordered else 6 - limit):
                assert sum(child.in_hand for child in pool.stats()) == limit
                assert gate.nobody()
                gate.let()
                await gate.came()
            gate.let(6)
        assert sorted(values) == list(range(6))


@pytest.mark.parametrize("limit", [0, -1])
async def test_no_limit_at_all(two: Pool, limit: int) -> None:
    """A limit below 1 is refused, also for an empty input."""
    with pytest.raises(errors.ConfigError, match="limit"):
        two.map(functions.add, [1], limit=limit)


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
async def test_values_come_while_the_input_waits(two: Pool, ordered: bool) -> None:
    """Values arrive while the input waits for its next item."""
    given = anyio.Event()

    async def one_by_one() -> AsyncIterator[int]:
        nonlocal given
        for number in range(5):
            given = anyio.Event()
            yield number
            await given.wait()

    values = []
    with anyio.fail_after(PATIENCE):
        async for value in two.map(functions.add, one_by_one(), ordered=ordered):
            values.append(value)
            given.set()
    assert values == [1, 2, 3, 4, 5]


async def test_a_slow_consumer(two: Pool) -> None:
    """The input is not read on while the consumer takes no values."""
    items = Counted()
    stream = two.map(functions.add, items, limit=8)
    assert await anext(stream) == 1
    await idle(two, 2)
    assert items.taken <= 9
    await stream.aclose()


async def test_a_long_one_among_brief_ones(two: Pool, gate: Gate) -> None:
    """The brief calls of a map end while one long call runs, and none runs twice."""
    work = partial(functions.hold_if, gate.path)
    assert len([value async for value in two.map(work, range(1, 500))]) == 499
    others = []
    with anyio.fail_after(PATIENCE):
        async for value in two.map(work, [*range(1, 100), 0, *range(100, 1000)], ordered=False, limit=2000):
            if value:
                others.append(value)
            if len(others) == 999:
                gate.let()
    assert sorted(others) == list(range(1, 1000))
    await gate.came()
    assert gate.nobody(), "it ran twice"


async def test_mixed_durations(two: Pool, journal: Journal) -> None:
    """Calls of mixed durations are spread over both children and run exactly once each."""
    with anyio.fail_after(PATIENCE):
        durations = [0.02 if number % 97 == 0 else 0.0002 if number % 5 == 0 else 0.0 for number in range(2000)]
        pids = [pid async for pid in two.map(functions.spin, durations)]
        assert len(pids) == 2000
        assert len(set(pids)) == 2, "one child did it all"
        assert [value async for value in two.map(partial(functions.note, journal.path), range(2000))] == list(
            range(2000)
        )
    assert sorted(map(int, journal.lines())) == list(range(2000))


@pytest.mark.parametrize("items", [range(100), later(100)], ids=["now", "later"])
async def test_an_exception_comes_in_its_turn(two: Pool, items: Iterable[int]) -> None:
    """An exception is raised at its item's place, after all earlier values, and the rest is given up."""
    values: list[int] = []

    async def collect() -> None:
        async for value in two.map(partial(functions.fail_at, bad=30), items):
            values.append(value)  # noqa: PERF401  # what came before the failure counts

    with pytest.raises(ValueError, match="30"):
        await collect()
    assert values == list(range(30))
    await idle(two, 2)
    assert await two.run(functions.add, 1) == 2


async def test_input_that_fails(two: Pool) -> None:
    """An exception of the input is raised to the consumer and leaves no call running."""

    async def broken() -> AsyncIterator[int]:
        yield 1
        raise KeyError("input")

    def broken_too() -> Iterator[int]:
        yield 1
        raise KeyError("input")

    for items in (broken(), broken_too()):
        with pytest.raises(KeyError, match="input"):
            await take_all(two.map(functions.add, items))
        await idle(two, 2)


async def test_items_that_cannot_be_sent(two: Pool) -> None:
    """An item that cannot be sent raises `CannotSend` in the iteration."""
    with pytest.raises(errors.CannotSend, match="argument 1, a lock"):
        await take_all(two.map(functions.square, [threading.Lock()]))  # type: ignore[arg-type]


async def test_dying_and_late_calls(two: Pool) -> None:
    """A call of a map that loses its child or exceeds its time limit raises its error in the iteration."""
    with pytest.raises(errors.ChildLost, match="note_or_die"):
        await take_all(two.map(partial(functions.note_or_die, os.devnull, deadly=5), range(10)))
    with pytest.raises(errors.TimeLimitExceeded):
        await take_all(two.map(functions.nap, [0, 60], timeout=0.1))


@pytest.mark.parametrize("later_on", [False, True], ids=["now", "later"])
async def test_break_leaves_nothing_running(two: Pool, gate: Gate, later_on: bool) -> None:
    """Leaving an iteration early ends its calls and the reading of its input."""
    work = partial(functions.hold_if, gate.path)
    items = Counted()
    async for value in two.map(work, items.later() if later_on else items, ordered=False, limit=50):
        if value > 60:
            break
    await idle(two, 2)
    taken = items.taken
    assert await two.run(functions.add, 1) == 2
    assert items.taken == taken


async def test_cancelling_an_iteration(two: Pool, gate: Gate) -> None:
    """Cancelling the scope around an iteration cancels the calls that run and those that wait."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take_all, two.map(partial(functions.hold, gate.path), range(4)))
        await gate.came(2)
        tasks.cancel_scope.cancel()
    await idle(two, 2)
    assert gate.nobody(), "the rest was run"


async def test_an_iteration_that_outlives_its_pool(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """An iteration whose pool ends raises `ChildLost` or `PoolClosed`, and logs nothing."""
    waiting: list[asyncio.Future[None]] = []

    async def leave_early() -> None:
        async with open_pool(1) as pool:
            waiting.append(asyncio.ensure_future(take_all(pool.map(partial(functions.hold, gate.path), [1, 2]))))
            await gate.came()
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        await leave_early()
    with pytest.raises((errors.ChildLost, errors.PoolClosed)):
        await waiting[0]
    assert not caplog.records


async def test_several_at_once(two: Pool) -> None:
    """Iterations at the same time each get their own values."""
    sums: dict[int, int] = {}

    async def collect(y: int) -> None:
        sums[y] = sum([value async for value in two.map(partial(functions.add, y=y), range(300))])

    async with anyio.create_task_group() as tasks:
        for y in range(5):
            tasks.start_soon(collect, y)
    assert sums == {y: sum(range(300)) + 300 * y for y in range(5)}
