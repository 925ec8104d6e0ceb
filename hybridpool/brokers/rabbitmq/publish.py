"""Publishing with confirmation, on a channel of its own that reopens by itself."""

import asyncio
from typing import cast

from aiormq import exceptions as foreign
from aiormq.channel import Channel
from pamqp import commands
from pamqp.common import FieldTable

from hybridpool.brokers.rabbitmq.border import reason
from hybridpool.brokers.rabbitmq.connection import Line
from hybridpool.brokers.rabbitmq.ladder import Ladder
from hybridpool.brokers.rabbitmq.topology import Topology
from hybridpool.errors import BrokerError, BrokerUnavailable
from hybridpool.message import Outgoing

TRANSIENT, PERSISTENT = 1, 2


class Publisher:
    """The publishing side of one connection.

    A broker closes the channel on a message for an exchange that does not exist; consumers must not suffer for that,
    so this channel is not theirs, and the next publish opens another.
    """

    def __init__(self, line: Line, topology: Topology) -> None:
        self._line = line
        self._topology = topology
        self.ladder = Ladder(topology)
        self._fanouts: set[str] = set()
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> Channel:
        """Return an open channel."""
        channel = self._channel
        if channel is None or channel.is_closed:
            async with self._opening:
                channel = self._channel
                if channel is None or channel.is_closed:
                    channel = self._channel = await self._line.channel(confirms=True)
        return channel

    async def publish(self, message: Outgoing) -> None:
        """Send the message and wait for its confirmation; many may wait at the same time.

        :raises BrokerUnavailable: if another message made the broker close the channel meanwhile.
        :raises BrokerError: if the broker refuses it, or no queue takes it and it is mandatory.
        """
        exchange, routing_key = message.exchange, message.routing_key
        if message.delay > 0:
            exchange, routing_key = await self.ladder.prepare(routing_key, message.delay)
        elif message.broadcast and exchange not in self._fanouts:
            await self._topology.fanout(exchange)
            self._fanouts.add(exchange)
        channel = await self.open()
        try:
            # wait=False: do not hold the channel's lock until the socket has drained, only until the frame is queued
            await channel.basic_publish(
                message.body,
                exchange=exchange,
                routing_key=routing_key,
                properties=properties(message),
                mandatory=message.mandatory,
                wait=False,
            )
        except foreign.PublishError as error:
            raise BrokerError(f"no queue takes a message for {place(message)}: {reason(error)}") from error
        except (foreign.ChannelNotFoundEntity, foreign.ChannelAccessRefused) as error:
            # every message in flight hears this; one for the default exchange cannot have caused it
            kind = BrokerError if message.exchange else BrokerUnavailable
            raise kind(f"publish to {place(message)}: {reason(error)}") from error


def place(message: Outgoing) -> str:
    """Say where the message goes."""
    return f"{message.exchange}/{message.routing_key}" if message.exchange else message.routing_key


def properties(message: Outgoing) -> commands.Basic.Properties:
    """Return the AMQP properties of a message."""
    return commands.Basic.Properties(
        headers=cast(FieldTable, dict(message.headers)),
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        delivery_mode=PERSISTENT if message.persistent else TRANSIENT,
        priority=message.priority,
        expiration=None if message.expiration is None else str(message.expiration),
    )
