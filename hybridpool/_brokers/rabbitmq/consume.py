"""Consumers on one channel: raw frames come in, `Delivery` values go out, with as little work as possible between."""

import logging
import math
from collections.abc import Callable

import attrs
from aiormq.channel import Channel
from pamqp import commands

from hybridpool._brokers.base import Deliver
from hybridpool._brokers.rabbitmq.acks import AckBatcher
from hybridpool._brokers.rabbitmq.amqp import methods
from hybridpool._brokers.rabbitmq.amqp.codec import DELIVER, Properties, read_deliver, read_properties
from hybridpool._brokers.rabbitmq.amqp.frame_filter import Body, ChannelReceiver, Dropped, FrameFilter, Kept
from hybridpool._brokers.rabbitmq.amqp.table import BadTable
from hybridpool._message import Delivery

log = logging.getLogger(__name__)
#: of a message whose properties cannot be read; it is no task, and will be told so
_UNREADABLE = Properties(None, None, {}, None, None, None, None)


@attrs.frozen(kw_only=True)
class Subscription:
    """What is wished for: a queue, how much of it at once, and who takes it."""

    queue: str
    prefetch: int
    deliver: Deliver
    #: the queue's name at the broker, if that is another one in each session
    alias: str = ""
    #: bytes; a larger body is dropped as it comes in; None: none is
    keeps: int | None = None
    #: bytes; a larger message comes alone; None: with others
    alone_above: int | None = None


class Consumer:
    """The consuming side of one channel. `start` and `stop` are called one at a time."""

    def __init__(
        self, channel: Channel, tap: FrameFilter, number: int, answers: AckBatcher, cancelled: Callable[[str], None]
    ) -> None:
        """Take over a fresh channel.

        :param tap: its connection's.
        :param number: the channel's generation, for `Delivery.channel`.
        :param cancelled: called with the queue's name when the broker, not we, ended a consumer.
        """
        self._channel = channel
        self._number = number
        self._answers = answers
        self._cancelled = cancelled
        self._counter = 0
        self._tags: dict[str, str] = {}
        self._by_tag: dict[str, Subscription] = {}
        #: bytes of the body that is coming in and not kept
        self._dropping = 0
        channel.on_consumer_cancel_callbacks.add(self._on_cancel)
        self._ear = ChannelReceiver(self._receive, large=self._on_large)
        tap.watch(channel.number, self._ear)

    def __contains__(self, queue: str) -> bool:
        return queue in self._tags

    async def start(self, wish: Subscription) -> None:
        """Consume, or go on consuming with another prefetch or receiver.

        Prefetch belongs to a consumer for its life, so a new one is started before the old one is cancelled: no gap,
        and what the old one brought stays valid.
        """
        old = self._tags.get(wish.queue)
        self._counter += 1
        tag = f"hybridpool-{self._number}-{self._counter}"
        await self._channel.basic_qos(prefetch_count=wish.prefetch, global_=False)
        self._by_tag[tag] = wish
        self._ear.large_above = min((_limit(one) for one in self._by_tag.values()), default=math.inf)
        try:
            await methods.consume(self._channel, wish.alias or wish.queue, tag)
        except BaseException:
            del self._by_tag[tag]
            raise
        self._tags[wish.queue] = tag
        if old is not None:
            await self._end(old)

    async def stop(self, queue: str) -> None:
        """Stop consuming; once this returns nothing more is delivered."""
        tag = self._tags.pop(queue, None)
        if tag is not None:
            await self._end(tag)

    async def _end(self, tag: str) -> None:
        await self._channel.basic_cancel(tag)
        self._by_tag.pop(tag, None)

    def _on_cancel(self, frame: commands.Basic.Cancel) -> None:
        wish = self._by_tag.pop(frame.consumer_tag or "", None)
        if wish is not None and self._tags.get(wish.queue) == frame.consumer_tag:
            del self._tags[wish.queue]
            self._cancelled(wish.queue)

    def _on_large(self, said: bytes, size: int) -> list[bytes] | Body:
        """Decide on a large body before it comes."""
        wish = self._by_tag.get(read_deliver(said).consumer)
        if wish is None or (wish.keeps is not None and size > wish.keeps):
            self._dropping = size
            return Dropped()
        return Kept() if size > _limit(wish) else []

    def _receive(self, method: bytes, said: bytes, properties: bytes, body: bytes) -> None:
        """Take a message as it came."""
        if method != DELIVER:
            return
        consumer, tag, redelivered, exchange, routing_key = read_deliver(said)
        wish = self._by_tag.get(consumer)
        if wish is None:
            self._dropping = 0
            # not in the ledger, so nobody can settle it: it goes back when the channel closes
            log.warning("a message for consumer %s, which is gone, came in", consumer)
            return
        self._answers.delivered(tag)
        missing, self._dropping = self._dropping, 0
        try:
            found = read_properties(properties)
        except BadTable as error:
            log.warning("the headers of a message of queue %s are no AMQP: %s", wish.queue, error)
            found = _UNREADABLE
        delivery = Delivery(
            queue=wish.queue,
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
            routing_key=routing_key,
            body=body,
            properties=properties,
            missing=missing,
        )
        if wish.alone_above is not None and len(body) > wish.alone_above:
            self._answers.alone(tag)
        try:
            wish.deliver(delivery)
        except Exception:
            self._answers.together()
            log.exception("a message of queue %s could not be handed on; it stays unsettled", wish.queue)


def _limit(wish: Subscription) -> float:
    """Return the size in bytes up to which a body comes as any other."""
    return min(
        math.inf if wish.keeps is None else wish.keeps, math.inf if wish.alone_above is None else wish.alone_above
    )
