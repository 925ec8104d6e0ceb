"""Broker URLs as Celery users write them: parsed once, and never shown with a password.

``amqp://user:password@host:port/vhost``. The virtual host is what follows the first slash: nothing or one more slash
is ``/`` (``amqp://host``, ``amqp://host/``, ``amqp://host//``), a slash inside a name is written ``%2F`` or ``/``.
Several are written with ``;`` between them, and tried in turn.
"""

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs

from hybridpool._child.printable import one_line
from hybridpool._config.urls import find_fault, masked_user, split
from hybridpool.errors import ConfigError

#: port by scheme; Celery's spelling ``pyamqp`` is read as ``amqp``
PORTS = {"amqp": 5672, "amqps": 5671}
MEMORY = "memory"
#: names in the query that mean TLS
_TLS = ("cafile", "capath", "cadata", "certfile", "keyfile", "no_verify_ssl")
#: names in the query that the client library reads as numbers
_NUMBERS = ("heartbeat", "timeout")


@attrs.frozen(kw_only=True)
class BrokerUrl:
    """The parts of a broker URL, decoded."""

    scheme: str
    host: str = "localhost"
    port: int = 0
    user: str = attrs.field(default="guest", repr=lambda user: repr(masked_user(user)))
    password: str = attrs.field(default="guest", repr=False)
    vhost: str = "/"
    query: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)

    @property
    def masked(self) -> str:
        """For people and logs: the password is replaced, the query left out, because it may name secrets too."""
        if self.scheme == MEMORY:
            return "memory://"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return one_line(f"{self.scheme}://{masked_user(self.user)}:**@{host}:{self.port}/{self.vhost}")


def parse_all(url: str, setting: str = "broker_url") -> tuple[BrokerUrl, ...]:
    """Read one or more URLs of the same broker or cluster.

    :raises ConfigError: as `parse`, or if ``memory://`` is one of several.
    """
    urls = tuple(parse(each, setting) for each in split(url))
    if len(urls) > 1 and any(each.scheme == MEMORY for each in urls):
        raise ConfigError(f"{setting}: memory:// cannot be one of several URLs")
    return urls


def parse(url: str, setting: str = "broker_url") -> BrokerUrl:
    """Read a broker URL; of several, the first.

    :param setting: the setting's name, for the message.
    :raises ConfigError: if the scheme is not known or the URL has no usable host or port; the message is one line and
        quotes no part in which a password may stand.
    """
    url = split(url)[0]
    scheme = url.partition("://")[0].lower().removeprefix("py")
    if "://" not in url or scheme not in (*PORTS, MEMORY):
        named = f"scheme {scheme!r} is not known" if re.fullmatch("[a-z+]{1,20}", scheme) else "this is not a URL"
        raise ConfigError(f"{setting}: {named}; it must begin with amqp://, amqps:// or memory://")
    if (wrong := find_fault(url)) is not None:
        raise ConfigError(f"{setting}: {wrong}")
    if scheme == MEMORY:
        return BrokerUrl(scheme=MEMORY, host="")
    parts = urlsplit(url)
    found = _amqp(parts, scheme, parts.port)
    for name in _NUMBERS:
        if not all(value.isdecimal() for given, value in found.query if given == name):
            raise ConfigError(f"{setting}: {name} in the query must be a whole number of seconds")
    tls = [name for name, _ in found.query if name in _TLS]
    if tls and scheme == "amqp":
        raise ConfigError(f"{setting}: {tls[0]} is for TLS; write amqps:// in place of amqp://")
    return found


def _amqp(parts: SplitResult, scheme: str, port: int | None) -> BrokerUrl:
    return BrokerUrl(
        scheme=scheme,
        host=parts.hostname or "localhost",
        port=port or PORTS[scheme],
        user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        vhost=unquote(parts.path[1:]) or "/",
        query=tuple(parse_qsl(parts.query)),
    )
