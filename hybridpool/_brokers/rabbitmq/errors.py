"""The border of this room: exceptions of the client library come in, `BrokerError` and its kinds go out.

Texts are one line and never hold a password: they are made of the broker's own words, not of URLs.
"""

import asyncio
import ssl
from collections.abc import Generator
from contextlib import contextmanager

from aiormq import exceptions as foreign

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
#: everything by which the client library says that there is no connection, or no longer
#: (a TimeoutError, which is an OSError, is the kernel's ETIMEDOUT: the network swallows what we send; RuntimeError is
#: what it raises for a channel on a closed connection)
GONE = (foreign.AMQPConnectionError, foreign.ChannelInvalidStateError, OSError, EOFError, RuntimeError)
LONGEST = 200
CUT = "the connection was cut"
#: in a refusal of a body over max_message_size
_TOO_LARGE = " larger than "


class Unusable(BrokerError):
    """What we were given to connect with cannot be used: a file of the URL's that is not there, or no certificate."""


def reason(error: BaseException | None) -> str:
    """Say in one short line what went wrong."""
    if isinstance(error, foreign.DeliveryError):
        text: object = getattr(error.frame, "reply_text", None) or "the broker did not take the message"
    elif isinstance(error, TimeoutError):
        text = "no answer in time"
    elif isinstance(error, BrokerError):
        text = error
    elif (tls := _tls_fault(error)) is not None:
        text = tls
    elif isinstance(error, RuntimeError | foreign.ChannelInvalidStateError):
        text = "closed"  # what the library says holds a URL and the address of an object
    elif error is None or isinstance(error, asyncio.CancelledError) or not error.args:
        text = "closed" if not isinstance(error, Exception) else type(error).__name__
    else:
        text = error.args[-1]
    line = " ".join(str(text).split())
    # the former: the library's word for a stream that ends while it logs in
    ends = ("Server connection unexpectedly closed", "Server connection reset")
    if isinstance(error, StopAsyncIteration) or line.startswith(ends):
        line = CUT
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def is_refusal(error: BaseException) -> bool:
    """Tell whether trying again is in vain: wrong password, wrong virtual host, a certificate not trusted."""
    if isinstance(error, Unusable) or _tls_fault(error) is not None:
        return True
    if isinstance(error, foreign.ConnectionClosed) and error.args:
        return error.args[0] in REFUSALS or isinstance(error, foreign.ConnectionNotAllowed)
    return isinstance(
        error, foreign.AuthenticationError | foreign.ProbableAuthenticationError | foreign.ChannelAccessRefused
    )


def _tls_fault(error: BaseException | None) -> str | None:
    """Say what is wrong with the certificates or the protocol; None if it was not TLS, or the handshake was cut."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not trusted: {error.verify_message or error.reason}"
    if error is None or type(error) is not ssl.SSLError or not error.reason:
        return None  # a kind of it: the other side went away
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
        # the client library rejects some waiting futures with CancelledError when a connection breaks: nobody
        # cancelled this task then, and the caller must not believe it
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable(f"{doing}: {reason(error)}") from error
    except (*GONE, foreign.AMQPError, ValueError, TypeError) as error:
        raise told(doing, error) from error


def told(doing: str, error: BaseException | None) -> BrokerError:
    """Return our own error for one of the client library's.

    :param doing: what was being done, for the message.
    :param error: None: closed in good order.
    """
    return _kind(error)(f"{doing}: {reason(error)}")


def _kind(error: BaseException | None) -> type[BrokerError]:
    if error is None or isinstance(error, (*GONE, BrokerUnavailable)):
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
    # A locked resource is not among them: it belongs to a connection that may end.
    return BrokerError
