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
from tests.integration.pool import chores
from tests.integration.pool.helpers import PATIENCE, Gate, Journal, idle, open_pool, outcomes, waited

# starting a zygote reads the pipe on which exec would tell its failure, and a large message is written into memory
pytestmark = pytest.mark.may_block

ROOT = Path(__file__).parents[3]
#: seconds by which a kill may come after its limit
LATE = 0.05
#: the least of so many is looked at: a busy machine may hold up most of them
ATTEMPTS = 30
#: seconds that are more than a busy machine takes for what is at once elsewhere, and less than any wait of the pool's
SOON = PATIENCE / 2


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": use}) for use in (False, True)], ids=str)
async def test_values(one: Pool) -> None:
    """The pool would do nothing at all, or only on one kind of loop."""
    assert await one.run(chores.add, 1) == 2
    assert await one.run(chores.add, 1, y=5) == 6
    assert await one.run(chores.who) not in (0, os.getpid())


@pytest.mark.parametrize(
    ("function", "arguments", "value"),
    [
        (math.sqrt, (4,), 2.0),
        (str.upper, ("a",), "A"),
        ("a-b".split, ("-",), ["a", "b"]),
        (Path("/a/b").with_name, ("c",), Path("/a/c")),
        (Path, ("/a",), Path("/a")),
        (Counter.fromkeys, ("ab", 2), None),
        (functools.partial(chores.add, 2, y=3), (), 5),
        (functools.partial(chores.add, y=3), (4,), 7),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0][:40],
)
async def test_whatever_pickles_is_called(one: Pool, function: Any, arguments: tuple[Any, ...], value: object) -> None:
    """Methods, classes, partials and builtins, which any executor takes, would be refused."""
    if value is None:
        with pytest.raises(NotImplementedError):
            await one.run(function, *arguments)
    else:
        assert await one.run(function, *arguments) == value


async def test_large_values(two: Pool) -> None:
    """Large arguments or results would be cut, or stop everything."""
    assert await outcomes([two.submit(chores.length, bytes(5_000_000)) for _ in range(10)]) == [5_000_000] * 10
    assert {len(found) for found in await outcomes([two.submit(chores.zeros, 5_000_000) for _ in range(10)])} == {  # type: ignore[arg-type]
        5_000_000
    }


async def test_a_pool_that_is_not_there() -> None:
    """A call to a pool that is not entered, or is left, would wait for ever."""
    pool = Pool(1)
    with pytest.raises(errors.PoolClosed, match="async with"):
        await pool.run(chores.add, 1)
    async with pool:
        await pool.run(chores.add, 1)
    with pytest.raises(errors.PoolClosed):
        await pool.run(chores.add, 1)
    async with pool:
        assert await pool.run(chores.add, 1) == 2


# ---- exceptions ------------------------------------------------------------------------------------------------------


async def test_exceptions(one: Pool) -> None:
    """An exception would lose its type or arguments, or not tell where in the child it came from."""
    child = await one.run(chores.who)
    with pytest.raises(ValueError, match="wrong") as caught:
        await one.run(chores.fail, "wrong", 3)
    assert caught.value.args == ("wrong", 3)
    [note] = caught.value.__notes__
    assert "In the child" in note
    assert "chores.py" in note
    assert "in fail" in note
    assert await one.run(chores.who) == child, "it cost the child its life"


async def test_exceptions_that_do_not_travel(one: Pool) -> None:
    """An exception that cannot be unpickled would break the caller, or hide what happened."""
    with pytest.raises(errors.TaskFailed, match="Odd") as caught:
        await one.run(chores.fail_oddly)
    assert caught.value.kind == f"{chores.__name__}.Odd"
    assert "in fail_oddly" in caught.value.traceback
    assert "in fail_oddly" in caught.value.__notes__[0]


async def test_leaving_the_interpreter(one: Pool) -> None:
    """A function that calls sys.exit fails by that; neither its child nor the caller's program ends."""
    child = await one.run(chores.who)
    with pytest.raises(errors.TaskFailed, match="SystemExit"):
        await one.run(chores.leave, 3)
    assert await one.run(chores.who) == child


async def test_an_exception_leaves_the_block_as_it_is() -> None:
    """Who writes `except ValueError` around the block would not catch it, as it came in a group of the pool's."""
    with pytest.raises(ValueError, match="wrong") as caught:
        async with open_pool(1) as pool:
            await pool.run(chores.fail, "wrong")
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
        (chores.nap, (60,)),
        (chores.loop, ()),
        (chores.count, ()),
        (chores.match, ()),
        (chores.deaf, ()),
        (chores.length, (chores.Stuck(),)),
    ],
    ids=["sleep", "python", "sum", "regex", "catches everything", "unpickling"],
)
async def test_time_limit(one: Pool, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """Code stuck where no signal reaches it would run for ever, or much longer than allowed."""
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
    assert await one.run(chores.add, 1) == 2


async def test_time_limit_of_the_pool() -> None:
    """The pool's own limit would not hold where a call has none, or win over the call's."""
    async with open_pool(1, time_limit=0.1) as pool:
        with pytest.raises(TimeoutError):
            await pool.run(chores.nap, 60)
        assert await pool.run(chores.nap, 0.2, timeout=PATIENCE) == 0.2


async def test_time_begins_with_the_work(one: Pool, gate: Gate) -> None:
    """A call that waits in line would be killed for the time others take."""
    # enough for a busy machine to run a call that takes no time
    limit = 3.0
    held = one.submit(chores.hold, gate.path)
    await gate.came()
    async with anyio.create_task_group() as tasks:

        async def limited() -> None:
            assert await one.run(chores.add, 1, timeout=limit) == 2

        tasks.start_soon(limited)
        with pytest.raises(TimeoutError):
            with anyio.fail_after(limit + 0.1):
                await held
        gate.let()


async def test_soft_time_limit(one: Pool, gate: Gate, journal: Journal) -> None:
    """The limit would not be raised inside, be swallowed by `except Exception`, or not leave time to clean up."""
    child = await one.run(chores.who)
    with pytest.raises(errors.TimeLimitExceeded, match=r"careless ran over its soft time limit of 0\.1 s"):
        await one.run(chores.careless, gate.path, timeout=None, soft_timeout=0.1)
    # enough for a busy machine to come to where the task cleans up
    value = await one.run(chores.careful, gate.path, journal.path, timeout=PATIENCE, soft_timeout=2)
    assert value == "cleaned up"
    assert journal.lines() == ["SoftTimeLimitExceeded(2.0,)"]
    assert await one.run(chores.who) == child


async def test_soft_time_limit_of_the_pool(gate: Gate) -> None:
    """The pool's soft limit would not hold, or one that is ignored keep the hard one from coming."""
    async with open_pool(1, soft_time_limit=0.1, time_limit=3) as pool:
        with pytest.raises(errors.TimeLimitExceeded, match="soft"):
            await pool.run(chores.nap, 60)
        with pytest.raises(errors.TimeLimitExceeded):
            await pool.run(chores.deaf)


async def test_a_time_limit_hits_no_other_call() -> None:
    """A call that ends just at its limit would leave its child to be killed in the next one."""
    rng = random.Random(1)
    hit = 0
    async with open_pool(1) as pool:
        await pool.run(chores.spin, 0.004)
        for _ in range(150):
            async with anyio.create_task_group() as tasks:

                async def limited() -> None:
                    nonlocal hit
                    try:
                        # timers of uvloop tick once a millisecond
                        await pool.run(chores.spin, 0.0028 + rng.random() * 0.0015, timeout=0.003)
                    except errors.TimeLimitExceeded:
                        hit += 1

                tasks.start_soon(limited)
                tasks.start_soon(pool.run, chores.spin, 0.003)
    assert hit > 0, "the test did not test"


# ---- cancellation ----------------------------------------------------------------------------------------------------


async def test_cancelling_a_call_that_waits(one: Pool, gate: Gate, journal: Journal) -> None:
    """A call nobody wants any more would still be run."""
    held = one.submit(chores.hold, gate.path)
    await gate.came()
    before = time.monotonic()
    with anyio.move_on_after(0.05) as scope:
        await one.run(chores.note, journal.path, "ran")
    assert scope.cancelled_caught
    assert time.monotonic() - before < SOON, "it waited for something"
    gate.let()
    await held
    await one.run(chores.add, 1)
    assert journal.lines() == []


async def test_cancelling_a_call_that_runs(one: Pool, gate: Gate, journal: Journal) -> None:
    """The work would go on after its caller has left, or its child be killed although it stops."""
    child = await one.run(chores.who)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run, chores.careful, gate.path, journal.path)
        await gate.came()
        before = time.monotonic()
        tasks.cancel_scope.cancel()
    assert time.monotonic() - before < SOON
    assert journal.lines() == ["TaskCancelled('cancelled',)"]
    assert await one.run(chores.who) == child


async def test_cancelling_by_asyncio(one: Pool, gate: Gate, journal: Journal) -> None:
    """Only anyio's users could cancel."""
    child = await one.run(chores.who)
    task = asyncio.ensure_future(one.run(chores.careful, gate.path, journal.path))
    await gate.came()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 0.01)
    task = asyncio.ensure_future(one.run(chores.careful, gate.path, journal.path))
    await gate.came()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(journal.lines()) == 2
    assert await one.run(chores.who) == child


async def test_a_call_that_does_not_want_to_stop(gate: Gate) -> None:
    """A cancelled call that ignores it would hold its child, and its caller, for ever; or be given no grace."""
    async with open_pool(1, grace=0.2) as pool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.run, chores.wait_deaf, gate.path)
            [pid] = await gate.came()
            before = time.monotonic()
            tasks.cancel_scope.cancel()
        assert 0.2 <= time.monotonic() - before < SOON
        assert not psutil.pid_exists(pid)
        assert await pool.run(chores.add, 1) == 2


async def test_cancelling_before_the_child_has_looked(gate: Gate) -> None:
    """The signal would come before the child has read the call, and be lost: its child killed after the grace."""
    async with open_pool(1, grace=PATIENCE) as pool:
        child = psutil.Process(await pool.run(chores.who))
        child.suspend()
        with anyio.fail_after(PATIENCE):
            while child.status() != psutil.STATUS_STOPPED:
                await anyio.lowlevel.checkpoint()
        call = pool.submit(chores.nap, 60)
        call.cancel()
        zygote = child.parent()
        assert zygote is not None
        with anyio.fail_after(PATIENCE):
            # the zygote has passed the signal on
            while not pending(child.pid, signal.SIGUSR1):
                await anyio.lowlevel.checkpoint()
        child.resume()
        assert isinstance(await waited(call), errors.TaskCancelled)
        assert await pool.run(chores.who) == child.pid


def pending(pid: int, signum: int) -> bool:
    """Tell whether a signal waits for a process."""
    words = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool((int(words["ShdPnd"], 16) | int(words["SigPnd"], 16)) >> (signum - 1) & 1)


async def test_cancelling_behind_a_call_that_runs(gate: Gate, journal: Journal) -> None:
    """A call that lies in a child's channel behind another would be run although nobody wants it."""
    async with open_pool(1, grace=PATIENCE) as pool:
        for _ in range(50):
            await pool.run(chores.hold_if, gate.path, 1)
            await pool.run(chores.note, os.devnull, 1)
        calls = [
            pool.submit(chores.hold_if, gate.path, 0),
            *(pool.submit(chores.note, journal.path, number) for number in range(5)),
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
    """A signal or a kill that comes late would hit the call after the one it was meant for."""
    rng = random.Random(grace)
    others: list[BaseException] = []
    hits = 0
    async with open_pool(1, grace=grace) as pool:
        for _ in range(30):
            await pool.run(chores.spin, seconds)
        for _ in range(200 if seconds < 0.001 else 60):
            calls = [pool.submit(chores.spin, seconds) for _ in range(8)]
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
    """The death of a child would cost more than the call it was in, or have others run twice."""
    calls = [two.submit(chores.note_or_die, journal.path, number, 2500) for number in range(5000)]
    found = await outcomes(calls)
    lost = [(number, one) for number, one in enumerate(found) if isinstance(one, BaseException)]
    assert [number for number, _ in lost] == [2500]
    assert isinstance(lost[0][1], errors.ChildLost)
    assert "SIGKILL" in str(lost[0][1])
    assert "note_or_die" in str(lost[0][1])
    assert Counter(journal.lines()) == Counter(str(number) for number in range(5000) if number != 2500)


async def test_crashes_again_and_again(two: Pool) -> None:
    """After some crashes the pool would stand still, or be weaker than before."""
    found = await outcomes([two.submit(chores.die) for _ in range(10)])
    assert [type(one) for one in found] == [errors.ChildLost] * 10
    assert await two.run(chores.add, 1) == 2
    await idle(two, 2)


# ---- what can be sent ------------------------------------------------------------------------------------------------


async def test_local_functions(one: Pool) -> None:
    """With cloudpickle, a lambda or a function in a function could not be called, or not be returned."""
    offset = 40
    assert await one.run(lambda x: x + offset, 2) == 42
    assert (await one.run(chores.local_function))() == 42
    assert await one.run(chores.hold_if, "", number=1) == 1
    assert [value async for value in one.map(lambda x: x * offset, [1, 2])] == [40, 80]


@pytest.mark.parametrize("installed", [True, False], ids=["cloudpickle", "no cloudpickle"])
async def test_what_cannot_be_sent(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be sent would hang, or fail without saying what it was."""
    lock = threading.Lock()
    if not installed:
        monkeypatch.setitem(sys.modules, "cloudpickle", None)
    preload = [] if installed else ["tests.integration.pool.no_cloudpickle"]
    async with open_pool(1, preload=preload) as pool:
        with pytest.raises(errors.CannotSend, match="add: argument 2, a lock, cannot be sent"):
            await pool.run(chores.add, 1, lock)  # type: ignore[call-overload]
        with pytest.raises(errors.CannotSend, match="add: y, a lock, cannot be sent"):
            await pool.run(chores.add, 1, y=lock)  # type: ignore[arg-type]
        with pytest.raises(errors.CannotSend, match="unsendable returned a lock that cannot be sent back"):
            await pool.run(chores.unsendable)
        assert await pool.run(chores.add, 1) == 2
        assert [len(child.name) > 0 for child in pool.stats()] == [True]


async def test_the_argument_that_cannot_be_sent_is_named_with_cloudpickle(one: Pool) -> None:
    """An argument that cloudpickle can send would be blamed for one that it cannot."""
    with pytest.raises(errors.CannotSend, match="argument 2, a lock"):
        await one.run(chores.add, lambda: 1, threading.Lock())  # type: ignore[call-overload]


async def test_local_functions_without_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not have cloudpickle would not learn which function it takes it for."""
    monkeypatch.setitem(sys.modules, "cloudpickle", None)

    def local() -> None: ...

    async with open_pool(1, preload=["tests.integration.pool.no_cloudpickle"]) as pool:
        for function, name in ((local, "<locals>.local"), (lambda: 1, "<lambda>")):
            with pytest.raises(errors.CannotSend, match=f"{name} .*with cloudpickle installed it may work"):
                await pool.run(function)
            with pytest.raises(errors.CannotSend, match=name):
                pool.submit(function)
        with pytest.raises(errors.CannotSend, match="local_function returned a function that cannot be sent back"):
            await pool.run(chores.local_function)
        with pytest.raises(errors.CannotSend, match="initializer"):
            Pool(1, initializer=local)


def test_functions_are_not_kept() -> None:
    """A pool that is given methods or lambdas would keep them, and all they refer to, for ever."""
    from hybridpool._pool.call import FunctionNames

    names = FunctionNames()
    named = names.name(chores.add)
    assert named is not None
    assert named.name == f"{chores.__name__}:add"
    for unnamed in (lambda: 1, Path("/a").with_name):
        assert names.name(unnamed) is None
        assert not names.has_parameter(unnamed, "timeout")
    kept = [value for value in vars(names).values() if isinstance(value, dict) and value]
    assert kept == [{chores.add: named}, {named.name: chores.add}, {chores.__name__: chores.__spec__}]


# ---- __main__ --------------------------------------------------------------------------------------------------------

SCRIPT = """
import asyncio
import hybridpool
from hybridpool import Pool
from tests.integration.pool import chores

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
        print((await pool.run(chores.hold_if, "", Zygote(3))).x)
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
    """What a script defines itself could not be run, sent, returned, raised or made at a child's birth."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(GUARDED))
    done = run_script(str(script))
    assert done.stdout.splitlines() == EXPECTED, done.stderr


def test_a_script_that_does_not_look_whether_it_is_main(tmp_path: Path) -> None:
    """A script that forgets `if __name__ == "__main__"` would start pools in its pools without end."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(UNGUARDED.replace("Pool(2, initializer=opened)", "Pool(1)")))
    done = run_script(str(script))
    assert done.returncode == 1
    assert 'under `if __name__ == "__main__"`' in done.stderr


def test_functions_without_a_script() -> None:
    """At a prompt or in a notebook, where there is no file to find a function in, nothing could be run."""
    for words in (("-",), ("-c", UNGUARDED)):
        done = run_script(*words, text=UNGUARDED if words == ("-",) else "")
        assert done.stdout.splitlines() == EXPECTED, done.stderr


def test_a_script_that_is_part_of_a_package(tmp_path: Path) -> None:
    """A program started with `python -m`, whose imports are relative, could not run its own functions."""
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
