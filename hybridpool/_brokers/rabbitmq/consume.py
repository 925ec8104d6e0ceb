"""Consumers on one channel: raw frames come in, `Delivery` values go out, with as little work as possible between."""

import logging
import math
from collections.abc import Callable

import attrs

from hybridpool._brokers.base import Deliver
from hybridpool._brokers.rabbitmq.acks import AckBatcher
from hybridpool._brokers.rabbitmq.aiormq_compat import AmqpChannel
from hybridpool._brokers.rabbitmq.amqp.codec import DELIVER, Properties, read_deliver, read_headers, read_properties
from hybridpool._brokers.rabbitmq.amqp.frame_filter import BodySink, ChannelReceiver, DroppedBody, FrameFilter, KeptBody
from hybridpool._brokers.rabbitmq.amqp.table import BadTable
from hybridpool._message import Delivery

log = logging.getLogger(__name__)
#: of a message whose properties cannot be read; it is not a task, and is rejected as such
_UNREADABLE = Properties(None, None, {}, None, None, None, None)


@attrs.frozen(kw_only=True)
class Subscription:
    """A consumer that should exist: its queue, how much of it at once, and what receives the messages."""

    queue: str
    prefetch: int
    deliver: Deliver
    #: the queue's name at the broker, if it has a new one in each session
    alias: str = ""
    #: bytes; a larger body is dropped as it comes in; None: none is
    keeps: int | None = None
    #: bytes; a larger message comes alone; None: with others
    alone_above: int | None = None


class Consumer:
    """The consuming side of one channel. `start` and `stop` are called one at a time."""

    def __init__(
        self, channel: AmqpChannel, frames: FrameFilter, number: int, acks: AckBatcher, cancelled: Callable[[str], None]
    ) -> None:
        """Take over a fresh channel.

        :param frames: the filter of its connection.
        :param number: the channel's generation, for `Delivery.channel`.
        :param cancelled: called with the queue's name when the broker, not we, ended a consumer.
        """
        self._channel = channel
        self._number = number
        self._acks = acks
        self._cancelled = cancelled
        self._counter = 0
        self._tags: dict[str, str] = {}
        self._by_tag: dict[str, Subscription] = {}
        #: bytes of the body that is coming in and not kept
        self._dropping = 0
        channel.on_consumer_cancelled(self._on_cancel)
        self._receiver = ChannelReceiver(self._receive, large=self._on_large)
        frames.watch(channel.number, self._receiver)

    def __contains__(self, queue: str) -> bool:
        return queue in self._tags

    async def start(self, subscription: Subscription) -> None:
        """Consume, or continue with another prefetch or receiver.

        Prefetch belongs to a consumer for its life, so a new one is started before the old one is cancelled: no gap,
        and what the old one brought stays valid.
        """
        old = self._tags.get(subscription.queue)
        self._counter += 1
        tag = f"hybridpool-{self._number}-{self._counter}"
        self._by_tag[tag] = subscription
        self._receiver.large_above = min((_limit(one) for one in self._by_tag.values()), default=math.inf)
        try:
            await self._channel.consume(subscription.alias or subscription.queue, tag, subscription.prefetch)
        except BaseException:
            del self._by_tag[tag]
            raise
        self._tags[subscription.queue] = tag
        if old is not None:
            await self._end(old)

    async def stop(self, queue: str) -> None:
        """Stop consuming; once this returns nothing more is delivered."""
        tag = self._tags.pop(queue, None)
        if tag is not None:
            await self._end(tag)

    async def _end(self, tag: str) -> None:
        await self._channel.cancel(tag)
        self._by_tag.pop(tag, None)

    def _on_cancel(self, tag: str) -> None:
        subscription = self._by_tag.pop(tag, None)
        if subscription is not None and self._tags.get(subscription.queue) == tag:
            del self._tags[subscription.queue]
            self._cancelled(subscription.queue)

    def _on_large(self, arguments: bytes, size: int) -> list[bytes] | BodySink:
        """Decide on a large body before it comes."""
        subscription = self._by_tag.get(read_deliver(arguments).consumer)
        if subscription is None or (subscription.keeps is not None and size > subscription.keeps):
            self._dropping = size
            return DroppedBody()
        return KeptBody() if size > _limit(subscription) else []

    def _receive(self, method: bytes, arguments: bytes, properties: bytes, body: bytes) -> None:
        """Take a message as it came."""
        if method != DELIVER:
            return
        consumer, tag, redelivered, exchange, routing_key = read_deliver(arguments)
        subscription = self._by_tag.get(consumer)
        if subscription is None:
            self._dropping = 0
            # It is not in the ledger, so it cannot be settled: it goes back when the channel closes.
            log.warning("a message came in for consumer %s, which has ended", consumer)
            return
        self._acks.delivered(tag)
        missing, self._dropping = self._dropping, 0
        try:
            found = read_properties(properties)
        except BadTable as error:
            log.warning("the headers of a message of queue %s are not valid AMQP: %s", subscription.queue, error)
            found = _UNREADABLE
        delivery = Delivery(
            queue=subscription.queue,
            tag=tag,
            channel=self._number,
            redelivered=redelivered,
            headers=found.headers,
            content_type=found.content_type,
            content_encoding=found.content_encoding,
            correlation_id=found.correlation_id,
            reply_to=found.reply_to,
            priority=found.priority,
            exchange=exchange,
            # Mostly the same text.
            routing_key=subscription.queue if routing_key == subscription.queue else routing_key,
            body=body,
            properties=properties,
            missing=missing,
            reread=read_headers,
        )
        if subscription.alone_above is not None and len(body) > subscription.alone_above:
            self._acks.pause_until_settled(tag)
        try:
            subscription.deliver(delivery)
        except Exception:
            self._acks.resume_reading()
            log.exception("a message of queue %s could not be passed on; it stays unsettled", subscription.queue)


def _limit(subscription: Subscription) -> float:
    """Return the size in bytes up to which a body comes as any other."""
    return min(
        math.inf if subscription.keeps is None else subscription.keeps,
        math.inf if subscription.alone_above is None else subscription.alone_above,
    )
