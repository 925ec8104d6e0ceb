"""The running task, for code inside a child, and its access to the parent.

It is kept in module variables, as a task function is called with the caller's arguments only.
"""

import datetime as dt
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import NoReturn, Self

import msgspec
from msgspec import UNSET, UnsetType

from hybridpool import errors
from hybridpool.errors import BrokerError, HybridpoolError, ProtocolError, RetriesExhausted, Retry


class GrantedRetry(Retry):
    """A retry that `RunningTask.retry` has found to be within the limit; one raised by hand is still to be counted."""

    # Tracebacks show the public class.
    __module__, __qualname__ = Retry.__module__, Retry.__qualname__


class RunningTask(msgspec.Struct, frozen=True):
    """The task that runs. `current_task()` returns it; a task with ``bind=True`` gets it as its first argument."""

    __module__ = "hybridpool"

    #: id of the task; of a call through a pool, a number
    id: str
    #: name of the task or function
    name: str
    #: attempts before this one
    retries: int
    #: id of the first task of the chain of tasks that led here; None: this one
    root_id: str | None
    #: name of the child, as in the log
    child: str
    #: hands an encoded message to the parent to publish; returns when the broker has confirmed it
    _enqueue: Callable[[bytes], None]
    #: retries that the task may have; None: no limit
    max_retries: int | None = 3
    #: does the same on an event loop, and does not block it; None: this child has none
    _post: Callable[[bytes], Awaitable[None]] | None = None

    @property
    def request(self) -> Self:
        """The task itself, as Celery's tasks use ``self.request.retries``."""
        return self

    def retry(
        self,
        *,
        exc: BaseException | None = None,
        countdown: float | None = None,
        eta: dt.datetime | None = None,
        max_retries: int | UnsetType | None = UNSET,
        args: object = None,
        kwargs: object = None,
    ) -> NoReturn:
        """End this attempt, and have the task run again: the same id, one more retry.

        :param exc: why; default: the exception that is being handled.
        :param countdown: seconds until then; None: as the task's retry options say.
        :param eta: the moment, in place of a countdown.
        :param max_retries: in place of the task's own; None: no end.
        :param args: of the next attempt; None: the same.
        :param kwargs: of the next attempt; None: the same.
        :raises Retry: which ends the attempt.
        :raises RetriesExhausted: if it may not be run again and there is no exception; otherwise that exception.
        :raises TypeError: if there are both a countdown and an eta, or one argument is of another kind.
        """
        _check(exc, countdown, eta)
        cause = exc if exc is not None else sys.exc_info()[1]
        limit = self.max_retries if isinstance(max_retries, UnsetType) else max_retries
        if limit is not None and self.retries >= limit:
            if cause is not None:
                raise cause
            raise RetriesExhausted(
                f"{self.name} was retried {self.retries} times, which is all it may be (max_retries)"
            )
        if eta is not None:
            moment = eta if eta.tzinfo else eta.replace(tzinfo=dt.UTC)
            countdown = max(0.0, (moment - dt.datetime.now(dt.UTC)).total_seconds())
        raise GrantedRetry(cause, countdown, args, kwargs) from None


def _check(exc: object, countdown: object, eta: object) -> None:
    """:raises TypeError: if an argument is invalid. Checked here, so that the traceback shows the task's line."""
    if exc is not None and not isinstance(exc, BaseException):
        raise TypeError(f"retry(exc=…) must be an exception, not {exc!r}")
    if eta is not None and not isinstance(eta, dt.datetime):
        raise TypeError(f"retry(eta=…) must be a datetime, not {eta!r}")
    if eta is not None and countdown is not None:
        raise TypeError("a retry has a countdown or an eta, not both")


def not_published(kind: str, why: str) -> HybridpoolError:
    """Return the error that a client's call would raise, so that a task catches the same errors as other programs.

    :param kind: name of the class of the parent's error.
    """
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, BrokerError | ProtocolError):
        return found(why)
    return BrokerError(why)


#: the value of the pool's initializer in this child
_resource: list[object] = []


def resource() -> object:
    """Return what the pool's `initializer` returned, or yielded, in this child; None without one."""
    return _resource[-1] if _resource else None


def set_resource(value: object) -> None:
    """Store the value of the initializer."""
    _resource[:] = [value]


_running: ContextVar[RunningTask | None] = ContextVar("hybridpool_running", default=None)


def current_task() -> RunningTask | None:
    """Return the task at work in this child, or None outside of one."""
    return _running.get()


def set_current_task(running: RunningTask | None) -> None:
    """Say which task is at work."""
    _running.set(running)


#: in a child of an app: what threads send by that carry no task's context
_fallback_sender: list[RunningTask] = []


def current_sender() -> RunningTask | None:
    """Return by what calls leave here: the task at work, or in a child what stands for it; None in other programs.

    A thread that a task starts does not have the task's context (before Python 3.14), but is in the child all the same.
    """
    return _running.get() or (_fallback_sender[-1] if _fallback_sender else None)


def send_to_parent(running: RunningTask, message: bytes) -> None:
    """Hand an encoded message to the parent to publish; returns when the broker has confirmed it.

    :raises BrokerError: if the parent could not publish it.
    """
    running._enqueue(message)  # pyright: ignore[reportPrivateUsage]


async def post_to_parent(running: RunningTask, message: bytes) -> None:
    """As `send_to_parent`; a task on an event loop lets the loop go on meanwhile.

    :raises BrokerError: if the parent could not publish it.
    """
    post = running._post  # pyright: ignore[reportPrivateUsage]
    if post is None:
        send_to_parent(running, message)
    else:
        await post(message)


def set_fallback_sender(running: RunningTask | None) -> None:
    """Say what stands for a task in threads without its context."""
    _fallback_sender[:] = [] if running is None else [running]
