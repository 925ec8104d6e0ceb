"""Values and exceptions as text: for the log, for result metas, for tracebacks."""

import traceback
from typing import Any, Final

from hybridpool._ipc import codec
from hybridpool._ipc.frames import Raised

#: the descriptors of the base class, which a subclass may hide
_ARGUMENTS: Final[Any] = BaseException.__dict__["args"]
_TRACEBACK: Final[Any] = BaseException.__dict__["__traceback__"]
#: characters of a value's repr that go into the log and the events
_MAX_REPR_CHARS: Final = 1024


def to_raised(error: BaseException) -> Raised:
    """Describe an exception as a frame; arguments that have no JSON form are sent as their repr, as Celery does.

    It never raises, whatever the exception's own methods and attributes do: a part that cannot be read is named.
    """
    kind = type(error)
    return Raised(
        kind=_safe_name(kind, "__qualname__"),
        module=_safe_name(kind, "__module__"),
        arguments=_encode_arguments(error),
        text=safe_repr(error),
        traceback=_user_traceback(error),
    )


def safe_repr(value: object) -> str:
    """Return the value's repr, cut at 1024 characters; for a repr that raises, a text that says so."""
    try:
        text = repr(value)
        # A subclass of str may override any method, so it is converted here, where exceptions are caught.
        return escape_surrogates(str(text) if len(text) <= _MAX_REPR_CHARS else text[: _MAX_REPR_CHARS - 1] + "…")
    except BaseException as error:
        # Also SystemExit, KeyboardInterrupt and a soft limit: the call has ended, and only its outcome is described.
        return (
            f"<{_safe_name(type(value), '__qualname__')} whose repr raised {_safe_name(type(error), '__qualname__')}>"
        )


def describe_exception(error: BaseException) -> str:
    """Return an exception's own text; its repr if that text is empty or cannot be made."""
    try:
        return escape_surrogates(str(error)) or safe_repr(error)
    except BaseException:
        return safe_repr(error)


def annotate(error: BaseException, note: str) -> bool:
    """Add a note to an exception of a user's type; False if that type refuses it."""
    try:
        error.add_note(note)
    except Exception:
        # Its own __getattr__ or `__notes__` raised.
        return False
    return True


def escape_surrogates(text: str) -> str:
    """Return text that has a UTF-8 form: lone surrogates, as in file names that are not UTF-8, become escapes."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _safe_name(kind: type, attribute: str) -> str:
    try:
        return escape_surrogates(str(getattr(kind, attribute)))
    except BaseException:
        # Its metaclass overrides the attribute. The slot of `type` is always there.
        return escape_surrogates(str(type.__dict__["__name__"].__get__(kind)))


def _encode_arguments(error: BaseException) -> bytes:
    try:
        return codec.encode(list(error.args))
    except BaseException:
        # An argument's own __json__, or its class, may raise anything.
        pass
    try:
        return codec.encode([safe_repr(argument) for argument in error.args])
    except BaseException:
        # `args` is overridden, and raises or is not a tuple; the descriptor of the base class still has the arguments.
        arguments: tuple[object, ...] = _ARGUMENTS.__get__(error)
        return codec.encode([safe_repr(argument) for argument in arguments])


def _user_traceback(error: BaseException) -> str:
    """Format the traceback without the frame of this library, which does not help a user."""
    try:
        frames = error.__traceback__
        if frames is not None and frames.tb_next is not None:
            frames = frames.tb_next
        return escape_surrogates("".join(traceback.format_exception(type(error), error, frames)).rstrip("\n"))
    except BaseException as failure:
        name = _safe_name(type(error), "__qualname__")
        return f"{_traceback_lines(error)}{name} (its traceback cannot be formatted: {safe_repr(failure)})"


def _traceback_lines(error: BaseException) -> str:
    """Return the lines of the traceback, without the exception's own text."""
    try:
        return escape_surrogates("".join(traceback.format_tb(_TRACEBACK.__get__(error))))
    except BaseException:
        return ""
