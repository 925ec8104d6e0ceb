"""URLs of brokers and result backends: checked, and shown without their passwords. Pure."""

import re
from urllib.parse import unquote, urlsplit

from hybridpool._child.printable import one_line
from hybridpool._config import redis_url
from hybridpool._config.units import BadValue

_BROKERS = {"amqp": "amqp", "amqps": "amqps", "pyamqp": "amqp", "memory": "memory"}
_BROKER = "an AMQP URL such as amqp://user:password@host:5672/vhost (amqps:// for TLS, memory:// within one process)"
#: where several URLs are cut: a semicolon before a broker's scheme, so that one in a password does no harm
_SEPARATOR = re.compile(r"\s*;\s*(?=(?:py)?amqps?://|memory://)", re.IGNORECASE)
_SCHEME_NAME = r"[a-zA-Z][a-zA-Z0-9+.-]*"
_SCHEME = re.compile(_SCHEME_NAME + "://")
#: a login without a scheme, written in place of a URL
_LOGIN = re.compile(r"[^\s=]*:\S.*@", re.DOTALL)
_HOST = re.compile(r"(\[[0-9a-fA-F:.%\w]+\]|[^\s:\[\],;'\"]*)(:\d*)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ESCAPE = "special characters in a user, password or virtual host must be percent-encoded (an at-sign is %40)"
_BACKEND = "rpc://, redis://host:6379/0 (rediss:// for TLS, redis+socket:///path) or disabled"


def masked(url: str) -> str:
    """Show a URL, or several, with `**` for each password, fit for logs and error messages.

    A URL is shown only if it can be read in one way: people forget to escape a slash or an at-sign in a password, and
    what is taken for a port, a path or a host then is a part of it. Nothing that can name a secret is shown of its
    query. What does not look like a URL is not shown at all: a lone password would not look like one either.

    >>> masked("amqp://guest:guest@localhost:5672//")
    'amqp://guest:**@localhost:5672//'
    """
    return ";".join(_masked(each) for each in split(url))


def without_logins(text: str) -> str:
    """Hide the passwords in any text: an argument of the command line, a message that quotes one.

    From the first URL on everything counts as part of it, so that no password with a space in it is shown in part.
    """
    begin = _SCHEME.search(text)
    if begin is not None:
        return text[: begin.start()] + masked(text[begin.start() :])
    return _LOGIN.sub("**@", text)


def masked_user(user: str) -> str:
    """Return a user's name as it may be shown: one in which a password may stand is not."""
    return "**" if "@" in user or ":" in user else one_line(user)


def find_fault(url: str) -> str | None:
    """Return what is wrong with the form of a URL, without quoting it; None: it can be read in one way only."""
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(_SCHEME_NAME, scheme):
        return "this is not a URL"
    location, tail = _cut(rest)
    if ";" in tail:
        # what follows may be another URL with a typing error in it, whose password would be taken for a name
        return "after a semicolon, a whole URL must follow; in a name it is written %3B"
    if "@" in tail or "#" in tail or _CONTROL.search(url):
        return _ESCAPE
    host = location.rpartition("@")[2]
    if not _HOST.fullmatch(host) or not _has_sound_port(url):
        return f"host or port cannot be read; {_ESCAPE}"
    return None


def split(urls: str) -> list[str]:
    """Cut `amqp://a;amqp://b` into its URLs; there is at least one, which may be empty."""
    return _SEPARATOR.split(urls.strip().rstrip(";"))


def _masked(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(_SCHEME_NAME, scheme):
        return "(hidden)"
    if find_fault(url) is not None:
        return f"{scheme}://(hidden)"
    location, tail = _cut(rest)
    login, at, host = location.rpartition("@")
    user, colon, _ = login.partition(":")
    path, question, _ = tail.partition("?")
    login_text = f"{masked_user(unquote(user)) if user else ''}{':**' if colon else ''}{at}"
    return one_line(f"{scheme}://{login_text}{host}{path}{'?**' if question else ''}")


def _cut(rest: str) -> tuple[str, str]:
    """Cut what follows `://` into login, host and port, and what comes after them."""
    end = re.search(r"[/?#]|$", rest)
    assert end is not None
    return rest[: end.start()], rest[end.start() :]


def broker(value: object) -> str:
    """Check a broker's URL, or several: with `;` between them, or a list, as Celery takes them.

    Celery's `pyamqp://` is `amqp://` here.

    :raises BadValue: if one is not a URL, or of a broker that is not supported.
    """
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        value = ";".join(value)
    urls = split(value) if isinstance(value, str) else [""]
    checked = [_checked(url) for url in urls]
    if len(checked) > 1 and any(url.startswith("memory:") for url in checked):
        raise BadValue(_BROKER)
    return ";".join(checked)


def _checked(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    known = _BROKERS.get(scheme.lower())
    if not separator or known is None:
        raise BadValue(_BROKER)
    if (fault := find_fault(url)) is not None:
        raise BadValue(f"{_BROKER}; {fault}")
    return f"{known}://{rest}"


def _has_sound_port(url: str) -> bool:
    try:
        urlsplit(url).port  # noqa: B018  the property checks when it is read
    except ValueError:
        return False
    return True


def backend(value: object) -> str:
    """Check the URL of a result backend.

    :raises BadValue: if there is no such backend, or its URL cannot be read.
    """
    text = value.strip() if isinstance(value, str) else ""
    if text.lower() in ("rpc", "rpc://"):
        return "rpc://"
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in redis_url.SCHEMES:
        raise BadValue(_BACKEND)
    if (fault := find_fault(text)) is not None:
        raise BadValue(f"{_BACKEND}; {fault}")
    url = f"{scheme.lower()}://{rest}"
    redis_url.parse(url)
    return url
