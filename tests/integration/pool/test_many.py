"""Two hundred children: started, used, replaced and retired; and the descriptors that they take."""

import os
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from hybridpool import Pool
from tests.integration.pool import functions
from tests.integration.pool.helpers import PATIENCE, Gate, idle, open_pool, outcomes
from tests.integration.test_supervised import bench

# starting a zygote reads the pipe on which exec would tell its failure
pytestmark = pytest.mark.may_block

ROOT = Path(__file__).parents[3]
MANY, FEW = 200, 50
CALLS = 2000


def descriptors(pid: int) -> int:
    """Count what a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def zygote_of(pool: Pool) -> int:
    """Return the pid of the pool's zygote."""
    zygote = psutil.Process(pool.stats()[0].pid).parent()
    assert zygote is not None
    return zygote.pid


async def test_all_at_once(gate: Gate) -> None:
    """Two hundred children start, work at the same time, and end with the pool."""
    async with open_pool(MANY, preload=[functions.__name__]) as pool:
        calls = [pool.submit(functions.hold, gate.path, number) for number in range(CALLS)]
        found = set(await gate.came(MANY))
        assert len(found) == MANY
        gate.let(CALLS)
        assert await outcomes(calls) == list(range(CALLS))
    assert not any(map(psutil.pid_exists, found))


async def test_what_they_take(gate: Gate) -> None:
    """Children that come and go leave no descriptor in the parent or in the zygote, and each takes the same number."""
    async with open_pool(1):
        # the first one opens the files that are opened once
        pass
    before = descriptors(os.getpid())
    async with open_pool(FEW, preload=[functions.__name__]) as pool:
        await idle(pool, FEW)
        zygote = zygote_of(pool)
        few, zygotes = descriptors(os.getpid()), descriptors(zygote)
        await pool.resize(MANY)
        many = descriptors(os.getpid())
        assert (many - few) % (MANY - FEW) == 0, "not the same for each"
        for child in pool.stats()[:20]:
            await pool.recycle(child.name)
        await outcomes([pool.submit(functions.die) for _ in range(20)])
        await idle(pool, MANY)
        assert descriptors(os.getpid()) == many
        assert {descriptors(child.pid) for child in pool.stats()} == {descriptors(pool.stats()[0].pid)}
        await pool.resize(FEW)
        await idle(pool, FEW)
        assert descriptors(os.getpid()) == few
        assert descriptors(zygote) == zygotes
    assert descriptors(os.getpid()) == before


@pytest.mark.slow
async def test_recycled_all_the_time() -> None:
    """Many children that are replaced every five calls run all calls, in order."""
    async with open_pool(MANY, max_tasks_per_child=5) as pool:
        assert [value async for value in pool.map(abs, range(CALLS))] == list(range(CALLS))


async def test_a_crew() -> None:
    """A worker's lane with many children starts, runs all calls, and drains."""
    async with bench(MANY) as at_work:
        with anyio.fail_after(PATIENCE):
            for _ in range(CALLS):
                at_work.submit("add", 1, 2)
            ended = await at_work.ended.take(CALLS, PATIENCE)
        assert {one.value for one in ended} == {3}
        at_work.supervised.stop_taking()
        assert await at_work.supervised.drain(PATIENCE)


def limited(size: int, soft: int, hard: int) -> list[str]:
    """Run a program with a pool under limits of descriptors; return what it printed."""
    words = [sys.executable, "-m", "tests.integration.pool.limited", *map(str, (size, soft, hard))]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_more_than_the_soft_limit_allows() -> None:
    """A pool that needs more descriptors than the soft limit raises that limit and works."""
    assert limited(MANY, 256, 4096)[0] == f"{MANY} children"


def test_more_than_the_hard_limit_allows() -> None:
    """A pool beyond the hard limit of descriptors is refused, with the number of children that fit; that many do."""
    [error, after] = limited(MANY, 256, 256)
    assert error.startswith(
        "ConfigError: 200 children take 600 file descriptors, and this process may have 256 (RLIMIT_"
    )
    fit = int(error.split()[-2])
    assert 50 < fit < 85
    [children, after_pool] = limited(fit, 256, 256)
    assert children == f"{fit} children"
    assert after == after_pool
