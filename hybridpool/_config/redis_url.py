"""URLs of Redis as Celery users write them, as a result backend. Pure.

`redis://user:password@host:port/db`, `rediss://…` for TLS, `redis+socket:///path?virtual_host=db` for a Unix socket
(`unix://` too). Names in the query are Celery's: `ssl_cert_reqs`, `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`.
"""

from collections.abc import Mapping
from typing import Final, Literal, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

from hybridpool._child.printable import one_line
from hybridpool._config.units import BadValue

T = TypeVar("T")

TCP: Final = ("redis", "rediss")
SOCKETS: Final = ("redis+socket", "unix")
SCHEMES: Final = (*TCP, *SOCKETS)
DEFAULT_PORT: Final = 6379

CertReqs = Literal["required", "optional", "none"]
_CERT_REQS: Final[Mapping[str, CertReqs]] = {
    "required": "required",
    "cert_required": "required",
    "optional": "optional",
    "cert_optional": "optional",
    "none": "none",
    "cert_none": "none",
}
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS: Final = ("ssl_cert_reqs", "ssl_check_hostname", *_TLS_FILES)
_DATABASES: Final = ("db", "virtual_host")
_SWITCHES: Final[Mapping[str, bool]] = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@attrs.frozen(kw_only=True)
class RedisUrl:
    """The parts of a Redis URL, decoded."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    #: of a Unix socket, in place of host and port; empty: there is none
    path: str = ""
    db: int = 0
    user: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    is_tls: bool = False
    cert_reqs: CertReqs = "required"
    check_hostname: bool = True
    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None

    @property
    def masked(self) -> str:
        """For people and logs, without the password."""
        login = f"{self.user or ''}{':**' if self.password else ''}@" if self.user or self.password else ""
        if self.path:
            return one_line(f"redis+socket://{login}{self.path}?virtual_host={self.db}")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return one_line(f"{'rediss' if self.is_tls else 'redis'}://{login}{host}:{self.port}/{self.db}")


def parse(url: str) -> RedisUrl:
    """Read a Redis URL whose form is sound (`urls.find_fault`).

    :raises BadValue: if a part of it cannot be used; the text quotes no part in which a password may stand.
    """
    scheme = url.partition("://")[0].lower()
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = (*_DATABASES, *(_TLS if scheme == "rediss" else ()))
    if scheme == "redis" and any(name in _TLS for name in given):
        raise BadValue("a rediss:// URL, as its query asks for TLS")
    if not given.keys() <= set(known):
        raise BadValue(f"a Redis URL whose query has no other names than {', '.join(known)}")
    is_socket = scheme in SOCKETS
    if is_socket and not parts.path.strip("/"):
        raise BadValue("a URL with the path of the socket: redis+socket:///run/redis.sock")
    text = next((given[name] for name in _DATABASES if name in given), "" if is_socket else parts.path.strip("/"))
    if text and not (text.isascii() and text.isdecimal()):
        raise BadValue("a Redis URL whose database is a number: redis://host:6379/0")
    return RedisUrl(
        host=parts.hostname or "localhost",
        port=parts.port or DEFAULT_PORT,
        path=unquote(parts.path) if is_socket else "",
        db=int(text or 0),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        is_tls=scheme == "rediss",
        cert_reqs=_word(given, "ssl_cert_reqs", _CERT_REQS, "required", "required, optional or none"),
        check_hostname=_word(given, "ssl_check_hostname", _SWITCHES, True, "true or false"),
        ca_certs=given.get("ssl_ca_certs") or None,
        certfile=given.get("ssl_certfile") or None,
        keyfile=given.get("ssl_keyfile") or None,
    )


def _word(given: Mapping[str, str], name: str, words: Mapping[str, T], default: T, expected: str) -> T:
    word = given.get(name)
    if word is None:
        return default
    if word.lower() not in words:
        raise BadValue(f"a rediss:// URL with {name}={expected}")
    return words[word.lower()]
