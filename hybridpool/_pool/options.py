"""The options of a pool: checked, and turned into the configuration of its lane."""

import inspect
import logging
import pickle
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any, Final, TypeVar, cast

import attrs
import msgspec

from hybridpool import events
from hybridpool._child import functions
from hybridpool._config import usable_cpus
from hybridpool._config.parsers import autoscale, parse_argument
from hybridpool._config.suggestions import suggest
from hybridpool._config.units import share, size
from hybridpool._ipc.frames import ChildOrders
from hybridpool._lanes.shared.options import SharedOptions
from hybridpool._lanes.supervised import LaneConfig
from hybridpool._policy.autoscale import ScaleLimits
from hybridpool._policy.recycle import RecycleLimits
from hybridpool._pool.call import has_script
from hybridpool._task import LaneName
from hybridpool.errors import CannotSend, ConfigError

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class PoolOptions:
    """The options of a `Pool`, checked when it is made.

    Durations are in seconds. Sizes of memory are in bytes, or text with a unit: ``"200MB"``, ``"1.5GiB"``.
    """

    __module__ = "hybridpool"

    #: children that run calls at once; None: one per CPU that this process may use
    size: int | None = None
    #: calls after which a child is replaced; None: no limit
    max_tasks_per_child: int | None = None
    #: memory of its own, unshared, above which a child is replaced after its call; None: no limit
    max_memory_per_child: int | str | None = None
    #: seconds after which a child is replaced; None: no limit
    max_age_per_child: float | None = None
    #: largest share (0 to 1) by which a child's limits of calls and age are lowered, so that not all are replaced at
    #: once
    recycle_jitter: float = 0.05
    #: memory of its own above which a child is killed during a call, which raises `ChildLost`; None: no limit
    memory_limit: int | str | None = None
    #: with `autoscale`: memory that the children may own together before the pool stops growing; None: what cgroup and
    #: host leave
    memory_budget: int | str | None = None
    #: smallest and largest size, between which the pool follows its load; None: the size is fixed
    autoscale: tuple[int, int] | None = None
    #: with `autoscale`: seconds without work after which a surplus child is retired
    autoscale_idle: float = 30.0
    #: called in each child when it starts; `resource()` returns what it returned. Of a generator function the first
    #: value counts, and the code after its `yield` runs when the child retires
    initializer: Callable[[], object] | None = None
    #: modules to import before the children are forked, so that they share the memory
    preload: Sequence[str] = ()
    #: seconds that a call may run before its child is killed and it raises `TimeLimitExceeded`; None: no limit
    time_limit: float | None = None
    #: seconds that a call may run before `SoftTimeLimitExceeded` is raised in it; None: no limit
    soft_time_limit: float | None = None
    #: coroutines that run at once, in a child with an event loop; it starts with the first call of a coroutine function
    async_slots: int = 100
    #: calls that run at once on the threads of a child, by `Pool.lane("thread")`; it starts with the first of them
    thread_slots: int = 32
    #: seconds that a cancelled call may take to stop before its child is killed
    grace: float = 1.0
    #: seconds that a child may take to start before it is killed
    start_timeout: float = 30.0
    #: called with each event of the pool, on the event loop; see `hybridpool.events`
    on_event: events.Listener | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("size", "max_tasks_per_child", "async_slots", "thread_slots"):
            value = getattr(self, name)
            if value is not None:
                check_count(f"Pool({name}=…)", value)
        for name in ("max_age_per_child", "time_limit", "soft_time_limit"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check_seconds(f"Pool({name}=…)", value))
        for name in ("autoscale_idle", "grace", "start_timeout"):
            object.__setattr__(self, name, check_seconds(f"Pool({name}=…)", getattr(self, name)))
        for name in ("initializer", "on_event"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise ConfigError(f"Pool({name}=…) must be a function, not {value!r}")
        if inspect.iscoroutinefunction(self.initializer) or inspect.isasyncgenfunction(self.initializer):
            raise ConfigError(f"Pool(initializer=…) must not be async, as {self.initializer!r} is: children are sync")
        if inspect.iscoroutinefunction(self.on_event):
            raise ConfigError(
                f"Pool(on_event=…) must not be async, as {self.on_event!r} is: it is called and not awaited"
            )
        _check_names(self.preload)


def _check_names(names: object) -> None:
    if isinstance(names, str | bytes) or not isinstance(names, Collection):
        raise ConfigError(f"Pool(preload=…) must be a list of module names, not {names!r}")
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"Pool(preload=…) must be a list of module names, not one with {name!r} in it")


#: seconds; a longer duration is refused, so that timers need not support it
_MAX_DURATION_S: Final = 1e9


def read_options(size: int | None, given: Mapping[str, Any]) -> PoolOptions:
    """Check the options of a pool.

    :raises ConfigError: if one is unknown or has a wrong value.
    """
    known = [field.name for field in attrs.fields(PoolOptions)]
    for name in given:
        if name not in known:
            suggestion = suggest(name, known, quoted=True)
            raise ConfigError(f"{name!r} is not an option of Pool{suggestion}")
    return PoolOptions(size=size, **given)


def check_seconds(what: str, value: object) -> float:
    """Return a duration.

    :raises ConfigError: if it is not a finite number of seconds, or is negative.
    """
    # Compared before the conversion: an int may be too large for a float.
    if not isinstance(value, bool) and isinstance(value, Real) and 0 <= cast("float", value) <= _MAX_DURATION_S:
        # As a plain float: it is sent to children, which cannot decode a number of numpy.
        return float(value)
    raise ConfigError(f"{what} must be seconds, not {value!r}")


def check_count(what: str, value: object) -> int:
    """Return a count.

    :raises ConfigError: if it is not a whole number of at least 1.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ConfigError(f"{what} must be a whole number of at least 1, not {value!r}")


def lane_configs(options: PoolOptions) -> dict[LaneName, LaneConfig]:
    """Return the configuration of the pool's lanes.

    :raises ConfigError: if one has a wrong value.
    :raises CannotSend: if the initializer cannot be sent.
    """
    process = _process_lane(options)
    return {
        "process": process,
        "async": _shared_lane(options, process, "async", options.async_slots),
        "thread": _shared_lane(options, process, "thread", options.thread_slots),
    }


def _shared_lane(options: PoolOptions, process: LaneConfig, name: LaneName, slots: int) -> LaneConfig:
    """Return the configuration of a lane that runs several calls at once in one child.

    Its child is replaced by age like the others; counts and memory of one that runs a thousand calls mean something
    else.
    """
    orders = msgspec.structs.replace(process.orders, memory_watch=0, lane=name, slots=slots)
    return LaneConfig(
        size=1,
        scale=None,
        recycle=RecycleLimits(age=options.max_age_per_child, jitter=process.recycle.jitter),
        orders=orders,
        start_timeout=options.start_timeout,
        spares=0,
        shared=SharedOptions(has_loop=name == "async"),
        is_lazy=True,
    )


def _process_lane(options: PoolOptions) -> LaneConfig:
    """Return the configuration of the lane of prefork children.

    :raises ConfigError: if one has a wrong value.
    :raises CannotSend: if the initializer cannot be sent.
    """
    memory = parse_argument("Pool(max_memory_per_child=…)", size("B"), options.max_memory_per_child)
    jitter = parse_argument("Pool(recycle_jitter=…)", share, options.recycle_jitter) or 0.0
    scale = parse_argument("Pool(autoscale=…)", autoscale, options.autoscale)
    start = options.size if options.size is not None else usable_cpus()
    if scale is not None:
        start = max(scale.minimum, min(start, scale.maximum)) if options.size is not None else scale.minimum
    recycle = RecycleLimits(
        tasks=options.max_tasks_per_child, memory=memory, age=options.max_age_per_child, jitter=jitter
    )
    return LaneConfig(
        size=start,
        scale=None
        if scale is None
        else ScaleLimits(floor=scale.minimum, ceiling=scale.maximum, idle=options.autoscale_idle),
        recycle=recycle,
        orders=ChildOrders(
            log_level=logging.NOTSET,
            log_format="",
            redirect_stdouts=False,
            memory_watch=memory or 0,
            initializer=_pickled(options.initializer),
        ),
        start_timeout=options.start_timeout,
        spares=recycle.spares,
        # A failure at the very start is not temporary, and the caller waits in `async with`.
        first_starts=3,
        memory_limit=parse_argument("Pool(memory_limit=…)", size("B"), options.memory_limit),
        memory_budget=parse_argument("Pool(memory_budget=…)", size("B"), options.memory_budget),
    )


def _pickled(initializer: Callable[[], object] | None) -> bytes:
    if initializer is None:
        return b""
    try:
        whole = functions.dumps(initializer) if has_script() else _cloudpickled(initializer)
        return pickle.dumps(partial(functions.call_pickled, whole), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise CannotSend(f"the initializer {initializer!r} cannot be sent to a child: {error}") from error


def _cloudpickled(initializer: Callable[[], object]) -> bytes:
    """Pickle a function that no child can import, because it is defined in a notebook or at a prompt."""
    import cloudpickle

    return cloudpickle.dumps(initializer)  # type: ignore[no-any-return]  # untyped
