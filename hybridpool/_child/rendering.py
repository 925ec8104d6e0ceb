"""Values and exceptions in words: for the log, for result metas, for tracebacks."""

import traceback
from typing import Any, Final

from hybridpool._ipc import codec
from hybridpool._ipc.frames import Raised

#: as they are, whatever a subclass has put in their place
_ARGUMENTS: Final[Any] = BaseException.__dict__["args"]
_TRACEBACK: Final[Any] = BaseException.__dict__["__traceback__"]
#: characters of a value's repr that go into the log and the events
_TEXT_LIMIT: Final = 1024


def raised(error: BaseException) -> Raised:
    """Put an exception into words; arguments that have no JSON form go as their repr, as Celery does.

    It never fails, whatever the exception's own methods and attributes do: each part that cannot be had is named.
    """
    kind = type(error)
    return Raised(
        kind=_name_of(kind, "__qualname__"),
        module=_name_of(kind, "__module__"),
        arguments=_encoded_arguments(error),
        text=shown(error),
        traceback=_user_part(error),
    )


def shown(value: object) -> str:
    """Return the value's repr, cut at 1024 characters; a repr that raises is named, not passed on."""
    try:
        text = repr(value)
        # Of the text's own class, too: a subclass of str may do anything.
        return plain(str(text) if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…")
    except BaseException as error:
        # Be it SystemExit, KeyboardInterrupt or a soft limit: the call has ended, and how is being said.
        return f"<{_name_of(type(value), '__qualname__')} whose repr raised {_name_of(type(error), '__qualname__')}>"


def described(error: BaseException) -> str:
    """Return an exception's own text; its repr if there is none, or it raises."""
    try:
        return plain(str(error)) or shown(error)
    except BaseException:
        return shown(error)


def annotate(error: BaseException, note: str) -> bool:
    """Add a note to an exception of a user's type; False if it takes none."""
    try:
        error.add_note(note)
    except Exception:
        # Its own __getattr__, or what it has in place of `__notes__`.
        return False
    return True


def plain(text: str) -> str:
    """Return text that has a UTF-8 form: lone surrogates, as in odd file names, are written out as escapes."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _name_of(kind: type, attribute: str) -> str:
    try:
        return plain(str(getattr(kind, attribute)))
    except BaseException:
        # Its metaclass answers otherwise. The slot itself is always there.
        return plain(str(type.__dict__["__name__"].__get__(kind)))


def _encoded_arguments(error: BaseException) -> bytes:
    try:
        return codec.encode(list(error.args))
    except BaseException:
        # An argument's own __json__, or its class, may raise anything.
        pass
    try:
        return codec.encode([shown(argument) for argument in error.args])
    except BaseException:
        # `args` itself raises, or gives something else. The exception's own are behind it.
        arguments: tuple[object, ...] = _ARGUMENTS.__get__(error)
        return codec.encode([shown(argument) for argument in arguments])


def _user_part(error: BaseException) -> str:
    """Format the traceback without our own frame, which tells a user nothing."""
    try:
        frames = error.__traceback__
        if frames is not None and frames.tb_next is not None:
            frames = frames.tb_next
        return plain("".join(traceback.format_exception(type(error), error, frames)).rstrip("\n"))
    except BaseException as failure:
        name = _name_of(type(error), "__qualname__")
        return f"{_place(error)}{name} (its traceback cannot be formatted: {shown(failure)})"


def _place(error: BaseException) -> str:
    """Return the lines of the traceback, without what the exception says of itself."""
    try:
        return plain("".join(traceback.format_tb(_TRACEBACK.__get__(error))))
    except BaseException:
        return ""
