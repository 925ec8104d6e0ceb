"""Which of the messages under way a refused channel is about.

AMQP answers a message that it refuses by closing the channel, and does not say which message it was. All that were
under way lose their confirmation. The broker's text often tells: a size, or the name of an exchange. Where it does not,
each of them is sent again alone, on a channel of its own (`Publisher.publish_alone`).
"""

import re
from typing import Final

from aiormq import exceptions as foreign

from hybridpool._brokers.rabbitmq.errors import told
from hybridpool._message import Outgoing
from hybridpool.errors import BrokerError

#: in the words of RabbitMQ 3.8 to 4.3
_SIZES: Final = re.compile(r"message size (\d+) is larger than (?:configured )?max size (\d+)")
_EXCHANGE: Final = re.compile(r"exchange '([^']*)'")
_TOPIC: Final = re.compile(r"topic '([^']*)' in exchange")
#: how a refusal calls the exchange without a name
_DEFAULT: Final = "amq.default"


class Closing:
    """Why the broker closed a publishing channel."""

    def __init__(self, error: BaseException | None) -> None:
        """:param error: the client library's; None: closed in good order."""
        self._error = error
        text = str(error.args[-1]) if error is not None and error.args else ""
        #: it is about one message, and not the connection's end
        self.is_refusal = isinstance(error, foreign.ChannelClosed) and bool(error.args) and error.args[-1] is not None
        sizes = _SIZES.search(text) if self.is_refusal else None
        #: bytes: the largest body that this broker takes, if it told
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
        """Return the error for the message that it is about."""
        return told(doing, self._error)
