"""What the name of a pool implies for other settings, and what contradicts it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._config import (
    Layer,
    Resolved,
    apply_pool_name,
    command_line_layer,
    conf_layer,
    environment_layer,
    pool_range,
    resolve,
)
from hybridpool.errors import ConfigError

CPUS = 4
#: pool, concurrency → children, threads, async calls, default lane
CASES = [
    ("prefork", None, (4, 32, 100, "process")),
    ("prefork", 7, (7, 32, 100, "process")),
    ("threads", None, (4, 32, 100, "thread")),
    ("threads", 7, (4, 7, 100, "thread")),
    ("threads", "auto", (4, 32, 100, "thread")),
    ("asyncio", None, (4, 32, 100, "process")),
    ("asyncio", 700, (4, 32, 700, "process")),
    ("solo", None, (1, 32, 100, "process")),
    ("solo", 1, (1, 32, 100, "process")),
    ("solo", "auto", (1, 32, 100, "process")),
]


def cpus() -> int:
    """Return the machine's size."""
    return CPUS


def named(*layers: Layer) -> Resolved:
    """Resolve settings, with what the name of the pool implies."""
    return apply_pool_name(resolve(layers, cpus=cpus), cpus=cpus)


@pytest.mark.parametrize(("pool", "concurrency", "expected"), CASES)
def test_meaning(pool: str, concurrency: int | str | None, expected: tuple[int, int, int, str]) -> None:
    """`--pool` decides what `--concurrency` counts, and where tasks run that name no lane."""
    given = {"worker_pool": pool} | ({} if concurrency is None else {"worker_concurrency": concurrency})
    found = named(command_line_layer(given)).settings
    assert (
        found.worker_concurrency,
        found.worker_thread_concurrency,
        found.worker_async_concurrency,
        found.task_default_lane,
    ) == expected


def test_sources() -> None:
    """What is implied has the source that implies it."""
    found = named(environment_layer({"HYBRIDPOOL_WORKER_POOL": "threads", "HYBRIDPOOL_WORKER_CONCURRENCY": "7"}))
    assert found.source_of("worker_thread_concurrency") == "HYBRIDPOOL_WORKER_CONCURRENCY"
    assert found.source_of("task_default_lane") == "HYBRIDPOOL_WORKER_POOL"
    assert found.is_default("worker_concurrency")
    assert found.source_of("worker_concurrency") == "default"
    assert not found.is_default("worker_thread_concurrency")
    assert not found.is_default("task_default_lane")
    assert pool_range(found).why == "one per CPU this process may use"
    assert pool_range(resolve([command_line_layer({"worker_pool": "solo"})])).why == "fixed by --pool"


def test_what_is_given_is_stronger() -> None:
    """A setting that is given, in whichever place, is stronger than what the name of the pool implies."""
    app = conf_layer({"task_default_lane": "process", "worker_thread_concurrency": 5})
    found = named(command_line_layer({"worker_pool": "threads"}), app)
    assert found.settings.task_default_lane == "process"
    assert found.settings.worker_thread_concurrency == 5
    assert found.source_of("task_default_lane") == "app.conf.task_default_lane"
    assert found.settings.worker_concurrency == CPUS


def test_a_range_of_one_child_is_solo() -> None:
    """A range that is one child does not contradict `--pool=solo`."""
    found = pool_range(resolve([command_line_layer({"worker_pool": "solo", "worker_autoscale": "1,1"})]))
    assert (found.floor, found.ceiling, found.start) == (1, 1, 1)


def test_autoscale_goes_with_the_children() -> None:
    """With threads and asyncio, `--autoscale` is the range of the children, which `--concurrency` does not count."""
    for pool in ("threads", "asyncio"):
        given = {"worker_pool": pool, "worker_concurrency": 50, "worker_autoscale": "2,3"}
        found = pool_range(named(command_line_layer(given)))
        assert (found.floor, found.ceiling) == (2, 3)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (
            {"worker_pool": "threads", "worker_concurrency": 10, "worker_thread_concurrency": 20},
            (
                "with worker_pool threads (from --pool), worker_concurrency 10 (from --concurrency) and "
                "worker_thread_concurrency 20 (from --thread-concurrency) count the same; unset one of them "
                "(worker_concurrency: auto)"
            ),
        ),
        (
            {"worker_pool": "asyncio", "worker_concurrency": 10, "worker_async_concurrency": 10},
            (
                "with worker_pool asyncio (from --pool), worker_concurrency 10 (from --concurrency) and "
                "worker_async_concurrency 10 (from --async-concurrency) count the same; unset one of them "
                "(worker_concurrency: auto)"
            ),
        ),
        (
            {"worker_pool": "solo", "worker_concurrency": 2},
            (
                "worker_pool solo (from --pool) is one child, and worker_concurrency 2 (from --concurrency) asks for "
                "more; unset one of the two"
            ),
        ),
        (
            {"worker_pool": "solo", "worker_autoscale": "1,3"},
            (
                "worker_pool solo (from --pool) is one child, and worker_autoscale 1,3 (from --autoscale) asks for "
                "more; unset one of the two"
            ),
        ),
    ],
)
def test_contradictions(given: dict[str, object], complaint: str) -> None:
    """A setting that contradicts the name of the pool is refused in one line, with both sources."""
    with pytest.raises(ConfigError) as caught:
        named(command_line_layer(given))
    assert str(caught.value) == complaint
    with pytest.raises(ConfigError):
        pool_range(resolve([command_line_layer(given)]))


some = st.integers(1, 99)


@given(
    given=st.fixed_dictionaries(
        {"worker_pool": st.sampled_from(("prefork", "threads", "asyncio", "solo"))},
        optional={
            "worker_concurrency": some,
            "worker_thread_concurrency": some,
            "worker_async_concurrency": some,
            "worker_autoscale": st.tuples(some, some),
            "task_default_lane": st.sampled_from(("process", "thread")),
        },
    )
)
def test_whatever_is_given(given: dict[str, object]) -> None:
    """The name of the pool changes no other setting, overrides none, and implies nothing more when applied again."""
    plain = resolve([command_line_layer(given)], cpus=cpus)
    try:
        found = apply_pool_name(plain, cpus=cpus)
    except ConfigError:
        assert given["worker_pool"] != "prefork"
        return
    assert apply_pool_name(found, cpus=lambda: 99) == found
    assert found == plain or given["worker_pool"] != "prefork"
    for name in ("worker_thread_concurrency", "worker_async_concurrency", "worker_autoscale", "task_default_lane"):
        if name in given:
            assert getattr(found.settings, name) == getattr(plain.settings, name)
    counted = {"threads": "worker_thread_concurrency", "asyncio": "worker_async_concurrency"}
    if "worker_concurrency" in given:
        counts = counted.get(str(given["worker_pool"]), "worker_concurrency")
        assert getattr(found.settings, counts) == given["worker_concurrency"]
        assert found.source_of(counts) == "--concurrency"
