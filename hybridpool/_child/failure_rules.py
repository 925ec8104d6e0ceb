"""What a task's options say about its failures, and what follows from them in the child.

The child decides whether there is another attempt, since only it has the exception; the parent decides when it starts
(`policy.retry`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from hybridpool._child.rendering import describe_exception, escape_surrogates, safe_repr, to_raised
from hybridpool._ipc import codec
from hybridpool._ipc.frames import ChildOutcome, Ignored, Rejected, Retrying
from hybridpool._task_context import GrantedRetry
from hybridpool.errors import Ignore, Reject, RetriesExhausted, Retry, TaskVerdict


class Rules(msgspec.Struct, frozen=True):
    """The options of one task that its children need."""

    #: exceptions after which it is run again
    autoretry_for: tuple[type[BaseException], ...] = ()
    #: exceptions out of these after which it is not
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    #: exceptions that are expected: logged without a traceback
    throws: tuple[type[BaseException], ...] = ()
    #: retries it may have; None: no end
    max_retries: int | None = 3
    #: its first argument is the task at work (`context.RunningTask`)
    bind: bool = False


DEFAULT_RULES: Final = Rules()
#: seconds; a countdown beyond this is an error, as infinity and NaN are
_MAX_COUNTDOWN_S: Final = 1e15


def to_outcome(
    rules: Rules, error: BaseException, retries: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ChildOutcome:
    """Put what a task raised into an outcome.

    :param retries: attempts before this one.
    """
    match error:
        case GrantedRetry():
            return _to_retrying(error, args, kwargs)
        case Retry():
            # Raised directly, so `Running.retry` has not checked the limit, and the retries would never end.
            return (
                _to_retrying(error, args, kwargs)
                if _has_retries_left(rules, retries)
                else _to_exhausted(error, retries)
            )
        case Reject(reason=str() as reason):
            return Rejected(escape_surrogates(reason), bool(error.requeue))
        case Reject():
            return Rejected(safe_repr(error.reason), bool(error.requeue))
        case Ignore():
            return Ignored()
        case TaskVerdict():
            return to_raised(error)
        case _:
            pass
    if _is_retried(rules, error) and _has_retries_left(rules, retries):
        return _to_retrying(Retry(error), args, kwargs)
    failure = to_raised(error)
    failure.expected = isinstance(error, rules.throws)
    return failure


def _is_retried(rules: Rules, error: BaseException) -> bool:
    return isinstance(error, rules.autoretry_for) and not isinstance(error, rules.dont_autoretry_for)


def _has_retries_left(rules: Rules, retries: int) -> bool:
    return rules.max_retries is None or retries < rules.max_retries


def _to_exhausted(retry: Retry, retries: int) -> ChildOutcome:
    if isinstance(retry.cause, BaseException):
        return to_raised(retry.cause)
    return to_raised(RetriesExhausted(f"it was retried {retries} times, which is all it may be (max_retries)"))


def _to_retrying(retry: Retry, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ChildOutcome:
    if not _is_wait(retry.countdown):
        return to_raised(TypeError(f"a retry's countdown must be seconds, not {safe_repr(retry.countdown)}"))
    body = None
    if retry.new_args is not None or retry.new_kwargs is not None:
        new_args = args if retry.new_args is None else retry.new_args
        new_kwargs = kwargs if retry.new_kwargs is None else retry.new_kwargs
        if not isinstance(new_args, list | tuple) or not isinstance(new_kwargs, dict):
            given = f"{safe_repr(new_args)} and {safe_repr(new_kwargs)}"
            return to_raised(TypeError(f"a retry's args must be a list or tuple and its kwargs a dict, not {given}"))
        try:
            body = codec.encode([new_args, new_kwargs, None])
        except Exception as error:
            # A value's own __json__, or its class, may raise anything.
            return to_raised(TypeError(f"the retry's arguments cannot be sent as JSON: {describe_exception(error)}"))
    cause = to_raised(retry.cause if isinstance(retry.cause, BaseException) else retry)
    text = "" if retry.cause is None else safe_repr(retry.cause)
    return Retrying(cause.kind, cause.module, cause.arguments, text, cause.traceback, retry.countdown, body)


def _is_wait(countdown: object) -> bool:
    """Tell whether it is a number of seconds. The parent accepts nothing else from a child."""
    if countdown is None:
        return True
    return isinstance(countdown, int | float) and not isinstance(countdown, bool) and abs(countdown) < _MAX_COUNTDOWN_S
