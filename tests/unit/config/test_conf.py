"""`app.conf`: read, set, updated."""

import pytest

from hybridpool._config import Conf
from hybridpool.errors import ConfigError


def test_reads_what_is_effective() -> None:
    """An app would see another value than its worker."""
    conf = Conf({"worker_prefetch_multiplier": "8", "task_acks_late": False})
    assert (conf.worker_prefetch_multiplier, conf.task_acks_late, conf.task_max_deliveries) == (8, False, 3)
    conf.worker_prefetch_multiplier = 2
    assert conf.worker_prefetch_multiplier == conf.settings().worker_prefetch_multiplier == 2


def test_concurrency_is_a_number() -> None:
    """Code that sizes something by the concurrency would meet None."""
    assert Conf().worker_concurrency >= 1


def test_update_takes_both_forms() -> None:
    """Celery's users could not move their `app.conf.update`."""
    conf = Conf()
    conf.update({"task_acks_late": False}, worker_concurrency=3)
    conf.update(worker_concurrency=4)
    assert (conf.task_acks_late, conf.worker_concurrency) == (False, 4)


def test_update_is_all_or_nothing() -> None:
    """A failed update would leave half of itself."""
    conf = Conf()
    with pytest.raises(ConfigError, match="task_max_deliveries"):
        conf.update(worker_concurrency=3, task_max_deliveries=0)
    assert conf.export() == {"conf": {}, "init": {}}


def test_unknown_attribute_is_an_attribute_error() -> None:
    """`hasattr` and `copy` would break on it."""
    with pytest.raises(AttributeError, match=r"did you mean app\.conf\.worker_concurrency\?"):
        _ = Conf().concurrency
    assert not hasattr(Conf(), "nonsense")
    assert "worker_concurrency" in dir(Conf())


def test_two_apps_are_apart() -> None:
    """Setting something on one app would change another."""
    one, two = Conf(), Conf()
    one.task_max_deliveries = 9
    assert two.task_max_deliveries == 3


def test_layers_are_a_snapshot() -> None:
    """A worker's settings would change under it while it runs."""
    conf = Conf()
    before, _ = conf.layers()
    conf.task_max_deliveries = 9
    assert not before.values
