"""Tasks that use the database."""

import os
from typing import Any

from celery import shared_task
from django.db import connection, transaction

from django_project.shop.models import Sale


@shared_task
def make_table() -> None:
    """Create the table."""
    with connection.schema_editor() as editor:
        editor.create_model(Sale)


@shared_task
def sell(amount: int, later: bool) -> list[Any]:
    """Store a sale; have another counted if this is committed, or roll back."""
    was_open = connection.connection is not None
    try:
        with transaction.atomic():
            Sale.objects.create(amount=amount)
            noted.delay_on_commit(amount)
            if not later:
                raise ValueError("rolled back")
    except ValueError:
        pass
    return [os.getpid(), was_open]


@shared_task
def noted(amount: int) -> None:
    """Tell the log that it was committed."""
    print(f"committed {amount}: {Sale.objects.filter(amount=amount).count()} in the table")


@shared_task
def total() -> int:
    """Add all sales up."""
    return sum(Sale.objects.values_list("amount", flat=True))
