"""Many schedules, one after the other, and what they have shown."""

import asyncio
import os
import random
import time
from collections import Counter
from contextlib import suppress

import attrs

from tests.simulation.schedule import Schedule
from tests.simulation.virtual import Stuck
from tests.simulation.world import PromiseBroken, World


@attrs.frozen(kw_only=True)
class Report:
    """What a simulation went through without finding a fault."""

    #: of the first schedule; the others have the numbers after it
    seed: int
    schedules: int
    #: things that happened, by name: calls, children, crashes, recycles, …
    counts: Counter[str]
    virtual_seconds: float
    real_seconds: float

    def __str__(self) -> str:
        names = ("calls", "children", "crashes", "recycles", "failed starts", "zygotes lost")
        shown = ", ".join(f"{self.counts[name]} {name}" for name in names)
        return (
            f"seed {self.seed}: {self.schedules} schedules, {shown}, "
            f"{self.virtual_seconds:.0f} virtual seconds, {self.real_seconds:.1f} real seconds"
        )


def simulate(*, seed: int | None = None, schedules: int = 1000) -> Report:
    """Drive the pool's lane and supervisors through schedules of crashes, slow children, lost forks and clock jumps.

    No process is started. Not to be called while a loop runs.

    :param seed: of the first schedule; None: any.
    :raises PromiseBroken: at the first fault; the message says how to run that schedule alone.
    """
    if seed is None:
        seed = random.SystemRandom().randrange(2**31)
    began, counts, virtual = time.perf_counter(), Counter[str](), 0.0
    for number in range(seed, seed + schedules):
        world = run_one(number)
        counts.update(world.counts)
        virtual += world.loop.time()
    real = time.perf_counter() - began
    return Report(seed=seed, schedules=schedules, counts=counts, virtual_seconds=virtual, real_seconds=real)


def run_one(seed: int) -> World:
    """Run one schedule.

    :raises PromiseBroken: if it finds a fault; with its trace.
    """
    descriptors, dice = len(os.listdir("/proc/self/fd")), random.getstate()  # noqa: PTH208  # a count is enough
    # The supervisors' back-offs draw from the common generator.
    random.seed(seed)
    world = World(seed)
    world.loop.set_exception_handler(world.failed)
    try:
        _run(world)
    finally:
        random.setstate(dice)
        world.loop.watch(None, None)
        _cancel_all(world.loop)
        world.loop.close()
    left = len(os.listdir("/proc/self/fd")) - descriptors  # noqa: PTH208
    if left:
        raise _told(world, f"{left} descriptors are left")
    return world


def _run(world: World) -> None:
    try:
        world.loop.run_until_complete(_play(world))
    except Exception as error:
        raise _told(world, _plainly(error)) from error


def _plainly(error: BaseException) -> str:
    """Put into words what ended a schedule, however deep in groups it came."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case PromiseBroken() | Stuck():
            return str(error)
        case TimeoutError():
            return "it does not come to rest"
        case _:
            return f"something raised {error!r}"


async def _play(world: World) -> None:
    schedule = Schedule(world)
    await schedule.play()
    schedule.check_end()


def _told(world: World, what: str) -> PromiseBroken:
    rerun = f"python -m tests.simulation --seed {world.seed} --schedules 1"
    return PromiseBroken(f"{what}\n\nafter {world.loop.time():.6f} virtual seconds of\n{rerun}\n\n{world.trace()}")


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """End the tasks of a schedule that was broken off, so that they let go of what they hold."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.set_exception_handler(lambda *_: None)
        # Whatever else is wrong with them, what broke the schedule off is what counts.
        with suppress(Stuck):
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
