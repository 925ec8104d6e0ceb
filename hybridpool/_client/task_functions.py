"""Which functions can be tasks, and in which lane a function can run."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from hybridpool._task import LaneName
from hybridpool.errors import ConfigError


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling it gives a coroutine: an `async def`, a partial of one, an object with such a `__call__`."""
    return any(inspect.iscoroutinefunction(one) for one in _ways_to_call(function))


def check_lane(task: str, function: Callable[..., Any], lane: LaneName | None) -> LaneName | None:
    """Return the lane of a function: the one that is asked for, or `async` for `async def`; None: the settings decide.

    :param task: its name, for messages.
    :raises ConfigError: if the function cannot be a task, or cannot run in that lane.
    """
    ways = _ways_to_call(function)
    if any(inspect.isasyncgenfunction(one) for one in ways):
        raise ConfigError(f"task {task}: a task returns its value; it cannot be an async generator function")
    if any(inspect.isgeneratorfunction(one) for one in ways):
        raise ConfigError(f"task {task}: a task returns its value; it cannot be a generator function")
    if is_async(function):
        if lane == "thread":
            raise ConfigError(
                f'task {task}: lane="thread" is for def: no event loop runs on its threads; an async def runs in '
                'lane="async", or alone in a child with lane="process"'
            )
        return lane or "async"
    if lane == "async":
        raise ConfigError(
            f'task {task}: lane="async" is for async def: a def would block the event loop for all other calls; for '
            'one that waits, use lane="thread"'
        )
    return lane


def _ways_to_call(function: Callable[..., Any]) -> tuple[object, ...]:
    """Return the function below partials, and the `__call__` of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    return function, getattr(type(function), "__call__", None)  # noqa: B004
