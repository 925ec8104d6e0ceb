"""The system's limits: no descriptor, process or memory for another child, signals without end, frames cut in two."""

import asyncio
import os
import re
import resource
import signal
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from hybridpool import Pool, errors, events
from hybridpool._lanes import reconciler
from hybridpool._pool.call import Call
from tests.contract.inbox import Events
from tests.faults import short, stormy
from tests.integration.pool import functions
from tests.integration.pool.helpers import PATIENCE, idle, open_pool, outcomes

# starting a zygote reads the pipe on which exec would tell its failure, and a large message is written into memory
pytestmark = pytest.mark.may_block

#: MiB
SIZES = (1, 2, 4, 8)


@pytest.fixture
async def troubles() -> AsyncIterator[list[dict[str, object]]]:
    """Hear of exceptions in callbacks of the loop; there must be none."""
    found: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    yield found
    assert not found


def zygote_of(pool: Pool) -> psutil.Process:
    """Return the pool's zygote."""
    zygote = psutil.Process(pool.stats()[0].pid).parent()
    assert zygote is not None
    return zygote


@contextmanager
def limited(pid: int, limit: int, soft: int) -> Iterator[None]:
    """Lower a soft limit of another process for a time."""
    old, hard = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (soft, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, limit, (old, hard))


async def failed(observed: Events, number: int) -> str:
    """Wait for so many failed starts that failed; return why the last did."""
    await observed.see(events.ChildStartFailed, number, PATIENCE)
    return observed.of(events.ChildStartFailed)[-1].cause


async def experienced(pool: Pool, number: int) -> None:
    """Have each of the children run a call: one that dies before counts as failed to start."""
    await idle(pool, number)
    while any(not child.tasks for child in pool.stats()):
        await outcomes([pool.submit(functions.nap, 0.01) for _ in range(number)])


def kill_children(pool: Pool, number: int) -> None:
    """Kill some."""
    for child in pool.stats()[:number]:
        os.kill(child.pid, signal.SIGKILL)


# ---- descriptors -----------------------------------------------------------------------------------------------------


def descriptors(pid: int) -> set[int]:
    """Return the numbers of what a process has open."""
    entries = list(Path(f"/proc/{pid}/fd").iterdir())
    # without the one that listed them
    return {int(entry.name) for entry in entries if entry.is_symlink()}


def limit_for(pid: int, free: int) -> int:
    """Return the limit under which a process may have so many more descriptors."""
    taken, limit = descriptors(pid), 0
    while limit in taken or free:
        free -= limit not in taken
        limit += 1
    return limit


@pytest.mark.parametrize("free", [0, 1])
async def test_zygote_out_of_descriptors(free: int, troubles: object) -> None:
    """A zygote without free descriptors says so, lives on, and forks again when it has some."""
    observed = Events()
    async with open_pool(2, on_event=observed) as pool:
        await experienced(pool, 2)
        zygote = zygote_of(pool)
        before = descriptors(zygote.pid)
        with limited(zygote.pid, resource.RLIMIT_NOFILE, limit_for(zygote.pid, free)):
            kill_children(pool, 1)
            cause = await failed(observed, 2)
            assert re.search(r"no file descriptor is left in the zygote, which may have \d+ \(`ulimit -n`\)", cause)
            assert await pool.run(abs, -1) == 1, "the other one"
            assert descriptors(zygote.pid) == before
        await idle(pool, 2)
        assert zygote_of(pool) == zygote
        assert descriptors(zygote.pid) == before


@pytest.mark.parametrize("free", [0, 1, 2])
async def test_parent_out_of_descriptors(free: int, troubles: object) -> None:
    """A large result that finds no free descriptor fails or arrives, and the pool goes on."""
    async with open_pool(2) as pool:
        await experienced(pool, 2)
        with limited(os.getpid(), resource.RLIMIT_NOFILE, limit_for(os.getpid(), free)):
            large = pool.submit(functions.zeros, 2**20)
            [found] = await outcomes([large])
            assert found == bytes(2**20) or isinstance(found, errors.HybridpoolError)
            assert await pool.run(abs, -1) == 1
        assert await pool.run(functions.zeros, 2**20) == bytes(2**20)
        await idle(pool, 2)


# ---- processes and memory --------------------------------------------------------------------------------------------

#: the shortages, and the errors about them
REASONS = {
    "processes": r"fork: Resource temporarily unavailable; this user may have 1 processes \(`ulimit -u`\)",
    "memory": r"fork: Cannot allocate memory",
}


class Shortage:
    """Zygotes that can run short of something."""

    def __init__(self, of: str, folder: Path) -> None:
        self.reason = REASONS[of]
        self._flag = folder / "short"

    @contextmanager
    def now(self) -> Iterator[None]:
        """Have their forks fail for a time."""
        self._flag.touch()
        yield
        self._flag.unlink()


@pytest.fixture(params=REASONS)
def shortage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shortage]:
    """Have zygotes that can run short."""
    with TemporaryDirectory() as folder:
        # a zygote of another user looks into it
        Path(folder).chmod(0o711)
        monkeypatch.setenv(short.WHAT, request.param)
        monkeypatch.setenv(short.WHILE, f"{folder}/short")
        yield Shortage(request.param, Path(folder))


async def test_no_fork_for_a_while(shortage: Shortage, troubles: object) -> None:
    """While no process can be forked, calls wait and attempts pause longer; then all calls run."""
    observed = Events()
    async with open_pool(2, preload=[short.__name__], on_event=observed) as pool:
        await experienced(pool, 2)
        zygote = zygote_of(pool)
        with shortage.now():
            kill_children(pool, 2)
            calls = [pool.submit(abs, -number) for number in range(100)]
            cause = await failed(observed, 3)
            assert re.search(shortage.reason, cause)
            waits = [event.retry_in for event in observed.of(events.ChildStartFailed)]
            assert waits[-1] > waits[0], "no longer wait each time"
            assert {call.state for call in calls} == {"waiting"}
        assert await outcomes(calls) == list(range(100))
        await idle(pool, 2)
        assert zygote_of(pool) == zygote


async def test_no_fork_any_more(shortage: Shortage, monkeypatch: pytest.MonkeyPatch, troubles: object) -> None:
    """If no process can be forked any more, the pool gives up, says why, and fails the calls that wait."""
    monkeypatch.setattr(reconciler, "FAILED_STARTS_TO_GIVE_UP", 3)
    waiting: list[Call[int]] = []

    async def use() -> None:
        async with open_pool(2, preload=[short.__name__]) as pool:
            await experienced(pool, 2)
            with shortage.now():
                kill_children(pool, 2)
                waiting.append(pool.submit(abs, -1))
                await pool.run(abs, -2)

    with pytest.raises(errors.ChildStartFailed, match=shortage.reason):
        await use()
    [found] = await outcomes(waiting)
    assert isinstance(found, errors.PoolError)


# ---- signals ---------------------------------------------------------------------------------------------------------


@contextmanager
def rain(zygote: int) -> Iterator[None]:
    """Have signals fall on this process, the zygote and whatever children it has."""
    old = {number: signal.signal(number, lambda *_: None) for number in stormy.RAIN}
    dry = threading.Event()

    def fall() -> None:
        kin = Path(f"/proc/{zygote}/task/{zygote}/children")
        while not dry.wait(0.0005):
            below = zygote, *map(int, kin.read_text().split())
            drops = [(pid, number) for pid in (os.getpid(), *below) for number in stormy.RAIN]
            # as an init system does; that we are not to stop for it is known below
            drops += [(pid, signal.SIGTERM) for pid in below]
            for pid, number in drops:
                # between look and signal a child may have gone
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    cloud = threading.Thread(target=fall)
    cloud.start()
    try:
        yield
    finally:
        dry.set()
        cloud.join()
        for number, handler in old.items():
            signal.signal(number, handler)


async def test_signals_all_the_time(troubles: object) -> None:
    """Signals at any moment lose no call, no result and no child."""
    observed = Events()
    orders = {"preload": [stormy.__name__], "initializer": stormy.alarmed, "max_tasks_per_child": 250}
    async with open_pool(2, **orders, on_event=observed) as pool:
        await idle(pool, 3)
        with rain(zygote_of(pool).pid):
            sizes = [len(value) async for value in pool.map(stormy.at_most, range(5000))]
    assert sizes == [number if number % 500 else 2**20 for number in range(5000)]
    assert not [event for event in observed.of(events.ChildGone) if not event.expected]
    assert len(observed.of(events.ChildGone)) >= 5000 // 250


# ---- torn frames -----------------------------------------------------------------------------------------------------


def children_lost(found: Sequence[object]) -> list[str]:
    """Return the children that died in these calls, which all came to one of the two ends they may come to."""
    lost = [one for one in found if not isinstance(one, bytes | int)]
    assert {type(one) for one in lost} <= {errors.ChildLost}
    return [str(one).split()[0] for one in lost]


async def test_child_killed_while_it_sends(troubles: object) -> None:
    """A child killed while it sends loses one call, and no half of a result is taken for a whole."""
    observed = Events()
    async with open_pool(2, on_event=observed) as pool:
        calls: list[Call[bytes] | Call[int]] = []
        for number in range(48):
            size = SIZES[number % len(SIZES)] * 2**20
            calls.append(pool.submit(stormy.big_and_doomed, size, number * 0.0002))
            calls += [pool.submit(abs, -small) for small in range(10)]
        found = await outcomes(calls)
        values = [one if isinstance(one, int) else len(one) for one in found if isinstance(one, bytes | int)]
        assert set(values) <= {*range(10), *(size * 2**20 for size in SIZES)}
        lost = children_lost(found)
        assert lost
        assert len(lost) == len(set(lost)), "a child took two calls with it"
        dead = [event.child for event in observed.of(events.ChildGone) if not event.expected]
        assert set(lost) <= set(dead)
        assert await pool.run(abs, -1) == 1


async def test_zygote_killed_while_children_send(troubles: object) -> None:
    """A zygote killed while its children send costs at most one call per child."""
    async with open_pool(2) as pool:
        await idle(pool, 2)
        for _ in range(3):
            calls: list[Call[bytes] | Call[int]] = []
            for number in range(12):
                calls.append(pool.submit(functions.zeros, SIZES[number % len(SIZES)] * 2**20))
                calls += [pool.submit(abs, -small) for small in range(10)]
            await calls[11 * 3]
            zygote_of(pool).kill()
            found = await outcomes(calls)
            lost = children_lost(found)
            assert len(lost) == len(set(lost)) <= 2
            await idle(pool, 2)


# ---- large orders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [60_000, 200_000, 3_000_000])
async def test_large_initializer(size: int, troubles: object) -> None:
    """An initializer of any size reaches the children."""
    async with open_pool(2, initializer=partial(functions.length, bytes(size)), max_tasks_per_child=3) as pool:
        found = await outcomes([pool.submit(functions.resource) for _ in range(12)])
        assert found == [size] * 12
