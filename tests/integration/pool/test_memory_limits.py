"""Limits on memory and age: a child that grows too far, a pool that must not grow, one that grows old."""

import os
from pathlib import Path

import anyio
import pytest

from hybridpool import Pool, errors, events
from tests.contract.inbox import Events
from tests.integration.pool import functions
from tests.integration.pool.helpers import PATIENCE, Gate, Journal, idle, open_pool, outcomes, waited

pytestmark = pytest.mark.may_block


async def test_a_call_that_takes_too_much(gate: Gate, journal: Journal) -> None:
    """A call that exceeds `memory_limit` is killed and told so, with its peak, and other calls run on."""
    async with open_pool(2, memory_limit="100MB") as pool:
        other = pool.submit(functions.hold, gate.path, "unharmed")
        await gate.came()
        lost = await waited(pool.submit(functions.weigh, 150, str(Path(gate.path).parent / "never")))
        assert isinstance(lost, errors.ChildLost)
        assert "memory: it owned 1" in str(lost)
        assert "over its limit of 100 MiB" in str(lost)
        assert (lost.task, lost.exitcode) == ("weigh", None)
        assert lost.peak > 100 * 1024 * 1024
        gate.let()
        assert await outcomes([other]) == ["unharmed"]
        await idle(pool, 2)


async def test_calls_within_the_limit(gate: Gate) -> None:
    """Shared pages and the memory of earlier calls do not count against a call."""
    async with open_pool(1, memory_limit="200MB") as pool:
        for _ in range(3):
            call = pool.submit(functions.weigh, 100, gate.path)
            await gate.came()
            gate.let()
            assert await outcomes([call]) == [100]
        assert pool.stats()[0].name == "ForkPoolWorker-1"


async def test_growth_within_a_budget(gate: Gate) -> None:
    """An autoscaled pool stops growing at its memory budget, says so once, and still runs all calls."""
    observed = Events()
    with anyio.fail_after(3 * PATIENCE):
        async with Pool(autoscale=(1, 12), memory_budget="300MB", on_event=observed) as pool:
            calls = [pool.submit(functions.weigh, 60, gate.path) for _ in range(12)]
            await observed.see(events.PoolHeld)
            [held] = observed.of(events.PoolHeld)
            assert held.wanted == 12
            assert held.size <= 5
            assert "left of the memory budget" in held.reason
            gate.let(12)
            assert await outcomes(calls) == [60] * 12


async def test_growing_old() -> None:
    """A child that reaches `max_age_per_child` is replaced, and leaves only when its replacement is ready."""
    observed = Events()
    async with open_pool(2, max_age_per_child=0.2, on_event=observed) as pool:
        with anyio.fail_after(PATIENCE):
            while "ForkPoolWorker-6" not in {child.name for child in pool.stats()}:
                assert await pool.run(functions.add, 1) == 2
    seen = [event for event in observed.items if isinstance(event, events.ChildReady | events.ChildRetired)]
    ready = 0
    for event in seen:
        if isinstance(event, events.ChildReady):
            ready += 1
        elif event.reason.startswith("max_age_per_child"):
            ready -= 1
            assert ready >= 2, "its replacement was not ready"


async def test_jitter_spreads_retirements() -> None:
    """The jitter lets children that started together retire at different counts."""
    observed = Events()
    async with open_pool(4, max_tasks_per_child=200, recycle_jitter=0.5, on_event=observed) as pool:
        with anyio.fail_after(PATIENCE):
            async for _ in pool.map(functions.add, range(4000)):
                pass
    counts = {
        event.reason for event in observed.items if isinstance(event, events.ChildRetired) and "tasks" in event.reason
    }
    assert len(counts) > 2
    assert all(100 <= int(reason.split()[1]) <= 200 for reason in counts)


async def test_lost_to_somebody_elses_kill(one: Pool) -> None:
    """A child killed from outside is reported with its signal, its peak, and a hint at the out-of-memory killer."""
    lost = await waited(one.submit(os.kill, one.stats()[0].pid, 9))
    assert isinstance(lost, errors.ChildLost)
    assert "signal 9 (SIGKILL), not by this pool: out of memory?" in str(lost)
    assert (lost.exitcode, lost.child) == (-9, "ForkPoolWorker-1")
    assert lost.peak > 1024 * 1024


@pytest.mark.parametrize(
    "wrong", [{"memory_limit": "much"}, {"memory_budget": 0}, {"recycle_jitter": 2}, {"max_age_per_child": -1}]
)
def test_wrong_limits(wrong: dict[str, object]) -> None:
    """A wrong limit is refused when the pool is made."""
    with pytest.raises(errors.ConfigError, match=rf"Pool\({next(iter(wrong))}=…\) must be"):
        Pool(**wrong)  # type: ignore[arg-type]  # wrong on purpose
