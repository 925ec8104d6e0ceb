"""The two kinds of message the house knows: what came, and what we send.

Heads are read here; bodies are bytes that nobody in the parent opens.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Final

import attrs
import msgspec

from hybridpool.errors import ProtocolError

#: the kind of queue that RabbitMQ keeps on several nodes
QUORUM: Final = "quorum"
#: seconds
_HAIR = 0.05


@attrs.define(kw_only=True, eq=False)
class Delivery:
    """One message as the broker handed it over, not yet settled.

    It is settled once, through the broker that delivered it. ``channel`` numbers the broker's channel that brought
    it: an answer that belongs to an older channel is void, because the broker has already taken the message back.
    Not frozen, because one is made for every message and a frozen attrs class costs four times as much to make;
    nobody changes one.
    """

    #: name of the queue it came from
    queue: str
    #: the broker's number of this delivery, rising on one channel
    tag: int
    channel: int
    redelivered: bool
    headers: Mapping[str, object]
    content_type: str | None
    content_encoding: str | None
    correlation_id: str | None
    reply_to: str | None
    priority: int | None
    exchange: str
    routing_key: str
    body: bytes
    #: as the broker's protocol has them, for who writes the message again; empty: as they stand above
    properties: bytes = b""
    #: bytes of its body that were not kept, because it is larger than its consumer takes
    missing: int = 0


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
    #: deliveries before this one that came back without an answer, if the queue counts them
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
    #: seconds, whole ones, that the broker holds it back before the queue has it; for the default exchange only
    delay: int = 0
    #: for every queue of the fanout exchange it names, which is made if it is missing
    broadcast: bool = False
    #: an error if no queue takes it, in place of silence
    mandatory: bool = False
    #: False: whoever sends it does not wait to hear that the broker has it, and may lose it
    is_confirmed: bool = True
    #: the properties of the delivery that it is written after, as its broker's protocol has them. Then the headers that
    #: are `kept`, and every property but delivery mode and time to live, go on as their sender wrote them
    original: bytes = b""
    kept: frozenset[str] = frozenset()
    #: its body, content type and encoding are not those of that delivery
    has_new_body: bool = False
    #: headers that may be shortened, and in the end left out, if all together are too large for the broker
    expendable: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True)
class QueueSpec:
    """How a queue is declared when it does not exist yet. Always durable unless ``private``."""

    name: str
    #: "classic" or "quorum" (RabbitMQ's x-queue-type)
    kind: str = "classic"
    #: a reply queue of one client: exclusive to its connection, gone with it
    private: bool = False
    #: a fanout exchange whose messages it gets, made if it is missing; None: none
    fanout: str | None = None
    #: milliseconds without a consumer after which the broker may delete it; None: never
    expires: int | None = None
    #: messages with a higher priority leave it first, up to this one (RabbitMQ's x-max-priority); None: they do not
    max_priority: int | None = None
    #: messages that may be ready in it; the broker refuses more (x-max-length, reject-publish); None: any number
    max_length: int | None = None
    #: what others ask the broker to hold back for it must reach it, however long
    is_target: bool = False


def whole_seconds(wait: float) -> int:
    """Return how long the broker is to hold a message that has so many seconds to wait; the rest is the worker's.

    A hair under a whole second counts as whole: else each countdown, a moment after it was asked for, would be a second
    shorter, and that second be waited in the worker.
    """
    return max(0, int(wait + _HAIR))


def pack(message: Outgoing) -> bytes:
    """Write a message for the way from a child to its parent; `unpack` reads it."""
    return msgspec.msgpack.encode(attrs.asdict(message))


def unpack(data: bytes) -> Outgoing:
    """Read what `pack` wrote.

    :raises ProtocolError: if it is something else.
    """
    try:
        return msgspec.msgpack.decode(data, type=Outgoing)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"no message to publish: {error}") from error
