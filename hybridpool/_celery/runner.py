"""Runs a message's task by Celery's tracer (`celery.app.trace.build_tracer`).

When the tracer returns, the result is stored, and what follows from it (links, the next task of a chain, a retry) is
sent. The outcome tells the parent how to answer the broker, and the log how the task ended; its value stays here.

What is sent is confirmed by the broker later than the app has sent it (`publishing`). If that fails:

    links, the next task of a chain,        known before the success is recorded: a failure is recorded in its place,
    what the task itself has sent           as Celery does
    a chord's body, a result by rpc://      waited for when it is sent, since all of this is said to be done afterwards
                                            (`Sender.posts_wait`): the chord's body has failed then, and says so
    a retry, the task in place of a task    a failure is recorded; errbacks run, a chord is counted
    what is sent when the end is recorded   the record stays, and the log has an error: as Celery does for errors of
    (errbacks, `on_success`, signals)       `on_success`
"""

import datetime as dt
import functools
import logging
import os
from contextlib import suppress
from types import FunctionType
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import states
from celery.app.task import Context
from celery.app.trace import build_tracer
from celery.exceptions import Reject
from kombu.exceptions import OperationalError
from kombu.serialization import prepare_accept_content

from hybridpool._celery import remote_commands
from hybridpool._celery.chords import comes_again, finish_claimed
from hybridpool._celery.messages import to_message, to_request
from hybridpool._celery.publishing import Outlet, failure
from hybridpool._celery.unfinished import Recorder
from hybridpool._child.rendering import describe_exception, escape_surrogates, safe_repr, to_raised
from hybridpool._ipc import codec
from hybridpool._ipc.envelope import (
    COMMAND,
    IS_DONE,
    UNFINISHED,
    Envelope,
    unpack_command,
    unpack_envelope,
    unpack_unfinished,
)
from hybridpool._ipc.frames import ChildOutcome, Ignored, Raised, Refused, Rejected, Retrying, Returned, RunCall
from hybridpool.errors import TaskSignal

log = logging.getLogger("hybridpool.worker")


class Runner:
    """Runs the calls of one child."""

    def __init__(self, app: Any, node: str, outlet: Outlet) -> None:
        """Make it in the zygote.

        :param node: the worker's name.
        :param outlet: what the app publishes through.
        """
        self._outlet = outlet
        #: by task name: tracers that were built in the zygote
        self._tracers: dict[str, Any] = {}
        self._app = app
        self._node = node
        self._accept = frozenset(prepare_accept_content(app.conf.accept_content) or ())
        self._recorder = Recorder(app, node, self._accept)
        #: of the task at work: its success is recorded · its message may have been run before
        self._is_recorded = self._comes_again = False

    def __call__(self, call: RunCall, file: int | None) -> ChildOutcome:
        """Run a task, record how one ended that could not record it itself, or run a command of remote control."""
        body = call.body if file is None else os.pread(file, call.parts[0], 0)
        if call.content_type == UNFINISHED:
            unfinished = unpack_unfinished(body)
            if unfinished.how == IS_DONE:
                return Returned(codec.encode(self._recorder.is_done(unfinished.envelope)), "")
            self._recorder.record(unfinished)
            self._confirm()
            return Ignored()
        if call.content_type == COMMAND:
            answer = remote_commands.run(self._app, self._node, unpack_command(body))
            self._confirm()
            return Returned(answer, "")
        envelope = unpack_envelope(body)
        self._is_recorded, self._comes_again = False, comes_again(envelope)
        try:
            outcome = self._run(call, envelope)
            errors = self._outlet.sender.confirm()
            if errors and not (isinstance(outcome, Raised) or self._is_recorded):
                outcome = self._recorder.failed(envelope, failure(errors))
                errors = self._outlet.sender.confirm()
            if errors:
                log.error("Task %s[%s] has ended, but a message was not sent: %s", call.task, call.id, failure(errors))
        except OperationalError as error:
            return self._recorder.failed(envelope, error)
        except BaseException:
            self._outlet.sender.drop_posts()
            raise
        finally:
            self._outlet.sender.posts_wait = False
        return outcome

    def prepare(self) -> None:
        """Build the tracers of all tasks, so that children share them.

        One that cannot be built, say for its result backend, is tried again at each call of its task, which then fails.
        """
        for name, task in self._app.tasks.items():
            with suppress(Exception):
                self._tracers[name] = self._build_tracer(task)

    def _build_tracer(self, task: Any) -> Any:
        self._record_after_confirming(task)
        return build_tracer(task.name, task, self._app.loader, self._node, app=self._app)

    def _confirm(self) -> None:
        """Wait until all that was published is confirmed.

        :raises OperationalError: if the broker has not taken something.
        """
        errors = self._outlet.sender.confirm()
        if errors:
            raise failure(errors)

    def _record_after_confirming(self, task: Any) -> None:
        """Have a task's success recorded when what follows from it is confirmed.

        Celery records a failure if links or the next task of a chain cannot be sent; here that is known only now.
        """
        backend = task.backend
        if getattr(backend.mark_as_done, "__wrapped__", None) is None:
            record = backend.mark_as_done

            @functools.wraps(record)
            def confirm_and_record(task_id: str, result: Any, request: Any = None, *args: Any, **kwargs: Any) -> Any:
                self._confirm()
                self._outlet.sender.posts_wait = True
                try:
                    recorded = record(task_id, result, request, *args, **kwargs)
                    if self._comes_again and request is not None and request.chord:
                        finish_claimed(backend, request, result)
                finally:
                    self._outlet.sender.posts_wait = False
                self._is_recorded = True
                return recorded

            backend.mark_as_done = confirm_and_record

    def _run(self, call: RunCall, envelope: Envelope) -> ChildOutcome:
        task = self._app.tasks.get(call.task)
        if task is None:
            return _refuse(f"unknown task {call.task!r}", "NotRegistered", "celery.exceptions", call.task)
        try:
            request, args, kwargs = to_request(to_message(envelope, self._accept), self._node)
        except TaskSignal:
            raise
        except Exception as error:
            kind, text = type(error), describe_exception(error)
            return _refuse(f"undecodable body: {text}", kind.__qualname__, kind.__module__, text)
        if task.__trace__ is None:
            tracer = self._tracers.get(task.name)
            task.__trace__ = tracer if tracer and _set_pid(tracer) else self._build_tracer(task)
        try:
            value, info, _, text = task.__trace__(call.id, args, kwargs, request)
        except TaskSignal:
            raise
        except Reject as verdict:
            return self._rejected(task, request, verdict, ExceptionInfo())
        except BaseException as error:
            return self._escaped(envelope, error)
        if info is None and isinstance(value, ExceptionInfo):
            # The tracer has only warned of it: what it was given, keyword arguments that are none, say, it cannot run.
            raised: Any = getattr(value.exception, "exc", value.exception)
            return self._escaped(envelope, raised)
        if info is None:
            return Returned(b"", safe_repr(value) if text is None else escape_surrogates(text))
        match info.state:
            case states.RETRY:
                return _retrying(info.retval, value)
            case states.REJECTED:
                return self._rejected(task, request, info.retval, value)
            case states.IGNORED:
                return Ignored()
            case _:
                return _failed(task, info.retval, value)

    def _rejected(self, task: Any, request: dict[str, Any], verdict: Reject, info: Any) -> Rejected:
        """Do what Celery's parent does: a task whose message is not delivered again has failed."""
        if not verdict.requeue:
            self._recorder.rejected(task, Context(request), verdict, info)
        return Rejected(safe_repr(verdict.reason), bool(verdict.requeue))

    def _escaped(self, envelope: Envelope, error: BaseException) -> Raised:
        """Record what the tracer does not: `SystemExit`, a lack of memory, a result backend that is not there.

        In Celery the first two end the child, and its parent records the loss; here the child goes on.
        """
        if isinstance(error, SystemExit):
            return self._recorder.lost(envelope, f"exitcode {error.code if isinstance(error.code, int) else 1}")
        if isinstance(error, Exception) and not isinstance(error, MemoryError):
            return self._recorder.failed(envelope, error)
        return self._recorder.lost(envelope, safe_repr(error))


def _set_pid(tracer: Any) -> bool:
    """Tell a tracer that was built in the zygote the pid of this child, which it shows as that of the task's worker.

    :returns: False if it does not keep the pid where Celery's tracers do.
    """
    names = tracer.__code__.co_freevars if isinstance(tracer, FunctionType) else ()
    if "pid" not in names:
        return False
    cell = (tracer.__closure__ or ())[names.index("pid")]
    if not isinstance(cell.cell_contents, int):
        return False
    cell.cell_contents = os.getpid()
    return True


def _retrying(verdict: Any, info: Any) -> Retrying:
    cause = to_raised(verdict.exc if isinstance(verdict.exc, BaseException) else verdict)
    text = "" if verdict.exc is None else cause.text
    return Retrying(cause.kind, cause.module, b"[]", text, _traceback_of(info), _seconds_until(verdict.when), None)


def _seconds_until(when: object) -> float:
    if isinstance(when, dt.datetime):
        moment = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
        return max(0.0, (moment - dt.datetime.now(dt.UTC)).total_seconds())
    return float(when) if isinstance(when, int | float) else 0.0


def _failed(task: Any, error: BaseException, info: Any) -> Raised:
    raised = to_raised(error)
    raised.traceback = _traceback_of(info) or raised.traceback
    raised.expected = bool(task.throws) and isinstance(error, task.throws)
    return raised


def _traceback_of(info: Any) -> str:
    return escape_surrogates(str(getattr(info, "traceback", None) or "").rstrip("\n"))


def _refuse(reason: str, kind: str, module: str, argument: str) -> Refused:
    return Refused(escape_surrogates(reason), kind, module, codec.encode([escape_surrogates(argument)]))
