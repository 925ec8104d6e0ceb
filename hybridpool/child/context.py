"""What code inside a child can know about the task at work, and the way it asks the parent for something.

The one module-level variable of the house: a task function has no other road to the process it runs in.
"""

from collections.abc import Callable
from contextvars import ContextVar

import msgspec


class Running(msgspec.Struct, frozen=True):
    """The task at work."""

    id: str
    name: str
    #: attempts before this one
    retries: int
    #: id of the first task of the chain of tasks that led here; None: this one
    root_id: str | None
    #: name of the child, as in the log
    child: str
    #: hand an encoded message to the parent to publish; returns when the broker has confirmed it
    enqueue: Callable[[bytes], None]


#: what the pool's initializer made in this child
_resource: list[object] = []


def resource() -> object:
    """Return what the pool's `initializer` returned, or yielded, in this child; None without one."""
    return _resource[-1] if _resource else None


def set_resource(value: object) -> None:
    """Keep what the initializer made."""
    _resource[:] = [value]


_running: ContextVar[Running | None] = ContextVar("hybridpool_running", default=None)


def current_task() -> Running | None:
    """Return the task at work in this child, or None outside of one."""
    return _running.get()


def set_current_task(running: Running | None) -> None:
    """Say which task is at work."""
    _running.set(running)
