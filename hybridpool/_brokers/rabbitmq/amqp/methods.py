"""What is asked of the broker about queues and exchanges, by names of any characters.

The client library takes only names of ASCII letters, digits and some signs. The broker takes any 255 bytes, and other
clients use them.
"""

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp import commands
from pamqp.common import FieldTable


class _AnyName:
    """Leaves the checking of names to the broker."""

    def validate(self) -> None:
        """Find nothing wrong; what is too long is an error when it is written."""


class QueueDeclare(_AnyName, commands.Queue.Declare):
    """`queue.declare`."""


class QueueBind(_AnyName, commands.Queue.Bind):
    """`queue.bind`."""


class QueueDelete(_AnyName, commands.Queue.Delete):
    """`queue.delete`."""


class ExchangeDeclare(_AnyName, commands.Exchange.Declare):
    """`exchange.declare`."""


class ExchangeBind(_AnyName, commands.Exchange.Bind):
    """`exchange.bind`."""


class BasicConsume(_AnyName, commands.Basic.Consume):
    """`basic.consume`."""


class Names:
    """A channel over which queues and exchanges are declared, bound and deleted; as `Channel` in all else."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def queue_declare(
        self,
        queue: str,
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: FieldTable | None = None,
    ) -> commands.Queue.DeclareOk:
        """Make a queue exist; tells how many messages and consumers it has."""
        return await self._channel.rpc(
            QueueDeclare(
                queue=queue,
                passive=passive,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                arguments=arguments,
            )
        )

    async def queue_bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        """Let a queue have messages of an exchange."""
        await self._channel.rpc(QueueBind(queue=queue, exchange=exchange, routing_key=routing_key))

    async def queue_delete(self, queue: str) -> None:
        """Delete a queue with what is in it."""
        await self._channel.rpc(QueueDelete(queue=queue))

    async def exchange_declare(
        self, exchange: str, *, exchange_type: str, durable: bool = False, arguments: FieldTable | None = None
    ) -> None:
        """Make an exchange exist."""
        await self._channel.rpc(
            ExchangeDeclare(exchange=exchange, exchange_type=exchange_type, durable=durable, arguments=arguments)
        )

    async def exchange_bind(self, destination: str, source: str, routing_key: str) -> None:
        """Let an exchange have messages of another."""
        await self._channel.rpc(ExchangeBind(destination=destination, source=source, routing_key=routing_key))

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


async def consume(channel: Channel, queue: str, tag: str) -> None:
    """Start a consumer, whose messages are taken out before the client library sees them."""
    channel.consumers[tag] = _not_called
    try:
        await channel.rpc(BasicConsume(queue=queue, consumer_tag=tag))
    except BaseException:
        channel.consumers.pop(tag, None)
        raise


async def _not_called(message: DeliveredMessage) -> None:
    """What the client library would call, if messages came to it."""
    raise AssertionError(f"{message} came to the client library")
