"""Translates the client library's exceptions into `BrokerError` and its kinds; no other error leaves this package.

Texts are one line and never hold a password: they are made of the broker's own words, not of URLs.
"""

import asyncio
import ssl
from collections.abc import Generator
from contextlib import contextmanager

from aiormq import exceptions as foreign

from hybridpool._brokers.rabbitmq.aiormq_compat import (
    CONNECTION_LOST,
    has_object_names,
    is_stream_end,
    refused_delivery_text,
)
from hybridpool.errors import (
    AccessRefused,
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    CannotEncode,
    MessageTooLarge,
    QueueNotFound,
)

#: AMQP reply codes by which a broker turns a client away: ACCESS_REFUSED, NOT_ALLOWED
REFUSALS = (403, 530)
#: characters of a reason
MAX_REASON_CHARS = 200
CUT = "the connection was cut"
#: in the broker's text for a body over max_message_size; its reply code, 406, stands for many other things too
_TOO_LARGE = " larger than "


class Unusable(BrokerError):
    """The URL's certificates cannot be used: a file is missing, or does not hold one."""


def reason(error: BaseException | None) -> str:
    """Say in one short line what went wrong."""
    if isinstance(error, foreign.DeliveryError):
        text: object = refused_delivery_text(error) or "the broker did not take the message"
    elif isinstance(error, TimeoutError):
        text = "no answer in time"
    elif isinstance(error, BrokerError):
        text = error
    elif (tls := _tls_fault(error)) is not None:
        text = tls
    elif has_object_names(error):
        text = "closed"
    elif error is None or isinstance(error, asyncio.CancelledError) or not error.args:
        text = "closed" if not isinstance(error, Exception) else type(error).__name__
    else:
        text = error.args[-1]
    line = " ".join(str(text).split())
    if is_stream_end(error):
        line = CUT
    return line if len(line) <= MAX_REASON_CHARS else line[: MAX_REASON_CHARS - 1] + "…"


def is_refusal(error: BaseException) -> bool:
    """Tell whether trying again does not help: wrong password, wrong virtual host, a certificate not trusted."""
    if isinstance(error, Unusable) or _tls_fault(error) is not None:
        return True
    if isinstance(error, foreign.ConnectionClosed) and error.args:
        return error.args[0] in REFUSALS or isinstance(error, foreign.ConnectionNotAllowed)
    return isinstance(
        error, foreign.AuthenticationError | foreign.ProbableAuthenticationError | foreign.ChannelAccessRefused
    )


def _tls_fault(error: BaseException | None) -> str | None:
    """Say what is wrong with the certificates or the protocol; None: it was not TLS, or the handshake was cut."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not trusted: {error.verify_message or error.reason}"
    if error is None or type(error) is not ssl.SSLError or not error.reason:
        return None  # a subclass: the other side went away
    return f"TLS failed: {error.reason.replace('_', ' ').lower()}"


@contextmanager
def translated(doing: str) -> Generator[None]:
    """Let only our own errors out of the block.

    :param doing: what was being done, for the message.
    :raises BrokerUnavailable: if the connection is gone.
    :raises BrokerError: if the broker refused; `BrokerRefused` if it would do so again.
    """
    try:
        yield
    except BrokerError:
        raise
    except asyncio.CancelledError as error:
        # The client library rejects some waiting futures with CancelledError when a connection breaks. This task was
        # not cancelled then, and its caller must not take it for cancelled.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable(f"{doing}: {reason(error)}") from error
    except (*CONNECTION_LOST, foreign.AMQPError, ValueError, TypeError) as error:
        raise told(doing, error) from error


def told(doing: str, error: BaseException | None) -> BrokerError:
    """Return our own error for one of the client library's.

    :param doing: what was being done, for the message.
    :param error: None: closed without an error.
    """
    return _kind(error)(f"{doing}: {reason(error)}")


def _kind(error: BaseException | None) -> type[BrokerError]:
    if error is None or isinstance(error, (*CONNECTION_LOST, BrokerUnavailable)):
        return BrokerUnavailable
    if isinstance(error, ValueError | TypeError):
        # a routing key that is too long, a header value that AMQP cannot carry
        return CannotEncode
    if isinstance(error, foreign.ChannelAccessRefused):
        return AccessRefused
    if isinstance(error, foreign.ChannelNotFoundEntity):
        return QueueNotFound
    if isinstance(error, foreign.ChannelPreconditionFailed):
        return MessageTooLarge if _TOO_LARGE in str(error) else BrokerRefused
    # A locked resource is not `BrokerRefused`: the connection that owns it may end.
    return BrokerError
