"""Every error that hybridpool raises. This file imports nothing.

HybridpoolError
├── ConfigError           an option or setting is wrong; names it, its source and the allowed values
├── AppLoadError          the app named on the command line cannot be imported
├── TaskError             the task failed, as seen by its caller
│   ├── NotRegistered     no task of that name
│   ├── TaskRevoked       the task was not run, or was stopped: it had expired or was revoked
│   ├── RetriesExhausted  the task wanted another attempt, beyond max_retries
│   └── TaskFailed        the task raised; carries type, arguments and traceback text
├── TimeLimitExceeded     the task ran over its hard time limit
├── PoolError             the pool's fault, not the task's
│   ├── ChildLost         a child died while it ran the call
│   ├── ChildStartFailed  children die or hang before they are ready, again and again
│   └── PoolClosed        the pool is shutting down or gone
├── BrokerError           the broker cannot be reached, has refused, or did not confirm
│   ├── BrokerUnavailable no connection in time, or no message is accepted now: a retry may help
│   │   └── QueueFull     a queue takes no more messages for now
│   └── BrokerRefused     the broker refuses for good: the same request will be refused again
│       ├── AccessRefused   this user has no right to do that
│       ├── QueueNotFound   no such queue or exchange
│       ├── MessageTooLarge the body is over the broker's max_message_size
│       └── CannotEncode    a header or property has no form in AMQP, or does not fit into a frame
├── ResultError           there is no answer
│   ├── ResultTimeout     not within the time allowed; the task may still run
│   └── ResultsDisabled   no result backend is configured, or the task ignores its result
├── ProtocolError         a message that is not Celery protocol 2, or is refused
└── CannotSend            a function, argument or result that has no form in which it can be sent

TaskSignal                raised inside a task, from outside; not an Exception, so `except Exception` does not catch it
├── SoftTimeLimitExceeded the soft time limit has passed; the task may clean up and return
└── TaskCancelled         the caller has cancelled the call

TaskVerdict               raised by a task to decide about its message; not an Exception either
├── Retry                 run it again later
├── Reject                dead-letter it, or give it back to its queue
└── Ignore                acknowledge it; keep no result
"""


class HybridpoolError(Exception):
    """Base of all errors that hybridpool raises."""


class ConfigError(HybridpoolError):
    """A setting or option has a value that cannot be used.

    :param message: one line that names the setting, its source and what is allowed.
    """


class AppLoadError(HybridpoolError):
    """The app cannot be imported, or is not where the command line says.

    :param message: one line for the operator.
    :param details: the user's own part of the traceback, if the module itself failed; else empty.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class TaskError(HybridpoolError):
    """The task failed, not the pool or the broker."""


class NotRegistered(TaskError):
    """No task of that name is registered with the app."""


class TaskRevoked(TaskError):
    """The task was not run, because it had expired or was revoked; or it was stopped for that."""


class RetriesExhausted(TaskError):
    """The task asked to be run again, and had been as often as `max_retries` allows."""


class TaskFailed(TaskError):
    """A task raised an exception whose type is not importable where the result is read.

    :param kind: the qualified type name, as ``module.Name``.
    :param arguments: the exception's arguments as far as they could be sent.
    :param traceback: the child's traceback as text.
    """

    def __init__(self, kind: str, arguments: tuple[object, ...] = (), traceback: str = "") -> None:
        shown = ", ".join(map(repr, arguments))
        super().__init__(f"{kind}({shown})")
        self.kind = kind
        self.arguments = arguments
        self.traceback = traceback


class TimeLimitExceeded(HybridpoolError, TimeoutError):
    """The task ran over its hard time limit.

    Its child was killed with its descendants; a task beside others in one child was told to stop.
    """


class PoolError(HybridpoolError):
    """The pool failed, not the task."""


class ChildLost(PoolError):
    """A child died while it ran the call; the message says how.

    :param message: one line.
    :param task: name of the function or task.
    :param child: name of the child; empty if the call was not run.
    :param exitcode: as `subprocess` gives it, negative for a signal; None if unknown.
    :param peak: bytes of memory the child had resident at most; 0 if unknown.
    """

    def __init__(
        self, message: str, task: str = "", child: str = "", exitcode: int | None = None, peak: int = 0
    ) -> None:
        super().__init__(message)
        self.task = task
        self.child = child
        self.exitcode = exitcode
        self.peak = peak


class ChildStartFailed(PoolError):
    """Children keep dying or hanging before they are ready; the last cause is in the message."""


class PoolClosed(PoolError):
    """The pool takes no more calls: it is shutting down or was never started."""


class BrokerError(HybridpoolError):
    """The broker refused, failed or did not confirm."""


class BrokerUnavailable(BrokerError):
    """There is no connection to the broker, and none could be made in the time allowed; or it takes nothing now."""


class QueueFull(BrokerUnavailable):
    """A queue takes no messages for now: it is full and refuses (`reject-publish`), or its node is shutting down."""


class BrokerRefused(BrokerError):
    """The broker refuses for good: the same request, made again, is refused again."""


class AccessRefused(BrokerRefused):
    """The user has no right to do that; the message quotes the broker."""


class QueueNotFound(BrokerRefused):
    """There is no queue or exchange of that name."""


class MessageTooLarge(BrokerRefused):
    """The body is over the broker's `max_message_size`."""


class CannotEncode(BrokerRefused):
    """A header or property of the message has no form in AMQP, or does not fit into a frame; nothing was sent."""


class ResultError(HybridpoolError):
    """There is no answer of a task."""


class ResultTimeout(ResultError, TimeoutError):
    """The answer did not come in the time allowed; the task itself is not stopped by that."""


class ResultsDisabled(ResultError):
    """No result backend is configured, so there is nothing to wait for."""


class ProtocolError(HybridpoolError):
    """A message that cannot be understood or is refused; the text is the reason."""


class CannotSend(HybridpoolError, TypeError):
    """A function, argument or result that cannot be sent to or from a child; the message names it."""


class TaskSignal(BaseException):
    """Raised inside a task from outside."""


class SoftTimeLimitExceeded(TaskSignal):
    """The soft time limit has passed.

    :param limit: seconds.
    """


class TaskCancelled(TaskSignal):
    """The caller has cancelled the call."""


class TaskVerdict(BaseException):
    """Raised by a task to decide about its message."""


class Retry(TaskVerdict):
    """Run the task again, later: the same id, one more retry. `current_task().retry(…)` raises it.

    :param cause: why, for the log and the task's state.
    :param countdown: seconds until then; None: as the task's retry options say.
    :param args: positional arguments of the next attempt; None: the same.
    :param kwargs: keyword arguments of the next attempt; None: the same.
    """

    def __init__(
        self,
        cause: BaseException | None = None,
        countdown: float | None = None,
        args: object = None,
        kwargs: object = None,
    ) -> None:
        super().__init__(cause, countdown, args, kwargs)
        self.cause = cause
        self.countdown = countdown
        self.new_args = args
        self.new_kwargs = kwargs


class Reject(TaskVerdict):
    """Do not keep the message: dead-letter it with this reason, or give it back to its queue.

    :param reason: for the log and the dead letter.
    :param requeue: give it back.
    """

    def __init__(self, reason: object = "", requeue: bool = False) -> None:
        super().__init__(reason, requeue)
        self.reason = reason
        self.requeue = requeue


class Ignore(TaskVerdict):
    """Acknowledge the message, and keep no result: the task has stored one itself."""
