"""What a task's options say about its failures, and what follows from them in the child.

When the next attempt comes is the parent's matter (`policy.retry`): here it is only decided whether there is one, since
only here the exception is at hand.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from hybridpool._child.rendering import described, plain, raised, shown
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
    #: exceptions that are no surprise: logged without a traceback
    throws: tuple[type[BaseException], ...] = ()
    #: retries it may have; None: no end
    max_retries: int | None = 3
    #: its first argument is the task at work (`context.RunningTask`)
    bind: bool = False


DEFAULT: Final = Rules()
#: seconds; no number of them that anybody means, nor infinity, nor no number at all
_FAR: Final = 1e15


def failed(
    rules: Rules, error: BaseException, retries: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ChildOutcome:
    """Put what a task raised into an outcome.

    :param retries: attempts before this one.
    """
    match error:
        case GrantedRetry():
            return _again(error, args, kwargs)
        case Retry():
            # Raised by hand: nobody has counted yet, and without an end it would go on for ever.
            return _again(error, args, kwargs) if _has_more(rules, retries) else _no_more(error, retries)
        case Reject(reason=str() as reason):
            return Rejected(plain(reason), bool(error.requeue))
        case Reject():
            return Rejected(shown(error.reason), bool(error.requeue))
        case Ignore():
            return Ignored()
        case TaskVerdict():
            return raised(error)
        case _:
            pass
    if _is_retried(rules, error) and _has_more(rules, retries):
        return _again(Retry(error), args, kwargs)
    said = raised(error)
    said.expected = isinstance(error, rules.throws)
    return said


def _is_retried(rules: Rules, error: BaseException) -> bool:
    return isinstance(error, rules.autoretry_for) and not isinstance(error, rules.dont_autoretry_for)


def _has_more(rules: Rules, retries: int) -> bool:
    return rules.max_retries is None or retries < rules.max_retries


def _no_more(wanted: Retry, retries: int) -> ChildOutcome:
    if isinstance(wanted.cause, BaseException):
        return raised(wanted.cause)
    return raised(RetriesExhausted(f"it was retried {retries} times, which is all it may be (max_retries)"))


def _again(wanted: Retry, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ChildOutcome:
    if not _is_wait(wanted.countdown):
        return raised(TypeError(f"a retry's countdown must be seconds, not {shown(wanted.countdown)}"))
    body = None
    if wanted.new_args is not None or wanted.new_kwargs is not None:
        new_args = args if wanted.new_args is None else wanted.new_args
        new_kwargs = kwargs if wanted.new_kwargs is None else wanted.new_kwargs
        if not isinstance(new_args, list | tuple) or not isinstance(new_kwargs, dict):
            given = f"{shown(new_args)} and {shown(new_kwargs)}"
            return raised(TypeError(f"a retry's args must be a list or tuple and its kwargs a dict, not {given}"))
        try:
            body = codec.encode([new_args, new_kwargs, None])
        except Exception as error:
            # A value's own __json__, or its class, may raise anything.
            return raised(TypeError(f"the retry's arguments cannot be sent as JSON: {described(error)}"))
    cause = raised(wanted.cause if isinstance(wanted.cause, BaseException) else wanted)
    text = "" if wanted.cause is None else shown(wanted.cause)
    return Retrying(cause.kind, cause.module, cause.arguments, text, cause.traceback, wanted.countdown, body)


def _is_wait(countdown: object) -> bool:
    """Tell whether it is seconds. The parent takes nothing else from a child."""
    if countdown is None:
        return True
    return isinstance(countdown, int | float) and not isinstance(countdown, bool) and abs(countdown) < _FAR
