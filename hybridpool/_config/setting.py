"""One entry of the table of settings."""

from collections.abc import Callable
from typing import TypeVar, cast

import attrs

from hybridpool._config.urls import masked

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Setting:
    """One entry of the table of settings."""

    name: str
    #: checks a value from any source; raises `units.BadValue`
    parse: Callable[[object], object]
    default: object
    #: the default, as help shows it
    default_text: str
    help: str
    kind: str
    #: on the command line, the long one last
    options: tuple[str, ...]
    #: empty: an on/off option
    metavar: str
    #: its value may hold a password and is masked wherever it is shown
    secret: bool

    @property
    def option(self) -> str:
        """The long option, as messages name it."""
        return self.options[-1]


def setting(
    parse: Callable[[object], T],
    default: object,
    text: str,
    *,
    kind: str,
    opts: str,
    metavar: str = "",
    default_text: str = "",
    secret: bool = False,
    factory: Callable[[], object] | None = None,
) -> T:
    """Declare an entry. To the type checker it is a `T`, so a parser that does not fit its attribute is an error."""
    entry = {
        "parse": parse,
        "default": default,
        "default_text": default_text or str(default),
        "help": text,
        "kind": kind,
        "options": tuple(opts.split()),
        "metavar": metavar,
        "secret": secret,
    }
    field = attrs.field(
        default=attrs.Factory(factory) if factory else parse(default),
        repr=_masked_repr if secret else True,
        metadata=entry,
    )
    return cast(T, field)


def _masked_repr(value: str | None) -> str:
    return repr(value and masked(value))
