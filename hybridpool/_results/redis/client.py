"""Connections to Redis, and its errors as ours."""

import asyncio
import inspect
import ssl
from collections.abc import Mapping
from typing import Any, Final

import redis.exceptions as refused
from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from hybridpool._child.printable import one_line
from hybridpool._config.redis_url import RedisUrl
from hybridpool._daemon_threads import run_in_daemon_thread
from hybridpool.errors import AccessRefused, BrokerError, BrokerRefused, BrokerUnavailable, ConfigError, MessageTooLarge

#: seconds that Redis has for an answer; a server that is silent for so long is taken for one that is away
ANSWER_S: Final = 10.0
#: seconds between probes of a connection on which nothing comes
_KEEPALIVE_S: Final = 30
#: beginnings of what Redis says for a while: it is full, loads its data, or is not the one that is written to
_PASSING: Final = (
    "OOM",
    "LOADING",
    "BUSY",
    "READONLY",
    "MASTERDOWN",
    "NOREPLICAS",
    "TRYAGAIN",
    "MISCONF",
    "NOGOODSLAVE",
)
#: and of what it says until its operator changes something
_DENYING: Final = ("NOPERM", "NOAUTH", "WRONGPASS")
_NO_RIGHT_IN_SCRIPT: Final = "user executing the script"
#: Nothing of ours is announced: the library would read its own version from a file, for each connection. Older versions
#: have other names for that
_SILENT: Final[Mapping[str, Any]] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection).parameters
    else {"lib_name": None, "lib_version": None}
)
#: all that the client library raises for a request: what goes wrong below it comes as an OSError at times
ERRORS: Final = (refused.RedisError, OSError, TimeoutError)


def make_client(url: RedisUrl, connect_timeout: float, connections: int) -> "Redis":
    """Return a client that is not connected yet, and never tries anything again by itself.

    :param connect_timeout: seconds.
    :param connections: at most; further requests wait for one.
    """
    kinds: dict[str, Any] = {"host": url.host, "port": url.port, "socket_keepalive": True}
    if url.path:
        kinds = {"connection_class": UnixDomainSocketConnection, "path": url.path}
    elif url.is_tls:
        kinds |= {
            "connection_class": SSLConnection,
            "ssl_cert_reqs": url.cert_reqs,
            "ssl_check_hostname": url.check_hostname and url.cert_reqs != "none",
            "ssl_ca_certs": url.ca_certs,
            "ssl_certfile": url.certfile,
            "ssl_keyfile": url.keyfile,
        }
    pool = BlockingConnectionPool(
        max_connections=connections,
        timeout=None,
        db=url.db,
        username=url.user,
        password=url.password,
        socket_connect_timeout=connect_timeout,
        # Whoever asks sets the limit, which depends on the size of what is sent; newer versions of the library have one
        # of five seconds.
        socket_timeout=None,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        **_SILENT,
        **kinds,
    )
    return Redis(connection_pool=pool)


def raise_if_cancelled() -> None:
    """End a loop whose task was cancelled: the library may swallow that, as `asyncio.wait_for` of Python 3.11 does.

    :raises CancelledError: if it was.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def check_files(url: RedisUrl) -> None:
    """Check that the files of a `rediss://` URL can be used.

    :raises ConfigError: if one cannot; the text names it.
    """
    if url.is_tls:
        await run_in_daemon_thread(lambda: _check_files(url))


def _check_files(url: RedisUrl) -> None:
    try:
        made = ssl.create_default_context(cafile=url.ca_certs)
    except (OSError, ValueError) as error:
        raise ConfigError(f"result_backend: {url.ca_certs} cannot be used as CA certificates: {words(error)}") from None
    if url.certfile or url.keyfile:
        named = url.certfile or url.keyfile
        try:
            made.load_cert_chain(url.certfile or "", url.keyfile, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(f"result_backend: {named} cannot be used as client certificate: {words(error)}") from None


def words(error: BaseException) -> str:
    """Return what went wrong, in one line."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, TimeoutError | refused.TimeoutError):
        return "it does not answer"
    if isinstance(error, refused.OutOfMemoryError):
        return one_line(f"OOM {error}" if not str(error).startswith("OOM") else str(error))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(str(error)) or type(error).__name__


def is_passing(error: BaseException) -> bool:
    """Tell whether the same request may be taken later: there is no connection, or Redis says so."""
    if isinstance(error, refused.AuthenticationError | refused.AuthorizationError | refused.NoPermissionError):
        return True
    if isinstance(error, refused.OutOfMemoryError | refused.ReadOnlyError):
        return True
    if isinstance(error, refused.ResponseError):
        return is_passing_text(str(error))
    return True


def is_passing_text(text: str) -> bool:
    """Tell so of what a script says of one result."""
    return text.removeprefix("-").startswith((*_PASSING, *_DENYING)) or _NO_RIGHT_IN_SCRIPT in text


def is_denied(error: BaseException) -> bool:
    """Tell whether Redis does not let this user do that."""
    kinds = (refused.AuthenticationError, refused.AuthenticationWrongNumberOfArgsError, refused.NoPermissionError)
    return isinstance(error, kinds) or str(error).removeprefix("-").startswith(_DENYING)


def translated(error: BaseException, url: RedisUrl) -> BrokerError:
    """Return the error that the port promises."""
    text = f"{url.masked}: {words(error)}"
    if is_denied(error):
        return AccessRefused(text)
    if isinstance(error, refused.ResponseError) and not is_passing(error):
        return MessageTooLarge(text) if "Protocol error" in str(error) else BrokerRefused(text)
    return BrokerUnavailable(text)
