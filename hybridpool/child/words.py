"""Values and exceptions in words: for the log, for result metas, for tracebacks."""

import traceback
from typing import Final

from hybridpool.child import codec
from hybridpool.child.frames import Raised

#: characters of a value's repr that go into the log and the events
_TEXT_LIMIT: Final = 1024


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
