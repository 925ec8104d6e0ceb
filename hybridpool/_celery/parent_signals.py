"""Signals of Celery's main process. The parent runs no code of the app, so the child that finishes tasks sends them."""

from collections.abc import Mapping
from typing import Any, Final

from celery import signals

#: those that are sent
SENT: Final = ("worker_ready", "worker_shutting_down", "worker_shutdown")


class Sender:
    """What listeners look at: in Celery the consumer, or the worker."""

    pool_cls = "celery.concurrency.prefork:TaskPool"

    def __init__(self, app: Any, node: str) -> None:
        """:param node: the worker's name."""
        self.app = app
        self.hostname = node
        self.controller = self


def heard() -> list[str]:
    """Return the names of signals that have listeners."""
    return [name for name in SENT if getattr(signals, name).receivers]


def send(app: Any, node: str, name: str, arguments: Mapping[str, Any]) -> None:
    """Send one; a listener that fails is logged by Celery."""
    sender = node if name == "worker_shutting_down" else Sender(app, node)
    getattr(signals, name).send(sender=sender, **arguments)
