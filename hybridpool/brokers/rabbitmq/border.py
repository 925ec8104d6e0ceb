"""The border of this room: exceptions of the client library come in, `BrokerError` and its kinds go out.

Texts are one line and never hold a password: they are made of the broker's own words, not of URLs.
"""

import asyncio
import ssl
from collections.abc import Generator
from contextlib import contextmanager

from aiormq import exceptions as foreign

from hybridpool.errors import BrokerError, BrokerUnavailable

#: AMQP reply codes by which a broker turns a client away: ACCESS_REFUSED, NOT_ALLOWED
REFUSALS = (403, 530)
#: everything by which the client library says that there is no connection, or no longer
#: (RuntimeError is what it raises for a channel on a closed connection)
GONE = (foreign.AMQPConnectionError, foreign.ChannelInvalidStateError, OSError, EOFError, RuntimeError)
LONGEST = 200
CUT = "the connection was cut"


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
    :raises BrokerError: if the broker refused.
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
    except TimeoutError:
        raise
    except GONE as error:
        raise BrokerUnavailable(f"{doing}: {reason(error)}") from error
    except (foreign.AMQPError, ValueError, TypeError) as error:
        # the latter two: a routing key that is too long, a header value that AMQP cannot carry
        raise BrokerError(f"{doing}: {reason(error)}") from error
