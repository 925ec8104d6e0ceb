"""How large the pool may be: the rule for concurrency and autoscale together.

An explicit concurrency is the floor, the autoscale maximum the ceiling. Without an explicit concurrency, the autoscale
range is the pool's; without autoscale, the pool stays at its concurrency.
"""

import attrs

from hybridpool._config.pool_names import apply_pool_name
from hybridpool._config.sources import Resolved
from hybridpool.errors import ConfigError


@attrs.frozen(kw_only=True)
class PoolRange:
    """Numbers of children: at least, at most, and at the start."""

    floor: int
    ceiling: int
    start: int
    #: the reason, for the banner
    why: str

    @property
    def is_fixed(self) -> bool:
        """Whether the pool never changes its size."""
        return self.floor == self.ceiling


def pool_range(resolved: Resolved) -> PoolRange:
    """Decide between which sizes the pool moves.

    :raises ConfigError: if an explicit concurrency is above the autoscale maximum, or a setting contradicts the pool's
        name.
    """
    resolved = apply_pool_name(resolved)
    concurrency = resolved.settings.worker_concurrency
    autoscale = resolved.settings.worker_autoscale
    is_explicit = not resolved.is_default("worker_concurrency")
    concurrency_source = resolved.source_of("worker_concurrency")
    autoscale_source = resolved.source_of("worker_autoscale")
    if autoscale is None:
        why = f"fixed by {concurrency_source}" if is_explicit else "one per CPU this process may use"
        return PoolRange(floor=concurrency, ceiling=concurrency, start=concurrency, why=why)
    if not is_explicit:
        low, high = autoscale
        return PoolRange(floor=low, ceiling=high, start=low, why=f"{autoscale_source} {autoscale}")
    if concurrency > autoscale.maximum:
        raise ConfigError(
            f"worker_concurrency {concurrency} (from {concurrency_source}) is above the maximum of "
            f"worker_autoscale {autoscale} (from {autoscale_source}); lower the one or raise the other"
        )
    why = f"{concurrency_source} {concurrency} is the floor, the maximum of {autoscale_source} {autoscale} the ceiling"
    return PoolRange(floor=concurrency, ceiling=autoscale.maximum, start=concurrency, why=why)
