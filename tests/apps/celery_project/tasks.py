"""Tasks that the app's setting `include` names."""

from celery import shared_task


@shared_task  # type: ignore[untyped-decorator]  # Celery is untyped
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y
