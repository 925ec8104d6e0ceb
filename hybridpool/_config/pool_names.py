"""What the name of a pool (`--pool`) implies for other settings, and what contradicts it.

`threads` and `asyncio` have Celery's meaning: `--concurrency` then counts threads, or calls on the event loop. The
number of children, which it counts otherwise, is that of the CPUs. `solo` is one child. A setting that is given
itself is kept: the name of the pool is weaker than any.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from hybridpool._config.cpus import usable_cpus
from hybridpool._config.sources import Resolved
from hybridpool.errors import ConfigError

#: name of a pool → the setting for which `worker_concurrency` stands there
_COUNTED: Final[Mapping[str, str]] = MappingProxyType(
    {"threads": "worker_thread_concurrency", "asyncio": "worker_async_concurrency"}
)


def apply_pool_name(resolved: Resolved, *, cpus: Callable[[], int] = usable_cpus) -> Resolved:
    """Return the settings with what the name of the pool implies. Applied again, it changes nothing.

    :param cpus: counts the CPUs, for the number of children where `worker_concurrency` counts something else.
    :raises ConfigError: if a setting contradicts the name.
    """
    settings = resolved.settings
    pool = settings.worker_pool
    if pool == "solo":
        return _solo(resolved)
    if pool not in _COUNTED:
        return resolved
    values: dict[str, object] = {}
    sources = dict(resolved.sources)
    automatic = set(resolved.automatic)
    if pool == "threads" and resolved.is_default("task_default_lane"):
        values["task_default_lane"] = "thread"
        sources["task_default_lane"] = resolved.source_of("worker_pool")
        automatic.discard("task_default_lane")
    if not resolved.is_default("worker_concurrency"):
        counted = _COUNTED[pool]
        if not resolved.is_default(counted):
            raise ConfigError(
                f"with worker_pool {pool} (from {resolved.source_of('worker_pool')}), worker_concurrency "
                f"{settings.worker_concurrency} (from {resolved.source_of('worker_concurrency')}) and {counted} "
                f"{getattr(settings, counted)} (from {resolved.source_of(counted)}) count the same; "
                "unset one of them (worker_concurrency: auto)"
            )
        values |= {counted: settings.worker_concurrency, "worker_concurrency": cpus()}
        sources[counted] = sources.pop("worker_concurrency")
        automatic = (automatic - {counted}) | {"worker_concurrency"}
    return _with(resolved, values, sources, automatic)


def _solo(resolved: Resolved) -> Resolved:
    autoscale = resolved.settings.worker_autoscale
    if autoscale is not None and autoscale.maximum > 1:
        raise _more_than_one(resolved, "worker_autoscale", autoscale)
    if resolved.is_default("worker_concurrency"):
        sources = {**resolved.sources, "worker_concurrency": resolved.source_of("worker_pool")}
        return _with(resolved, {"worker_concurrency": 1}, sources, resolved.automatic - {"worker_concurrency"})
    if resolved.settings.worker_concurrency > 1:
        raise _more_than_one(resolved, "worker_concurrency", resolved.settings.worker_concurrency)
    return resolved


def _more_than_one(resolved: Resolved, name: str, value: object) -> ConfigError:
    return ConfigError(
        f"worker_pool solo (from {resolved.source_of('worker_pool')}) is one child, and {name} {value} "
        f"(from {resolved.source_of(name)}) asks for more; unset one of the two"
    )


def _with(
    resolved: Resolved, values: Mapping[str, object], sources: Mapping[str, str], automatic: set[str] | frozenset[str]
) -> Resolved:
    # the values are those of other settings, or fit by construction
    settings = attrs.evolve(resolved.settings, **values)  # type: ignore[arg-type]
    return Resolved(settings, MappingProxyType(dict(sources)), frozenset(automatic))
