"""Processes that tasks leave end with their child, whatever their session and their parent are now."""

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import psutil
import pytest

from hybridpool import errors
from hybridpool._child import process_isolation
from tests.faults.helpers import wait_gone
from tests.integration.pool import functions, has_helper, stray_processes
from tests.integration.pool.helpers import PATIENCE, Gate, Journal, idle, open_pool

# starting a zygote reads the pipe on which exec would tell its failure
pytestmark = pytest.mark.may_block

ROOT = Path(__file__).parents[3]
#: bytes
LIMIT = 64 * 2**20
SIGNALS = {"killed": signal.SIGKILL, "crashed": signal.SIGSEGV}


class Enough(Exception):
    """Ends a block in the middle."""


def families(journal: Journal) -> dict[int, list[psutil.Process]]:
    """Return what each child has started, by the child's pid; it is all there."""
    lines = [list(map(int, line.split())) for line in journal.lines()]
    return {child: [psutil.Process(pid) for pid in started] for child, *started in lines}


async def gone(left: list[psutil.Process]) -> None:
    """Wait until none of them is there."""
    assert left
    with anyio.fail_after(PATIENCE):
        while any(process.is_running() for process in left):
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("kind", stray_processes.KINDS)
@pytest.mark.parametrize("how", ["timed out", "cancelled", "killed", "crashed"])
async def test_killed(kind: str, how: str, gate: Gate, journal: Journal) -> None:
    """What the tasks of a killed child started is killed with it, and what other children's tasks started is not."""
    words = kind, journal.path, gate.path
    stays: list[psutil.Process] = []
    # long enough for the call to come to the gate on a busy machine
    limit = 6.0 if how == "timed out" else None

    async def use() -> None:
        async with open_pool(2, grace=0.0) as pool, anyio.create_task_group() as tasks:
            await idle(pool, 2)
            other = pool.submit(stray_processes.start_and_stay, *words)
            [safe] = await gate.came()
            call = partial(pool.run, stray_processes.start_and_stay, *words, timeout=limit)
            cancelled = anyio.CancelScope()
            tasks.start_soon(in_scope, cancelled, call)
            [doomed] = await gate.came()
            started = families(journal)
            if how == "cancelled":
                cancelled.cancel()
            elif how in SIGNALS:
                os.kill(doomed, SIGNALS[how])
            await gone(started[doomed])
            stays.extend(started[safe])
            assert all(process.is_running() for process in stays)
            assert other.state == "running"
            raise Enough

    with pytest.raises(BaseExceptionGroup) as caught:
        await use()
    assert [type(error) for error in caught.value.exceptions] == [Enough]
    await gone(stays)


async def in_scope(scope: anyio.CancelScope, call: Callable[[], Awaitable[object]]) -> None:
    """Wait for a call that may be given up, and will be lost."""
    with scope, suppress(errors.ChildLost, errors.TimeLimitExceeded):
        await call()


@pytest.mark.parametrize("kind", stray_processes.KINDS)
@pytest.mark.parametrize("how", ["recycled", "over its memory", "pool left"])
async def test_retired(kind: str, how: str, gate: Gate, journal: Journal) -> None:
    """A child that retires in order takes with it what its tasks started."""
    own = 2 * LIMIT if how == "over its memory" else 0
    memory = LIMIT if own else None
    async with open_pool(1, max_memory_per_child=memory) as pool:
        call = pool.submit(stray_processes.start_and_stay, kind, journal.path, gate.path, own)
        await gate.came()
        [started] = families(journal).values()
        gate.let()
        await call
        if how == "recycled":
            await pool.recycle(call.child)
        if how != "pool left":
            await gone(started)
    await gone(started)


@pytest.mark.parametrize("kind", stray_processes.KINDS)
def test_parent_killed(kind: str) -> None:
    """When the pool's process is killed, what its tasks started is killed too."""
    words = [sys.executable, "-m", stray_processes.__name__, kind]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        started = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert started
    wait_gone(started, PATIENCE)


def test_parent_killed_before_it_has_heard_all() -> None:
    """A zygote that cannot report to its stopped parent still kills what tasks started, once the parent is dead."""
    words = [sys.executable, "-m", stray_processes.__name__, "own session"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        left = psutil.Process(int(parent.stdout.readline()))
        child = left.parent()
        assert child is not None
        zygote = child.parent()
        assert zygote is not None
        parent.send_signal(signal.SIGSTOP)
        others = [other for other in zygote.children() if other != child]
        for other in others:
            other.kill()
        wait_gone(others, PATIENCE)
        parent.kill()
    assert others
    wait_gone([left], PATIENCE)


@pytest.mark.parametrize("kind", stray_processes.KINDS)
async def test_zygote_killed(kind: str) -> None:
    """When the zygote is killed, what tasks started is killed too."""
    async with open_pool(1) as pool:
        started = [psutil.Process(pid) for pid in await pool.run(stray_processes.start, kind)]
        zygote = psutil.Process(pool.stats()[0].pid).parent()
        assert zygote is not None
        zygote.kill()
        await gone(started)


async def test_what_the_app_itself_started_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper process that a preloaded module started is not killed when children are recycled."""
    monkeypatch.setenv(has_helper.WANTED, "1")
    async with open_pool(1, preload=[has_helper.__name__]) as pool:
        helper = psutil.Process(await pool.run(has_helper.pid))
        for child in range(1, 4):
            await pool.recycle(f"ForkPoolWorker-{child}")
        assert helper.is_running()
        helper.kill()


async def test_nobody_else_is_hurt(gate: Gate, journal: Journal) -> None:
    """A pool within a task works, and deaths of other children do not kill the processes of a running task."""
    async with open_pool(2) as pool:
        held = pool.submit(stray_processes.start_and_stay, "daemon", journal.path, gate.path)
        await gate.came()
        [daemon] = families(journal).values()
        for _ in range(3):
            assert await pool.run(stray_processes.by_a_pool, 5) == [0, 1, 4, 9, 16]
            with pytest.raises(errors.ChildLost):
                await pool.run(functions.die)
        assert all(process.is_running() for process in daemon)
        gate.let()
        await held
    await gone(daemon)


@pytest.mark.parametrize("can_list", [True, False])
def test_whose_they_are(can_list: bool, tmp_path: Path) -> None:
    """The reaper kills orphans that carry the tag and no others, with and without the kernel's list of children."""
    # a name that looks like what follows it
    odd = tmp_path / ") R 1 ("
    odd.symlink_to("/bin/sleep")
    orphans = process_isolation.OrphanReaper()
    if not can_list:
        orphans.close()
        orphans._children_fd = -1
    marked = [subprocess.Popen([odd, "3600"], preexec_fn=process_isolation.tag_descendants) for _ in range(2)]  # noqa: PLW1509
    own = subprocess.Popen([odd, "3600"])
    orphan, others = (process.pid for process in marked)
    try:
        assert orphans.kill({others}) == [orphan]
        assert marked[0].wait(PATIENCE) == -signal.SIGKILL
        assert orphans.kill({others}) == []
        assert own.poll() is marked[1].poll() is None
    finally:
        for process in (*marked, own):
            process.kill()
            process.wait()
        orphans.close()
