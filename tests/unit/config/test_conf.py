"""`app.conf`: read, set, updated."""

import pytest

from hybridpool._config import Conf
from hybridpool.errors import ConfigError


def test_reads_what_is_effective() -> None:
    """`app.conf` reads the effective value: given, set, or default."""
    conf = Conf({"worker_prefetch_multiplier": "8", "task_acks_late": False})
    assert (conf.worker_prefetch_multiplier, conf.task_acks_late, conf.task_max_deliveries) == (8, False, 3)
    conf.worker_prefetch_multiplier = 2
    assert conf.worker_prefetch_multiplier == conf.settings().worker_prefetch_multiplier == 2


def test_concurrency_is_a_number() -> None:
    """`app.conf.worker_concurrency` is a number also if nothing was set."""
    assert Conf().worker_concurrency >= 1


def test_update_takes_both_forms() -> None:
    """`update` takes a mapping and keyword arguments."""
    conf = Conf()
    conf.update({"task_acks_late": False}, worker_concurrency=3)
    conf.update(worker_concurrency=4)
    assert (conf.task_acks_late, conf.worker_concurrency) == (False, 4)


def test_update_is_all_or_nothing() -> None:
    """A failed update changes nothing."""
    conf = Conf()
    with pytest.raises(ConfigError, match="task_max_deliveries"):
        conf.update(worker_concurrency=3, task_max_deliveries=0)
    assert conf.export() == {"conf": {}, "init": {}}


def test_unknown_attribute_is_an_attribute_error() -> None:
    """An unknown name raises AttributeError, so that `hasattr` works, and suggests the right one."""
    with pytest.raises(AttributeError, match=r"did you mean app\.conf\.worker_concurrency\?"):
        _ = Conf().concurrency
    assert not hasattr(Conf(), "nonsense")
    assert "worker_concurrency" in dir(Conf())


def test_two_apps_are_apart() -> None:
    """Two apps have separate settings."""
    one, two = Conf(), Conf()
    one.task_max_deliveries = 9
    assert two.task_max_deliveries == 3


def test_layers_are_a_snapshot() -> None:
    """The layers are a snapshot that later changes do not reach."""
    conf = Conf()
    before, _ = conf.layers()
    conf.task_max_deliveries = 9
    assert not before.values
