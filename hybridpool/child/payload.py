"""One call: bytes → arguments → the function → outcome.

The body is Celery's, protocol 2: ``[args, kwargs, embed]``, embed holding callbacks, errbacks, chain and chord.
"""

import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

from hybridpool.child import codec
from hybridpool.child.frames import Call, ChildOutcome, Raised, Refused, Returned

#: characters of a value's repr that go into the log and the events
_TEXT_LIMIT: Final = 1024


def run(call: Call, tasks: Mapping[str, Callable[..., Any]]) -> ChildOutcome:
    """Run the call; whatever happens inside becomes an outcome, except what must end the process."""
    function = tasks.get(call.task)
    if function is None:
        return refuse(f"unknown task {call.task!r}", "NotRegistered", "celery.exceptions", [call.task])
    try:
        args, kwargs = _arguments(call)
    except _Unsupported as error:
        return refuse(str(error), "NotImplementedError", "builtins", [str(error)])
    except ValueError as error:
        return refuse(f"undecodable body: {error}", "ValueError", "builtins", [str(error)])
    try:
        value = function(*args, **kwargs)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, TypeError) and _never_entered(error.__traceback__):
            return refuse(f"arguments do not fit: {error}", "TypeError", "builtins", [str(error)])
        return raised(error)
    try:
        return Returned(codec.encode(value), shown(value))
    except Exception as error:
        why = f"{call.task} returned a value of type {type(value).__qualname__} that cannot be sent as JSON: {error}"
        return raised(TypeError(why))


def refuse(reason: str, kind: str, module: str, arguments: list[object]) -> Refused:
    """Say that the task was not run, and why, also in the form of an exception for whoever waits."""
    return Refused(reason=plain(reason), kind=kind, module=module, arguments=codec.encode(arguments))


def raised(error: BaseException) -> Raised:
    """Put an exception into words; arguments that have no JSON form go as their repr, as Celery does."""
    kind = type(error)
    return Raised(
        kind=plain(kind.__qualname__),
        module=plain(str(kind.__module__)),
        arguments=_encoded_arguments(error),
        text=shown(error),
        traceback=_user_part(error),
    )


def shown(value: object) -> str:
    """Return the value's repr, cut at 1024 characters; a repr that raises is named, not passed on."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__qualname__} whose repr raised {type(error).__qualname__}>"
    return plain(text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…")


def plain(text: str) -> str:
    """Return text that has a UTF-8 form: lone surrogates, as in odd file names, are written out as escapes."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


class _Unsupported(Exception):
    """The message asks for something of Celery's that is not there yet; to run it without would be wrong."""


def _arguments(call: Call) -> tuple[list[Any], dict[str, Any]]:
    """:raises ValueError: if the body cannot be decoded or is not what protocol 2 says."""
    match codec.decode_as(call.content_type, call.body):
        case [list() | tuple() as args, dict() as kwargs, dict() | None as embed]:
            for name, value in (embed or {}).items():
                if value:
                    raise _Unsupported(f"the message asks for {name!r}, which this worker does not do yet")
            return list(args), kwargs
        case other:
            raise ValueError(f"expected [args, kwargs, embed], got {shown(other)[:80]}")


def _never_entered(frames: TracebackType | None) -> bool:
    """Tell whether the traceback ends where we called: then the call itself did not fit, not code inside it."""
    return frames is not None and frames.tb_next is None and frames.tb_frame.f_code is run.__code__


def _encoded_arguments(error: BaseException) -> bytes:
    try:
        return codec.encode(list(error.args))
    except Exception:
        # An argument's own __json__, or its class, may raise anything.
        return codec.encode([shown(argument) for argument in error.args])


def _user_part(error: BaseException) -> str:
    """Format the traceback without our own frame, which tells a user nothing."""
    frames = error.__traceback__
    if frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    try:
        return plain("".join(traceback.format_exception(type(error), error, frames)).rstrip("\n"))
    except Exception as failure:
        return f"{type(error).__qualname__} (its traceback cannot be formatted: {failure!r})"
