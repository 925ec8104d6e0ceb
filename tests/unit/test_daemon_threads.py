"""Blocking work in a daemon thread."""

import threading

import anyio
import pytest

from hybridpool._daemon_threads import run_in_daemon_thread


async def test_a_value_and_an_error_come_back() -> None:
    """The function's value or exception is the caller's."""

    def fail() -> None:
        raise FileNotFoundError("gone")

    assert await run_in_daemon_thread(lambda: 5) == 5
    with pytest.raises(FileNotFoundError, match="gone"):
        await run_in_daemon_thread(fail)


async def test_a_call_that_hangs_can_be_given_up() -> None:
    """A wait for a hanging call can be given up at once, and its thread does not delay the exit."""
    hangs, began = threading.Event(), threading.Event()
    found: list[threading.Thread] = []

    def hang() -> None:
        found.append(threading.current_thread())
        began.set()
        hangs.wait()

    with anyio.move_on_after(0.05) as scope:
        await run_in_daemon_thread(hang)
    assert scope.cancelled_caught
    assert began.wait(10)
    assert found[0].daemon
    hangs.set()
    found[0].join(10)
