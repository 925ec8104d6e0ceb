"""What passes the broker port: received and outgoing messages, and declarations of queues.

The parent reads headers; it never decodes bodies.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final, Literal

import attrs
import msgspec

from hybridpool.errors import ProtocolError

#: the kind of queue that RabbitMQ keeps on several nodes
QUORUM: Final = "quorum"
#: seconds by which a countdown may fall short of a whole second and still count as one
_COUNTDOWN_ROUNDING_S = 0.05

#: how an exchange chooses queues: by the whole routing key, all of its queues, or by a pattern of the routing key
ExchangeType = Literal["direct", "fanout", "topic"]


@attrs.define(kw_only=True, eq=False)
class Delivery:
    """One message as the broker handed it over, not yet settled.

    It is settled once, through the broker that delivered it. ``channel`` numbers the broker's channel that delivered
    it: settling one of an older channel has no effect, because the broker has already requeued the message.
    It must not be changed from outside. It is not frozen because one is made for every message, and a frozen attrs
    class costs four times as much to make.
    """

    #: name of the queue it came from
    queue: str
    #: the broker's number of this delivery, rising on one channel
    tag: int
    channel: int
    redelivered: bool
    _headers: Mapping[str, object] | None = attrs.field(alias="headers")
    content_type: str | None
    content_encoding: str | None
    correlation_id: str | None
    reply_to: str | None
    priority: int | None
    exchange: str
    routing_key: str
    body: bytes
    #: the raw properties in the broker's protocol, for publishing the message again; empty: as the fields above say
    properties: bytes = b""
    #: bytes of its body if that was dropped, because it is larger than its consumer takes; 0: the body is here
    missing: int = 0
    #: reads the headers out of `properties`; None: that cannot be done again
    reread: Callable[[bytes], Mapping[str, object]] | None = None

    @property
    def headers(self) -> Mapping[str, object]:
        """What its sender wrote, by name."""
        headers = self._headers
        if headers is None:
            assert self.reread is not None
            # Not kept: they are asked for when something goes wrong.
            return self.reread(self.properties)
        return headers

    def slim(self, task_id: str) -> None:
        """Take less memory while its task waits: the headers are most of it, and can be read again.

        :param task_id: kept anyway; the same text is not kept twice.
        """
        if self.reread is not None:
            self._headers = None
        if self.correlation_id == task_id:
            self.correlation_id = task_id


@attrs.define(eq=False)
class Head:
    """What the parent reads of a task message."""

    name: str
    id: str
    root_id: str | None
    parent_id: str | None
    group: str | None
    retries: int
    #: seconds: hard limit, soft limit
    time_limit: float | None
    soft_time_limit: float | None
    #: UTC
    eta: dt.datetime | None
    expires: dt.datetime | None
    ignore_result: bool
    #: deliveries before this one whose child died
    lost_before: int
    #: deliveries before this one that were requeued unsettled, if the queue counts them
    returned_before: int = 0


@attrs.frozen(kw_only=True)
class Outgoing:
    """One message to publish.

    The empty exchange with a queue's name as routing key reaches that queue directly (AMQP 0-9-1, default exchange).
    """

    body: bytes
    routing_key: str
    exchange: str = ""
    headers: Mapping[str, object] = attrs.field(factory=dict)
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    correlation_id: str | None = None
    reply_to: str | None = None
    #: survives a restart of the broker (AMQP delivery mode 2)
    persistent: bool = True
    priority: int | None = None
    #: milliseconds until the broker may drop it unread; None: never
    expiration: int | None = None
    #: whole seconds for which the broker holds it before it is in the queue; for the default exchange only
    delay: int = 0
    #: for every queue of the fanout exchange it names, which is made if it is missing
    broadcast: bool = False
    #: an error if no queue takes it, in place of silence
    mandatory: bool = False
    #: False: the sender does not wait for the broker's confirmation, and the message may be lost
    is_confirmed: bool = True
    #: the raw properties of the delivery that is published again. Then the headers that are `kept`, and every property
    #: but delivery mode and time to live, stay as their sender wrote them
    original: bytes = b""
    kept: frozenset[str] = frozenset()
    #: its body, content type and encoding are not those of that delivery
    has_new_body: bool = False
    #: all properties as another library has written them, in the broker's protocol: then no field counts but body,
    #: address and `mandatory`. For AMQP brokers only
    raw: bytes = b""
    #: headers that may be shortened, and in the end left out, if all together are too large for the broker
    expendable: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True)
class Binding:
    """Which messages of an exchange a queue gets. The exchange is made if it is missing."""

    exchange: str
    type: ExchangeType
    #: for "topic" a pattern of words with dots between them, where ``*`` is one word and ``#`` any number; ignored for
    #: "fanout"
    routing_key: str = ""
    #: whether the exchange survives a restart of the broker
    durable: bool = True


@attrs.frozen(kw_only=True)
class QueueSpec:
    """How a queue is declared when it does not exist yet. Always durable unless ``private``."""

    name: str
    #: "classic" or "quorum" (RabbitMQ's x-queue-type)
    kind: str = "classic"
    #: a reply queue of one client: exclusive to its connection, gone with it
    private: bool = False
    #: exchanges whose messages it gets
    bindings: tuple[Binding, ...] = ()
    #: further arguments of the declaration, as the broker names them (``x-dead-letter-exchange``); they override those
    #: that the other fields stand for
    arguments: Mapping[str, object] = attrs.field(factory=dict, hash=False)
    #: milliseconds without a consumer after which the broker may delete it; None: never
    expires: int | None = None
    #: highest priority; messages with a higher one leave the queue first (RabbitMQ's x-max-priority); None: no order
    max_priority: int | None = None
    #: messages that may be ready in it; the broker refuses more (x-max-length, reject-publish); None: any number
    max_length: int | None = None
    #: delayed messages of any sender must reach it, so all delay levels are declared with it
    is_target: bool = False


def whole_seconds(wait: float) -> int:
    """Return how long the broker holds a message that has so many seconds to wait; the worker waits the rest.

    A little less than a whole second counts as one: some milliseconds pass after a countdown is given, and without this
    the broker would hold the message one second less, which would be waited in the worker.
    """
    return max(0, int(wait + _COUNTDOWN_ROUNDING_S))


def pack(message: Outgoing) -> bytes:
    """Encode a message that a child sends to its parent; `unpack` reads it."""
    return msgspec.msgpack.encode(attrs.asdict(message))


def unpack(data: bytes) -> Outgoing:
    """Decode what `pack` encoded.

    :raises ProtocolError: if it cannot be decoded.
    """
    try:
        return msgspec.msgpack.decode(data, type=Outgoing)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a message to publish: {error}") from error
