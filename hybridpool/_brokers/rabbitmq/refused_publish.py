"""Which of several outstanding messages the broker refused when it closed a publishing channel.

A broker refuses a message by closing the channel, and does not say which message it was; all that were outstanding
lose their confirmation. AMQP has one reply code for many reasons, so the broker's text is read: it often names a size
or an exchange. Where it does not, each message is sent again alone, on a channel of its own
(`Publisher.publish_alone`). A text that is not understood costs time, not messages.
"""

import re
from typing import Final

from aiormq import exceptions as foreign

from hybridpool._brokers.rabbitmq.errors import told
from hybridpool._message import Outgoing
from hybridpool.errors import BrokerError

#: as RabbitMQ 3.8 to 4.3 write it
_SIZES: Final = re.compile(r"message size (\d+) is larger than (?:configured )?max size (\d+)")
_EXCHANGE: Final = re.compile(r"exchange '([^']*)'")
_TOPIC: Final = re.compile(r"topic '([^']*)' in exchange")
#: the name of the default exchange in a refusal
_DEFAULT: Final = "amq.default"


class ChannelClose:
    """Why the broker closed a publishing channel."""

    def __init__(self, error: BaseException | None) -> None:
        """:param error: the client library's; None: closed without an error."""
        self._error = error
        text = str(error.args[-1]) if error is not None and error.args else ""
        #: whether it is about one message, and not the end of the connection
        self.is_refusal = isinstance(error, foreign.ChannelClosed) and bool(error.args) and error.args[-1] is not None
        sizes = _SIZES.search(text) if self.is_refusal else None
        #: bytes: the largest body that this broker takes; None: the text does not say
        self.max_body = int(sizes[2]) if sizes else None
        found = _EXCHANGE.search(text) if self.is_refusal else None
        self._exchange = None if found is None else "" if found[1] == _DEFAULT else found[1]
        topic = _TOPIC.search(text) if self.is_refusal else None
        self._topic = None if topic is None else topic[1]

    def is_about(self, message: Outgoing, exchange: str, routing_key: str) -> bool:
        """Tell whether the broker would refuse this message again, for the reason that it gave.

        :param exchange: the one that it was published to; another one than the message names if it is delayed.
        :param routing_key: likewise.
        """
        if self.max_body is not None:
            return len(message.body) > self.max_body
        if self._topic is not None and self._topic != routing_key:
            return False
        return self._exchange is not None and self._exchange == exchange

    def refusal(self, doing: str) -> BrokerError:
        """Return the error for the message that was refused."""
        return told(doing, self._error)
