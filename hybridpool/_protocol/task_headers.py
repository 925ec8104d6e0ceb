"""The head of a task message: Celery message protocol 2, `application_headers`.

Only fields that the parent uses are read. A header ``task`` identifies protocol 2; protocol 1 has all fields in the
body, which the parent does not decode, so such a message is refused.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Final

from hybridpool._message import Delivery, Head
from hybridpool.errors import ProtocolError

#: our header: how many times a child died in this task
LOST_BEFORE = "x-hybridpool-lost"

#: RabbitMQ's, on messages of quorum queues: how many times it was returned
_DELIVERY_COUNT = "x-delivery-count"

#: a larger count is refused; a sender may have written any value
_MAX_COUNT: Final = 1_000_000_000


def read_head(delivery: Delivery) -> Head:
    """Read the head of a delivery.

    :raises ProtocolError: if it is not a task message of protocol 2, or a field has the wrong type.
    """
    headers = delivery.headers
    name, task_id = headers.get("task"), headers.get("id")
    if not isinstance(name, str) or not name:
        raise ProtocolError("header 'task' is missing or not text: not Celery message protocol 2")
    if not isinstance(task_id, str) or not task_id:
        raise ProtocolError("header 'id' is missing or not text")
    root_id = _text(headers, "root_id")
    return Head(
        name,
        task_id,
        # Mostly it is the first of its tree: one text for both.
        task_id if root_id == task_id else root_id,
        _text(headers, "parent_id"),
        _text(headers, "group"),
        _count(headers, "retries"),
        *_limits(headers),
        _datetime(headers, "eta"),
        _datetime(headers, "expires"),
        headers.get("ignore_result") is True,
        _count(headers, LOST_BEFORE),
        _count(headers, _DELIVERY_COUNT),
    )


def read_sender(delivery: Delivery) -> Head | None:
    """Read from invalid headers what is needed to answer the sender; None: not even that is valid."""
    headers = delivery.headers
    name, task_id = headers.get("task"), headers.get("id")
    if not isinstance(name, str) or not name or not isinstance(task_id, str) or not task_id:
        return None
    ignores = headers.get("ignore_result") is True
    return Head(name, task_id, None, None, None, 0, None, None, None, None, ignores, 0)


def _text(headers: Mapping[str, object], field: str) -> str | None:
    value = headers.get(field)
    if value is None or isinstance(value, str):
        return value
    raise ProtocolError(f"header {field!r} is not text")


def _count(headers: Mapping[str, object], field: str) -> int:
    value = headers.get(field)
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT:
        return value
    raise ProtocolError(f"header {field!r} is not a count")


def _limits(headers: Mapping[str, object]) -> tuple[float | None, float | None]:
    """Read ``timelimit``: hard and soft, in seconds."""
    match headers.get("timelimit"):
        case None:
            return None, None
        case [hard, soft]:
            return _limit(hard), _limit(soft)
        case _:
            raise ProtocolError("header 'timelimit' is not a pair")


def _limit(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return value
    raise ProtocolError("header 'timelimit' holds something other than seconds")


def _datetime(headers: Mapping[str, object], field: str) -> dt.datetime | None:
    value = headers.get(field)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            moment = dt.datetime.fromisoformat(value)
        except ValueError:
            raise ProtocolError(f"header {field!r} is not an ISO 8601 time") from None
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    if isinstance(value, dt.datetime):
        return value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    raise ProtocolError(f"header {field!r} is not a time")
