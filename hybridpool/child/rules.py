"""What a task's options say about its failures, and what follows from them in the child.

When the next attempt comes is the parent's matter (`policy.retry`): here it is only decided whether there is one, since
only here the exception is at hand.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from hybridpool.child import codec
from hybridpool.child.frames import ChildOutcome, Ignored, Rejected, Retrying
from hybridpool.child.words import plain, raised, shown
from hybridpool.errors import Ignore, Reject, Retry, TaskVerdict


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
    #: its first argument is the task at work (`context.Running`)
    bind: bool = False


DEFAULT: Final = Rules()


def failed(
    rules: Rules, error: BaseException, retries: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ChildOutcome:
    """Put what a task raised into an outcome.

    :param retries: attempts before this one.
    """
    match error:
        case Retry():
            return _again(error, args, kwargs)
        case Reject():
            return Rejected(plain(str(error.reason)), bool(error.requeue))
        case Ignore():
            return Ignored()
        case TaskVerdict():
            return raised(error)
        case _:
            pass
    if _is_retried(rules, error) and (rules.max_retries is None or retries < rules.max_retries):
        return _again(Retry(error), args, kwargs)
    said = raised(error)
    said.expected = isinstance(error, rules.throws)
    return said


def _is_retried(rules: Rules, error: BaseException) -> bool:
    return isinstance(error, rules.autoretry_for) and not isinstance(error, rules.dont_autoretry_for)


def _again(wanted: Retry, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ChildOutcome:
    body = None
    if wanted.new_args is not None or wanted.new_kwargs is not None:
        new_args = args if wanted.new_args is None else wanted.new_args
        new_kwargs = kwargs if wanted.new_kwargs is None else wanted.new_kwargs
        try:
            body = codec.encode([new_args, new_kwargs, None])
        except (TypeError, ValueError) as error:
            return raised(TypeError(f"the retry's arguments cannot be sent as JSON: {error}"))
    cause = raised(wanted.cause if wanted.cause is not None else wanted)
    text = "" if wanted.cause is None else shown(wanted.cause)
    return Retrying(cause.kind, cause.module, cause.arguments, text, cause.traceback, wanted.countdown, body)
