"""Concurrency and autoscale together, as the article has it."""

import pytest

from hybridpool._config import Layer, PoolRange, command_line_layer, conf_layer, environment_layer, pool_range, resolve
from hybridpool.errors import ConfigError

CASES = [
    ({}, (4, 4, 4), "one per CPU this process may use"),
    ({"worker_concurrency": "auto"}, (4, 4, 4), "one per CPU this process may use"),
    ({"worker_concurrency": 2}, (2, 2, 2), "fixed by --concurrency"),
    ({"worker_autoscale": "1,3"}, (1, 3, 1), "--autoscale 1,3"),
    ({"worker_autoscale": "3,1"}, (1, 3, 1), "--autoscale 1,3"),
    ({"worker_autoscale": "none", "worker_concurrency": 2}, (2, 2, 2), "fixed by --concurrency"),
    (
        {"worker_concurrency": 2, "worker_autoscale": "1,3"},
        (2, 3, 2),
        "--concurrency 2 is the floor, the maximum of --autoscale 1,3 the ceiling",
    ),
    (
        {"worker_concurrency": 2, "worker_autoscale": "3,4"},
        (2, 4, 2),
        "--concurrency 2 is the floor, the maximum of --autoscale 3,4 the ceiling",
    ),
    (
        {"worker_concurrency": 3, "worker_autoscale": "1,3"},
        (3, 3, 3),
        "--concurrency 3 is the floor, the maximum of --autoscale 1,3 the ceiling",
    ),
    ({"worker_concurrency": "auto", "worker_autoscale": "1,3"}, (1, 3, 1), "--autoscale 1,3"),
]


@pytest.mark.parametrize(("given", "sizes", "why"), CASES)
def test_rule(given: dict[str, object], sizes: tuple[int, int, int], why: str) -> None:
    """Concurrency and autoscale give the pool's range, and the banner its reason."""
    floor, ceiling, start = sizes
    found = pool_range(resolve([command_line_layer(given)], cpus=lambda: 4))
    assert found == PoolRange(floor=floor, ceiling=ceiling, start=start, why=why)
    assert found.is_fixed == (floor == ceiling)


@pytest.mark.parametrize(
    ("layers", "sources"),
    [
        (
            [
                command_line_layer({"worker_autoscale": "1,3"}),
                environment_layer({"HYBRIDPOOL_WORKER_CONCURRENCY": "4"}),
            ],
            ("HYBRIDPOOL_WORKER_CONCURRENCY", "--autoscale"),
        ),
        (
            [conf_layer({"worker_autoscale": (1, 3), "worker_concurrency": 4})],
            ("app.conf.worker_concurrency", "app.conf.worker_autoscale"),
        ),
    ],
)
def test_contradiction(layers: list[Layer], sources: tuple[str, str]) -> None:
    """A concurrency above the autoscale maximum is refused, and both sources are named."""
    with pytest.raises(ConfigError) as caught:
        pool_range(resolve(layers))
    assert str(caught.value) == (
        f"worker_concurrency 4 (from {sources[0]}) is above the maximum of worker_autoscale 1,3 (from {sources[1]}); "
        "lower the one or raise the other"
    )
