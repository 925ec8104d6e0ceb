"""Queues: declared, measured, deleted. Each step has a throwaway channel, because a refusal costs the channel."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from aiormq import exceptions as foreign
from pamqp.common import FieldTable

from hybridpool._brokers.rabbitmq.amqp.methods import Names
from hybridpool._brokers.rabbitmq.connection import AmqpConnection
from hybridpool._brokers.rabbitmq.errors import reason
from hybridpool._message import QueueSpec
from hybridpool.errors import QueueNotFound


class Topology:
    """What one connection asks about queues."""

    def __init__(
        self, line: AmqpConnection, differs: Callable[[str, str], None], other: AmqpConnection | None = None
    ) -> None:
        """Ask over this connection.

        :param differs: called with a queue's name and the reason when it exists with other arguments.
        :param other: asked over while the first one is not read; but a private queue belongs to the first.
        """
        self._line = line
        self._other = other
        self._differs = differs

    async def declare(self, spec: QueueSpec) -> None:
        """Make the queue exist; one that exists with other arguments is used as it is."""
        if spec.fanout is not None:
            await self.fanout(spec.fanout)
        try:
            async with self.scratch(is_private=spec.private) as channel:
                await channel.queue_declare(
                    spec.name,
                    durable=not spec.private,
                    exclusive=spec.private,
                    auto_delete=spec.private,
                    arguments=arguments(spec),
                )
                if spec.fanout is not None:
                    await channel.queue_bind(spec.name, spec.fanout)
        except foreign.ChannelAccessRefused:
            # Whoever may not make queues uses those that are there.
            if not await self.exists(spec.name):
                raise
        except foreign.ChannelPreconditionFailed as error:
            await self.depth(spec.name)
            self._differs(spec.name, reason(error).removeprefix("PRECONDITION_FAILED - "))

    async def fanout(self, exchange: str) -> None:
        """Make a fanout exchange exist; one that exists and is more durable is used as it is."""
        with suppress(foreign.ChannelPreconditionFailed):
            async with self.scratch() as channel:
                await channel.exchange_declare(exchange, exchange_type="fanout", durable=False)

    async def delete(self, queue: str) -> None:
        """Delete the queue; to RabbitMQ one that does not exist is fine."""
        async with self.scratch() as channel:
            await channel.queue_delete(queue)

    async def depth(self, queue: str) -> int:
        """Tell how many messages are ready.

        :raises QueueNotFound: if there is no such queue.
        """
        try:
            async with self.scratch() as channel:
                told = await channel.queue_declare(queue, passive=True)
        except foreign.ChannelNotFoundEntity as error:
            raise QueueNotFound(f"queue {queue!r} does not exist") from error
        return told.message_count or 0

    async def exists(self, queue: str) -> bool:
        """Tell whether there is such a queue, as far as this user may know."""
        try:
            await self.depth(queue)
        except (QueueNotFound, foreign.ChannelAccessRefused):
            return False
        return True

    @asynccontextmanager
    async def scratch(self, *, is_private: bool = False) -> AsyncGenerator[Names]:
        """Give a channel that may be lost."""
        line = self._line
        if self._other is not None and line.tap.is_held and not is_private:
            line = self._other
        channel = Names(await line.channel(confirms=False))
        try:
            yield channel
        finally:
            await channel.close()


def arguments(spec: QueueSpec) -> FieldTable:
    """Return the declaration's arguments. "classic" is the broker's default and stays unsaid, as with Celery."""
    told: FieldTable = {}
    if spec.kind != "classic":
        told["x-queue-type"] = spec.kind
    if spec.max_priority is not None:
        told["x-max-priority"] = spec.max_priority
    if spec.max_length is not None:
        told["x-max-length"] = spec.max_length
        told["x-overflow"] = "reject-publish"
    if spec.expires is not None:
        told["x-expires"] = spec.expires
    return told
