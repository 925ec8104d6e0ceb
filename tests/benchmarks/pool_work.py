"""What the benchmark of pools runs in children: functions that every pool can name and send."""

import gc
import os
import time
from collections.abc import Callable
from typing import Any


def noop(item: object) -> None:
    """Do nothing: what is left is the pool's own cost."""


def echo(payload: bytes) -> bytes:
    """Give back what was sent."""
    return payload


def spin(seconds: float) -> None:
    """Use so much CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        continue


def nap(seconds: float) -> int:
    """Hold one child for a while, so that other calls have to go to others; returns its pid."""
    time.sleep(seconds)
    return os.getpid()


def who(seconds: float) -> tuple[int, float]:
    """Work a moment; returns the pid, and the clock that all processes share at the start."""
    started = time.monotonic()
    spin(seconds)
    return os.getpid(), started


def tidy(seconds: float) -> int:
    """Have the fat app at hand and collect garbage, which touches every object; returns the pid."""
    # a child that was not forked from a process that has it loads it here
    from tests.benchmarks import pool_fat

    assert pool_fat.BALLAST
    gc.collect()
    return nap(seconds)


async def in_loop(call: tuple[Callable[[Any], Any], Any]) -> Any:
    """Run one of the above where only coroutine functions are taken."""
    function, item = call
    return function(item)
