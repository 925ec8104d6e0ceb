"""A lifespan as it is declared: from a generator function and options to its state, or an error."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final, TypeVar, get_args

from hybridpool._child.lifespans import LifespanState
from hybridpool._task import LaneName
from hybridpool.errors import ConfigError

T = TypeVar("T")
_LANES: Final = get_args(LaneName)
#: what is entered where, if the declaration does not say it
_SYNC_DEFAULT: Final = ("process", "thread")
_ASYNC_DEFAULT: Final = ("async",)


def declare_lifespan(
    name: str, function: Callable[[], Iterator[T] | AsyncIterator[T]], lanes: Sequence[LaneName] | None
) -> LifespanState[T]:
    """Make a lifespan.

    :param lanes: in whose children it is entered; None: as the kind of the function says.
    :raises ConfigError: if the function is not a generator function without arguments, or a lane is wrong.
    """
    is_async = inspect.isasyncgenfunction(function)
    if not is_async and not inspect.isgeneratorfunction(function):
        raise ConfigError(f"lifespan {name}: {_not_a_generator_function(function)}")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise ConfigError(f"lifespan {name}: it is called without arguments, and {error}") from None
    if lanes is None:
        return LifespanState(name, function, _ASYNC_DEFAULT if is_async else _SYNC_DEFAULT)
    if isinstance(lanes, str) or not lanes:
        raise ConfigError(f"lifespan {name}: lanes= takes several names, as in lanes=('async',), not {lanes!r}")
    for lane in lanes:
        if lane not in _LANES:
            raise ConfigError(f"lifespan {name}: there is no lane {lane!r}; the lanes are {', '.join(_LANES)}")
        if is_async and lane != "async":
            raise ConfigError(f"lifespan {name}: {lane} children have no event loop; make it a generator without async")
    return LifespanState(name, function, lanes)


def _not_a_generator_function(function: Any) -> str:
    inner = getattr(function, "__wrapped__", None)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        return "take the other decorator (contextmanager?) off: a lifespan is made of the generator function itself"
    return "it is made of a generator function, which yields its value once"
