"""`Pool.run`: values, exceptions, limits, cancellation, crashes, and what can be sent."""

import asyncio
import functools
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from hybridpool import Pool, errors
from tests.integration.pool import functions
from tests.integration.pool.helpers import PATIENCE, Gate, Journal, idle, open_pool, outcomes, waited

# starting a zygote reads the pipe on which exec would tell its failure, and a large message is written into memory
pytestmark = pytest.mark.may_block

ROOT = Path(__file__).parents[3]
#: seconds by which a kill may come after its limit
LATE = 0.05
#: the least of so many is looked at: a busy machine may hold up most of them
ATTEMPTS = 30
#: seconds: more than a busy machine takes for an immediate step, and less than any wait of the pool's
SOON = PATIENCE / 2


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": use}) for use in (False, True)], ids=str)
async def test_values(one: Pool) -> None:
    """`run` returns the function's value, computed in another process, on asyncio's loop and on uvloop."""
    assert await one.run(functions.add, 1) == 2
    assert await one.run(functions.add, 1, y=5) == 6
    assert await one.run(functions.who) not in (0, os.getpid())


@pytest.mark.parametrize(
    ("function", "arguments", "value"),
    [
        (math.sqrt, (4,), 2.0),
        (str.upper, ("a",), "A"),
        ("a-b".split, ("-",), ["a", "b"]),
        (Path("/a/b").with_name, ("c",), Path("/a/c")),
        (Path, ("/a",), Path("/a")),
        (Counter.fromkeys, ("ab", 2), None),
        (functools.partial(functions.add, 2, y=3), (), 5),
        (functools.partial(functions.add, y=3), (4,), 7),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0][:40],
)
async def test_whatever_pickles_is_called(one: Pool, function: Any, arguments: tuple[Any, ...], value: object) -> None:
    """Methods, classes, partials and builtins can be called."""
    if value is None:
        with pytest.raises(NotImplementedError):
            await one.run(function, *arguments)
    else:
        assert await one.run(function, *arguments) == value


async def test_large_values(two: Pool) -> None:
    """Arguments and results of megabytes arrive complete, many at a time."""
    assert await outcomes([two.submit(functions.length, bytes(5_000_000)) for _ in range(10)]) == [5_000_000] * 10
    assert {len(found) for found in await outcomes([two.submit(functions.zeros, 5_000_000) for _ in range(10)])} == {  # type: ignore[arg-type]
        5_000_000
    }


async def test_a_pool_that_is_not_there() -> None:
    """A call to a pool that is not entered, or was left, raises `PoolClosed`; a pool can be entered again."""
    pool = Pool(1)
    with pytest.raises(errors.PoolClosed, match="async with"):
        await pool.run(functions.add, 1)
    async with pool:
        await pool.run(functions.add, 1)
    with pytest.raises(errors.PoolClosed):
        await pool.run(functions.add, 1)
    async with pool:
        assert await pool.run(functions.add, 1) == 2


# ---- exceptions ------------------------------------------------------------------------------------------------------


async def test_exceptions(one: Pool) -> None:
    """An exception keeps its type and arguments, has the child's traceback as a note, and its child lives on."""
    child = await one.run(functions.who)
    with pytest.raises(ValueError, match="wrong") as caught:
        await one.run(functions.fail, "wrong", 3)
    assert caught.value.args == ("wrong", 3)
    [note] = caught.value.__notes__
    assert "In the child" in note
    assert "pool/functions.py" in note
    assert "in fail" in note
    assert await one.run(functions.who) == child, "it cost the child its life"


async def test_exceptions_that_do_not_travel(one: Pool) -> None:
    """An exception that cannot be unpickled is raised as `TaskFailed`, with its type's name and the traceback."""
    with pytest.raises(errors.TaskFailed, match="Odd") as caught:
        await one.run(functions.fail_oddly)
    assert caught.value.kind == f"{functions.__name__}.Odd"
    assert "in fail_oddly" in caught.value.traceback
    assert "in fail_oddly" in caught.value.__notes__[0]


async def test_leaving_the_interpreter(one: Pool) -> None:
    """A function that calls sys.exit fails its call; neither its child nor the caller's program ends."""
    child = await one.run(functions.who)
    with pytest.raises(errors.TaskFailed, match="SystemExit"):
        await one.run(functions.leave, 3)
    assert await one.run(functions.who) == child


async def test_an_exception_leaves_the_block_as_it_is() -> None:
    """An exception leaves the pool's block as it was raised, not wrapped in a group."""
    with pytest.raises(ValueError, match="wrong") as caught:
        async with open_pool(1) as pool:
            await pool.run(functions.fail, "wrong")
    assert caught.value.__cause__ is None
    group = ExceptionGroup("the user's own", [KeyError(1), KeyError(2)])
    with pytest.raises(ExceptionGroup) as caught_group:
        async with open_pool(1):
            raise group
    assert caught_group.value is group


# ---- time limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (functions.nap, (60,)),
        (functions.loop, ()),
        (functions.count, ()),
        (functions.match, ()),
        (functions.deaf, ()),
        (functions.length, (functions.Stuck(),)),
    ],
    ids=["sleep", "python", "sum", "regex", "catches everything", "unpickling"],
)
async def test_time_limit(one: Pool, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """A hard time limit ends a call soon after its time, also where no signal reaches its code."""
    late = []
    for _ in range(ATTEMPTS):
        await idle(one, 1)
        before = time.monotonic()
        with pytest.raises(errors.TimeLimitExceeded, match=r"0\.1 s"):
            await one.run(function, *arguments, timeout=0.1)
        late.append(time.monotonic() - before - 0.1)
        if late[-1] < LATE:
            break
    assert min(late) >= 0, "too early"
    assert min(late) < LATE
    assert await one.run(functions.add, 1) == 2


async def test_time_limit_of_the_pool() -> None:
    """The pool's time limit holds for calls that have none, and a call's own limit goes before it."""
    async with open_pool(1, time_limit=0.1) as pool:
        with pytest.raises(TimeoutError):
            await pool.run(functions.nap, 60)
        assert await pool.run(functions.nap, 0.2, timeout=PATIENCE) == 0.2


async def test_time_begins_with_the_work(one: Pool, gate: Gate) -> None:
    """A time limit starts when the call begins, not while it waits."""
    # enough for a busy machine to run a call that takes no time
    limit = 3.0
    held = one.submit(functions.hold, gate.path)
    await gate.came()
    async with anyio.create_task_group() as tasks:

        async def limited() -> None:
            assert await one.run(functions.add, 1, timeout=limit) == 2

        tasks.start_soon(limited)
        with pytest.raises(TimeoutError):
            with anyio.fail_after(limit + 0.1):
                await held
        gate.let()


async def test_soft_time_limit(one: Pool, gate: Gate, journal: Journal) -> None:
    """A soft limit is raised in the task, passes `except Exception`, and leaves the child alive after the clean-up."""
    child = await one.run(functions.who)
    with pytest.raises(errors.TimeLimitExceeded, match=r"careless ran over its soft time limit of 0\.1 s"):
        await one.run(functions.careless, gate.path, timeout=None, soft_timeout=0.1)
    # enough for a busy machine to come to where the task cleans up
    value = await one.run(functions.careful, gate.path, journal.path, timeout=PATIENCE, soft_timeout=2)
    assert value == "cleaned up"
    assert journal.lines() == ["SoftTimeLimitExceeded(2.0,)"]
    assert await one.run(functions.who) == child


async def test_soft_time_limit_of_the_pool(gate: Gate) -> None:
    """The pool's soft limit holds for each call, and the hard limit follows if the task ignores it."""
    async with open_pool(1, soft_time_limit=0.1, time_limit=3) as pool:
        with pytest.raises(errors.TimeLimitExceeded, match="soft"):
            await pool.run(functions.nap, 60)
        with pytest.raises(errors.TimeLimitExceeded):
            await pool.run(functions.deaf)


async def test_a_time_limit_hits_no_other_call() -> None:
    """A time limit that ends together with its call does not hit the child's next call."""
    rng = random.Random(1)
    hit = 0
    async with open_pool(1) as pool:
        await pool.run(functions.spin, 0.004)
        for _ in range(150):
            async with anyio.create_task_group() as tasks:

                async def limited() -> None:
                    nonlocal hit
                    try:
                        # timers of uvloop tick once a millisecond
                        await pool.run(functions.spin, 0.0028 + rng.random() * 0.0015, timeout=0.003)
                    except errors.TimeLimitExceeded:
                        hit += 1

                tasks.start_soon(limited)
                tasks.start_soon(pool.run, functions.spin, 0.003)
    assert hit > 0, "the test did not test"


# ---- cancellation ----------------------------------------------------------------------------------------------------


async def test_cancelling_a_call_that_waits(one: Pool, gate: Gate, journal: Journal) -> None:
    """A cancelled call that waits ends at once and never runs."""
    held = one.submit(functions.hold, gate.path)
    await gate.came()
    before = time.monotonic()
    with anyio.move_on_after(0.05) as scope:
        await one.run(functions.note, journal.path, "ran")
    assert scope.cancelled_caught
    assert time.monotonic() - before < SOON, "it waited for something"
    gate.let()
    await held
    await one.run(functions.add, 1)
    assert journal.lines() == []


async def test_cancelling_a_call_that_runs(one: Pool, gate: Gate, journal: Journal) -> None:
    """A cancelled call that runs gets `TaskCancelled`, and its child lives on if the call stops."""
    child = await one.run(functions.who)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run, functions.careful, gate.path, journal.path)
        await gate.came()
        before = time.monotonic()
        tasks.cancel_scope.cancel()
    assert time.monotonic() - before < SOON
    assert journal.lines() == ["TaskCancelled('cancelled',)"]
    assert await one.run(functions.who) == child


async def test_cancelling_by_asyncio(one: Pool, gate: Gate, journal: Journal) -> None:
    """Timeouts and cancellations of asyncio cancel a call as anyio's scopes do."""
    child = await one.run(functions.who)
    task = asyncio.ensure_future(one.run(functions.careful, gate.path, journal.path))
    await gate.came()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 0.01)
    task = asyncio.ensure_future(one.run(functions.careful, gate.path, journal.path))
    await gate.came()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(journal.lines()) == 2
    assert await one.run(functions.who) == child


async def test_a_call_that_does_not_want_to_stop(gate: Gate) -> None:
    """A cancelled call that ignores it is killed after the grace."""
    async with open_pool(1, grace=0.2) as pool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.run, functions.wait_deaf, gate.path)
            [pid] = await gate.came()
            before = time.monotonic()
            tasks.cancel_scope.cancel()
        assert 0.2 <= time.monotonic() - before < SOON
        assert not psutil.pid_exists(pid)
        assert await pool.run(functions.add, 1) == 2


async def test_cancelling_before_the_child_has_looked(gate: Gate) -> None:
    """A cancellation that reaches the child before it has read the call cancels that call when it is read."""
    async with open_pool(1, grace=PATIENCE) as pool:
        child = psutil.Process(await pool.run(functions.who))
        child.suspend()
        with anyio.fail_after(PATIENCE):
            while child.status() != psutil.STATUS_STOPPED:
                await anyio.lowlevel.checkpoint()
        call = pool.submit(functions.nap, 60)
        call.cancel()
        zygote = child.parent()
        assert zygote is not None
        with anyio.fail_after(PATIENCE):
            # the zygote has passed the signal on
            while not pending(child.pid, signal.SIGUSR1):
                await anyio.lowlevel.checkpoint()
        child.resume()
        assert isinstance(await waited(call), errors.TaskCancelled)
        assert await pool.run(functions.who) == child.pid


def pending(pid: int, signum: int) -> bool:
    """Tell whether a signal waits for a process."""
    words = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool((int(words["ShdPnd"], 16) | int(words["SigPnd"], 16)) >> (signum - 1) & 1)


async def test_cancelling_behind_a_call_that_runs(gate: Gate, journal: Journal) -> None:
    """A cancelled call in a child's channel, behind one that runs, never runs; the calls around it do."""
    async with open_pool(1, grace=PATIENCE) as pool:
        for _ in range(50):
            await pool.run(functions.hold_if, gate.path, 1)
            await pool.run(functions.note, os.devnull, 1)
        calls = [
            pool.submit(functions.hold_if, gate.path, 0),
            *(pool.submit(functions.note, journal.path, number) for number in range(5)),
        ]
        await anyio.lowlevel.checkpoint()
        assert pool.stats()[0].in_hand == 6, "they lie in its channel"
        calls[2].cancel()
        await gate.came()
        calls[5].cancel()
        assert isinstance(await waited(calls[2]), errors.TaskCancelled)
        gate.let()
        await outcomes(calls)
        assert journal.lines() == ["0", "2", "3"]


@pytest.mark.parametrize("grace", [0, 1])
@pytest.mark.parametrize("seconds", [0.0003, 0.002])
async def test_cancelling_hits_no_other_call(grace: float, seconds: float) -> None:
    """A cancellation hits the call it is meant for and none of the calls around it."""
    rng = random.Random(grace)
    others: list[BaseException] = []
    hits = 0
    async with open_pool(1, grace=grace) as pool:
        for _ in range(30):
            await pool.run(functions.spin, seconds)
        for _ in range(200 if seconds < 0.001 else 60):
            calls = [pool.submit(functions.spin, seconds) for _ in range(8)]
            chosen = rng.randrange(8)
            await anyio.sleep(rng.random() * 8 * seconds)
            calls[chosen].cancel()
            for number, outcome in enumerate(await outcomes(calls)):
                if isinstance(outcome, BaseException):
                    if number == chosen:
                        assert isinstance(outcome, errors.TaskCancelled)
                        hits += 1
                    else:
                        others.append(outcome)
    assert others == []
    assert hits > 5, "the test did not test"


# ---- death -----------------------------------------------------------------------------------------------------------


async def test_a_crash_costs_one_call(two: Pool, journal: Journal) -> None:
    """A child's death loses the one call it ran; all others run exactly once."""
    calls = [two.submit(functions.note_or_die, journal.path, number, 2500) for number in range(5000)]
    found = await outcomes(calls)
    lost = [(number, one) for number, one in enumerate(found) if isinstance(one, BaseException)]
    assert [number for number, _ in lost] == [2500]
    assert isinstance(lost[0][1], errors.ChildLost)
    assert "SIGKILL" in str(lost[0][1])
    assert "note_or_die" in str(lost[0][1])
    assert Counter(journal.lines()) == Counter(str(number) for number in range(5000) if number != 2500)


async def test_crashes_again_and_again(two: Pool) -> None:
    """Ten deaths in a row leave the pool at its full size."""
    found = await outcomes([two.submit(functions.die) for _ in range(10)])
    assert [type(one) for one in found] == [errors.ChildLost] * 10
    assert await two.run(functions.add, 1) == 2
    await idle(two, 2)


# ---- what can be sent ------------------------------------------------------------------------------------------------


async def test_local_functions(one: Pool) -> None:
    """With cloudpickle a lambda or a local function can be called, mapped and returned."""
    offset = 40
    assert await one.run(lambda x: x + offset, 2) == 42
    assert (await one.run(functions.local_function))() == 42
    assert await one.run(functions.hold_if, "", number=1) == 1
    assert [value async for value in one.map(lambda x: x * offset, [1, 2])] == [40, 80]


@pytest.mark.parametrize("installed", [True, False], ids=["cloudpickle", "no cloudpickle"])
async def test_what_cannot_be_sent(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument or result that cannot be sent raises an error that names it, and the child lives on."""
    lock = threading.Lock()
    if not installed:
        monkeypatch.setitem(sys.modules, "cloudpickle", None)
    preload = [] if installed else ["tests.integration.pool.no_cloudpickle"]
    async with open_pool(1, preload=preload) as pool:
        with pytest.raises(errors.CannotSend, match="add: argument 2, a lock, cannot be sent"):
            await pool.run(functions.add, 1, lock)  # type: ignore[call-overload]
        with pytest.raises(errors.CannotSend, match="add: y, a lock, cannot be sent"):
            await pool.run(functions.add, 1, y=lock)  # type: ignore[arg-type]
        with pytest.raises(errors.CannotSend, match="unsendable returned a lock that cannot be sent back"):
            await pool.run(functions.unsendable)
        assert await pool.run(functions.add, 1) == 2
        assert [len(child.name) > 0 for child in pool.stats()] == [True]


async def test_the_argument_that_cannot_be_sent_is_named_with_cloudpickle(one: Pool) -> None:
    """The error names the argument that cannot be sent, not the one that cloudpickle could send."""
    with pytest.raises(errors.CannotSend, match="argument 2, a lock"):
        await one.run(functions.add, lambda: 1, threading.Lock())  # type: ignore[call-overload]


async def test_local_functions_without_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cloudpickle the error names the local function that would need it."""
    monkeypatch.setitem(sys.modules, "cloudpickle", None)

    def local() -> None: ...

    async with open_pool(1, preload=["tests.integration.pool.no_cloudpickle"]) as pool:
        for function, name in ((local, "<locals>.local"), (lambda: 1, "<lambda>")):
            with pytest.raises(errors.CannotSend, match=f"{name} .*with cloudpickle installed it may work"):
                await pool.run(function)
            with pytest.raises(errors.CannotSend, match=name):
                pool.submit(function)
        with pytest.raises(errors.CannotSend, match="local_function returned a function that cannot be sent back"):
            await pool.run(functions.local_function)
        with pytest.raises(errors.CannotSend, match="initializer"):
            Pool(1, initializer=local)


def test_functions_are_not_kept() -> None:
    """A pool keeps no reference to methods and lambdas that it has called."""
    from hybridpool._pool.call import FunctionNames

    names = FunctionNames()
    named = names.name(functions.add)
    assert named is not None
    assert named.name == f"{functions.__name__}:add"
    for unnamed in (lambda: 1, Path("/a").with_name):
        assert names.name(unnamed) is None
        assert not names.has_parameter(unnamed, "timeout")
    kept = [value for value in vars(names).values() if isinstance(value, dict) and value]
    assert kept == [{functions.add: named}, {named.name: functions.add}, {functions.__name__: functions.__spec__}]


# ---- __main__ --------------------------------------------------------------------------------------------------------

SCRIPT = """
import asyncio
import hybridpool
from hybridpool import Pool
from tests.integration.pool import functions

class Zygote:  # as something is called in the process that forks the children
    def __init__(self, x): self.x = x
    def twice(self): return self.x * 2

class Wrong(Exception): pass

def begin(point): return Zygote(point.x + 1)
def fail(): raise Wrong("so")
def opened():
    yield Zygote(7)
def opened_x(): return hybridpool.resource().x

async def main():
    async with Pool(2, initializer=opened) as pool:
        print((await pool.run(begin, Zygote(1))).x)
        print((await pool.run(functions.hold_if, "", Zygote(3))).x)
        print(await pool.run(Zygote(4).twice))
        print(await pool.run(opened_x))
        print([v.x async for v in pool.map(begin, [Zygote(n) for n in range(3)])])
        try:
            await pool.run(fail)
        except Wrong as error:
            print(error.args)
"""
GUARDED = SCRIPT + '\nif __name__ == "__main__":\n    asyncio.run(main())\n'
UNGUARDED = SCRIPT + "\nasyncio.run(main())\n"
EXPECTED = ["2", "3", "8", "7", "[1, 2, 3]", "('so',)"]


def run_script(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a Python to its end."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words], input=text, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_functions_of_a_script(tmp_path: Path) -> None:
    """A script's own functions and classes can be run, sent, returned, raised, and used in an initializer."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(GUARDED))
    done = run_script(str(script))
    assert done.stdout.splitlines() == EXPECTED, done.stderr


def test_a_script_that_does_not_look_whether_it_is_main(tmp_path: Path) -> None:
    """A script without a main guard gets an error that names the guard, and starts no pools in its children."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(UNGUARDED.replace("Pool(2, initializer=opened)", "Pool(1)")))
    done = run_script(str(script))
    assert done.returncode == 1
    assert 'under `if __name__ == "__main__"`' in done.stderr


def test_functions_without_a_script() -> None:
    """Functions defined on standard input or with `-c` can be run."""
    for words in (("-",), ("-c", UNGUARDED)):
        done = run_script(*words, text=UNGUARDED if words == ("-",) else "")
        assert done.stdout.splitlines() == EXPECTED, done.stderr


def test_a_script_that_is_part_of_a_package(tmp_path: Path) -> None:
    """A program started with `python -m`, with relative imports, runs its own functions."""
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "near.py").write_text("NUMBER = 41\n")
    (package / "script.py").write_text(
        "from .near import NUMBER\nimport asyncio, hybridpool\ndef number(): return NUMBER + 1\n"
        "async def main():\n    async with hybridpool.Pool(1) as pool: print(await pool.run(number))\n"
        'if __name__ == "__main__": asyncio.run(main())\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "pack.script"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == "42\n", done.stderr
