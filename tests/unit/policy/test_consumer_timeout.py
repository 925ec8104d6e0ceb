"""Tasks that may run longer than the broker waits."""

import pytest

from hybridpool._policy.consumer_timeout import tasks_over_timeout
from hybridpool._task import TaskOptions


@pytest.mark.parametrize(
    ("own", "late", "limit", "acks_late", "consumer_timeout", "listed"),
    [
        (None, None, None, True, 1800.0, False),
        (1800.0, None, None, True, 1800.0, True),
        (1799.0, None, None, True, 1800.0, False),
        (None, None, 3600.0, True, 1800.0, True),
        (60.0, None, 3600.0, True, 1800.0, False),
        (3600.0, None, None, True, None, False),
        (3600.0, None, None, False, 1800.0, False),
        (3600.0, False, None, True, 1800.0, False),
        (3600.0, True, None, False, 1800.0, True),
    ],
)
def test_named(
    own: float | None,
    late: bool | None,
    limit: float | None,
    acks_late: bool,
    consumer_timeout: float | None,
    listed: bool,
) -> None:
    """A task whose limit exceeds the broker's consumer timeout is named if it is acknowledged late."""
    task = TaskOptions(name="shop.film", time_limit=own, acks_late=late)
    named = tasks_over_timeout([task], consumer_timeout=consumer_timeout, limit=limit, acks_late=acks_late)
    assert named == ([("shop.film", own or limit)] if listed else [])
