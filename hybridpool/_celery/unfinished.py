"""Records how a task ended that could not record it itself, as Celery's parent does.

Celery's own `Request` of the message does it: result backend, errbacks, chords, `on_failure` and signals are its code.
What it tells the broker is dropped, since the parent has decided that (`_policy.guest_settlement`).
"""

import builtins
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import signals
from celery.app.task import Context
from celery.app.trace import get_actual_ignore_result
from celery.exceptions import Reject, WorkerLostError
from celery.utils.imports import symbol_by_name

from hybridpool._celery.messages import to_message
from hybridpool._child.rendering import to_raised
from hybridpool._ipc import codec
from hybridpool._ipc.envelope import Envelope, Unfinished
from hybridpool._ipc.frames import Raised


class Recorder:
    """Records outcomes for one app."""

    def __init__(self, app: Any, node: str, accept: frozenset[str]) -> None:
        """:param node: the worker's name."""
        self._app = app
        self._node = node
        self._accept = accept

    def record(self, unfinished: Unfinished) -> None:
        """Record how a task ended.

        :raises Exception: whatever the result backend raises.
        """
        envelope = unfinished.envelope
        match unfinished.how:
            case "lost":
                self.lost(envelope, unfinished.cause)
            case "timed out":
                self._request(envelope, acknowledged=unfinished.acknowledged).on_timeout(False, unfinished.limit)
            case "terminated":
                request = self._request(envelope, acknowledged=unfinished.acknowledged)
                request._announce_revoked("terminated", True, signal.SIGTERM, False)
            case "revoked" | "expired" as how:
                request = self._request(envelope, acknowledged=unfinished.acknowledged)
                request._announce_revoked(how, False, None, how == "expired")
            case _:
                self._refused(envelope, unfinished)

    def lost(self, envelope: Envelope, cause: str) -> Raised:
        """Record that the child died in the task, or would have died in Celery.

        :param cause: as Celery's text ends: "signal 9 (SIGKILL)".
        """
        return self.failed(envelope, WorkerLostError(f"Worker exited prematurely: {cause}."))

    def is_done(self, envelope: Envelope) -> bool:
        """Tell whether the task's success is recorded: its child died afterwards, in a handler or a signal.

        Not for a part of a chord: that is counted after its result is recorded, so the child may have died in between.
        """
        request = self._request(envelope, acknowledged=False)
        was_stored: Callable[[], Any] | None = getattr(request, "_success_was_stored", None)
        return was_stored is not None and request._context.chord is None and bool(was_stored())

    def failed(self, envelope: Envelope, error: Exception) -> Raised:
        """Record a failure that the tracer could not record."""
        request = self._request(envelope, acknowledged=True)
        try:
            raise error from None
        except type(error):
            info = ExceptionInfo()
            raised = to_raised(error)
        with _delivered_once(request.task):
            request.on_failure(info)
        return raised

    def rejected(self, task: Any, context: Context, verdict: Reject, info: Any) -> None:
        """Record that the task has rejected its message for good (`Request.on_failure` of Celery's worker)."""
        store = not get_actual_ignore_result(task, context) or task.store_errors_even_if_ignored
        task.backend.mark_as_failure(context.id, verdict, request=context, store_result=store)
        signals.task_failure.send(
            sender=task,
            task_id=context.id,
            exception=verdict,
            args=context.args,
            kwargs=context.kwargs,
            traceback=info.traceback,
            einfo=info,
        )

    def _refused(self, envelope: Envelope, unfinished: Unfinished) -> None:
        """Record that a message is not run: its task is unknown, or its body cannot be decoded."""
        try:
            headers = to_message(envelope, self._accept).headers
        except Exception:
            # That is why it is refused.
            headers = {}
        context = Context(
            {
                **headers,
                "id": unfinished.task_id,
                "reply_to": unfinished.reply_to,
                "correlation_id": unfinished.correlation_id,
                # They are in the body, which is not read.
                "chord": None,
                "errbacks": None,
            }
        )
        error = _exception(unfinished.module, unfinished.kind, codec.decode(unfinished.arguments))
        self._app.backend.mark_as_failure(context.id, error, request=context)

    def _request(self, envelope: Envelope, *, acknowledged: bool) -> Any:
        message = to_message(envelope, self._accept)
        task = self._app.tasks[message.headers["task"]]
        kind: Any = symbol_by_name(task.Request)
        request = kind(
            message, app=self._app, hostname=self._node, task=task, body=message.body, headers=message.headers,
            on_ack=_tell_no_one, on_reject=_tell_no_one,
        )  # fmt: skip
        request.acknowledged = acknowledged
        return request


@contextmanager
def _delivered_once(task: Any) -> Generator[None]:
    """Have Celery record a loss, which it does not if the message were to be delivered again."""
    asked, task.reject_on_worker_lost = task.reject_on_worker_lost, None
    try:
        yield
    finally:
        task.reject_on_worker_lost = asked


def _exception(module: str, name: str, arguments: list[Any]) -> Exception:
    """Return an exception by its name; one that cannot be found or made is a `RuntimeError` that says it."""
    try:
        home = sys.modules.get(module) or import_module(module) if module else builtins
        made = getattr(home, name)(*arguments)
    except Exception:
        made = None
    return made if isinstance(made, Exception) else RuntimeError(f"{name}{tuple(arguments)!r}")


def _tell_no_one(*_: object) -> None:
    """Nothing is told to the broker here."""
