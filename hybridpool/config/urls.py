"""URLs of brokers and result backends: checked, and shown without their passwords. Pure."""

import re
from urllib.parse import urlsplit

from hybridpool.config.units import BadValue

_BROKERS = {"amqp": "amqp", "amqps": "amqps", "pyamqp": "amqp", "memory": "memory"}
_BROKER = "an AMQP URL such as amqp://user:password@host:5672/vhost (amqps:// for TLS, memory:// within one process)"
#: where several URLs are cut: a semicolon before a broker's scheme, so that one in a password does no harm
_BETWEEN = re.compile(r"\s*;\s*(?=(?:py)?amqps?://|memory://)", re.IGNORECASE)
_BACKEND = "rpc:// or disabled (no other result backend exists yet)"


def masked(url: str) -> str:
    """Show a URL, or several, with `**` for each password, fit for logs and error messages.

    Everything from the first colon after the scheme to the *last* at-sign counts as password, because people forget
    to escape a slash or an at-sign in it. What does not look like a URL is not shown at all: a lone password would
    not look like one either.

    >>> masked("amqp://guest:guest@localhost:5672//")
    'amqp://guest:**@localhost:5672//'
    """
    return ";".join(_masked(each) for each in split(url))


def split(urls: str) -> list[str]:
    """Cut `amqp://a;amqp://b` into its URLs; there is at least one, which may be empty."""
    return _BETWEEN.split(urls.strip().rstrip(";"))


def _masked(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9+.-]*", scheme):
        return "(hidden)"
    login, at, place = rest.rpartition("@")
    if at:
        user, colon, _ = login.partition(":")
        return f"{scheme}://{user}{':**' if colon else ''}@{place}"
    # no at-sign: `user:password` whose host was forgotten is told from `host:port` by the digits
    host = re.match(r"[^/?#:]*(:\d+)?(?=$|[/?#])", place)
    return f"{scheme}://{place}" if host or place.startswith("[") else f"{scheme}://(hidden)"


def broker(value: object) -> str:
    """Check a broker's URL, or several: with `;` between them, or a list, as Celery takes them.

    Celery's `pyamqp://` is `amqp://` here.

    :raises BadValue: if one is not a URL, or of a broker we do not speak to.
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
    if not separator or known is None or not _has_sound_port(url):
        raise BadValue(_BROKER)
    return f"{known}://{rest}"


def _has_sound_port(url: str) -> bool:
    try:
        urlsplit(url).port  # noqa: B018  the property checks when it is read
    except ValueError:
        return False
    return True


def backend(value: object) -> str:
    """Check the name of a result backend.

    :raises BadValue: if there is no such backend.
    """
    text = value.strip().lower() if isinstance(value, str) else ""
    if text not in ("rpc", "rpc://"):
        raise BadValue(_BACKEND)
    return "rpc://"
