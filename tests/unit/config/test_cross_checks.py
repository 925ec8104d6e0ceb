"""Settings that are right each by itself and wrong together."""

import pytest

from hybridpool._config import check_queues, init_layer, resolve
from hybridpool.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"worker_exclude_queues": "celery"}, r"worker_exclude_queues \(from App.*\) leaves no queue to consume"),
        ({"worker_queue_weights": "mails=2"}, r"worker_queue_weights \(from App.*\) names mails; .* consumes celery"),
        ({"worker_queues": "a,b", "worker_queue_weights": "a=2,c=3"}, "names c; this worker consumes a, b"),
        ({"task_queue_max_priority": 5, "task_default_queue_type": "quorum"}, "is for classic queues"),
    ],
)
def test_do_not_fit(values: dict[str, object], told: str) -> None:
    """Queue settings that contradict each other are refused."""
    with pytest.raises(ConfigError, match=told):
        check_queues(resolve([init_layer(values)], cpus=lambda: 1))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"worker_queues": "a,b", "worker_queue_weights": {"a": 2}},
        {"task_queue_max_priority": 5},
        {"task_default_queue_type": "quorum"},
    ],
)
def test_fit(values: dict[str, object]) -> None:
    """Queue settings that fit each other are accepted."""
    check_queues(resolve([init_layer(values)], cpus=lambda: 1))
