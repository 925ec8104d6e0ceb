"""Queues and exchanges: declared, bound, measured, deleted.

Each step has a channel of its own, because the broker closes the channel of a request that it refuses.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from aiormq import exceptions as foreign

from hybridpool._brokers.rabbitmq.aiormq_compat import AmqpChannel
from hybridpool._brokers.rabbitmq.connection import AmqpConnection
from hybridpool._brokers.rabbitmq.errors import reason
from hybridpool._message import QueueSpec
from hybridpool.errors import QueueNotFound


class Topology:
    """Declares, measures and deletes over one connection."""

    def __init__(
        self, connection: AmqpConnection, differs: Callable[[str, str], None], other: AmqpConnection | None = None
    ) -> None:
        """Use this connection.

        :param differs: called with a queue's name and the reason when it exists with other arguments.
        :param other: used while reading from the first one is paused; but a private queue belongs to the first.
        """
        self._connection = connection
        self._other = other
        self._differs = differs

    async def declare(self, spec: QueueSpec) -> None:
        """Make the queue exist, with its bindings; one that exists with other arguments is used as it is."""
        for binding in spec.bindings:
            await self.declare_exchange(binding.exchange, binding.type, durable=binding.durable)
        try:
            async with self.temporary_channel(is_private=spec.private) as channel:
                await channel.queue_declare(
                    spec.name,
                    durable=not spec.private,
                    exclusive=spec.private,
                    auto_delete=spec.private,
                    arguments=arguments(spec),
                )
        except foreign.ChannelAccessRefused:
            # A user without the right to make queues uses those that exist.
            if not await self.exists(spec.name):
                raise
        except foreign.ChannelPreconditionFailed as error:
            await self.depth(spec.name)
            self._differs(spec.name, reason(error).removeprefix("PRECONDITION_FAILED - "))
        if spec.bindings:
            async with self.temporary_channel(is_private=spec.private) as channel:
                for binding in spec.bindings:
                    await channel.queue_bind(spec.name, binding.exchange, binding.routing_key)

    async def declare_exchange(self, exchange: str, type: str, *, durable: bool) -> None:
        """Make an exchange exist; one that exists with another type or durability is used as it is."""
        with suppress(foreign.ChannelPreconditionFailed):
            async with self.temporary_channel() as channel:
                await channel.exchange_declare(exchange, exchange_type=type, durable=durable)

    async def delete(self, queue: str) -> None:
        """Delete the queue; RabbitMQ does not mind if it does not exist."""
        async with self.temporary_channel() as channel:
            await channel.queue_delete(queue)

    async def purge(self, queue: str) -> int:
        """Delete the messages that are ready, and tell how many there were.

        :raises QueueNotFound: if there is no such queue.
        """
        try:
            async with self.temporary_channel() as channel:
                return await channel.queue_purge(queue)
        except foreign.ChannelNotFoundEntity as error:
            raise QueueNotFound(f"queue {queue!r} does not exist") from error

    async def depth(self, queue: str) -> int:
        """Tell how many messages are ready.

        :raises QueueNotFound: if there is no such queue.
        """
        try:
            async with self.temporary_channel() as channel:
                return await channel.queue_declare(queue, passive=True)
        except foreign.ChannelNotFoundEntity as error:
            raise QueueNotFound(f"queue {queue!r} does not exist") from error

    async def is_classic(self, spec: QueueSpec) -> bool:
        """Tell whether a queue that exists is a classic one, and otherwise as told.

        A quorum queue of RabbitMQ 3 takes requeued messages behind all others, if it has no delivery limit. A queue
        that we declare without a kind may be a quorum queue all the same: by the default of its virtual host, or
        because it was there before. The broker tells only by refusing a declaration that names the kind.
        """
        if spec.kind != "classic":
            return False
        try:
            async with self.temporary_channel() as channel:
                await channel.queue_declare(
                    spec.name, durable=True, arguments={**arguments(spec), "x-queue-type": "classic"}
                )
        except (foreign.ChannelPreconditionFailed, foreign.ChannelAccessRefused):
            return False
        return True

    async def exists(self, queue: str) -> bool:
        """Tell whether there is such a queue, as far as this user may know."""
        try:
            await self.depth(queue)
        except (QueueNotFound, foreign.ChannelAccessRefused):
            return False
        return True

    @asynccontextmanager
    async def temporary_channel(self, *, is_private: bool = False) -> AsyncGenerator[AmqpChannel]:
        """Open a channel for the block.

        :param is_private: whether it is about a private queue.
        """
        connection = self._connection
        if self._other is not None and connection.frames.is_reading_paused and not is_private:
            connection = self._other
        channel = await connection.channel(confirms=False)
        try:
            yield channel
        finally:
            await channel.close()


def arguments(spec: QueueSpec) -> dict[str, object]:
    """Return the declaration's arguments. "classic" is the broker's default and is left out, as Celery does."""
    told: dict[str, object] = {}
    if spec.kind != "classic":
        told["x-queue-type"] = spec.kind
    if spec.max_priority is not None:
        told["x-max-priority"] = spec.max_priority
    if spec.max_length is not None:
        told["x-max-length"] = spec.max_length
        told["x-overflow"] = "reject-publish"
    if spec.expires is not None:
        told["x-expires"] = spec.expires
    return {**told, **spec.arguments}
