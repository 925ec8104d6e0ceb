"""The JSON of a real Celery client, behind types."""

from typing import Any

from kombu.utils import json


def dumps(value: object) -> str:
    """Encode as Celery does."""
    text: str = json.dumps(value)  # type: ignore[no-untyped-call]  # kombu has none
    return text


def loads(data: str | bytes) -> Any:
    """Decode as Celery does."""
    return json.loads(data)  # type: ignore[no-untyped-call]  # kombu has none
