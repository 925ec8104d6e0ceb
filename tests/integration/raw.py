"""AMQP messages made of bytes: what a client library would refuse to send, or would send in one way only."""

import struct
from collections.abc import Iterable, Mapping, Sequence

import aiormq
import anyio
import attrs
from aiormq.abc import ChannelFrame
from pamqp import commands, frame

#: of a content header's properties; those set stand in this order
CONTENT_TYPE, CONTENT_ENCODING, HEADERS, CORRELATION_ID = 0x8000, 0x4000, 0x2000, 0x0400
REPLY_TO, EXPIRATION, MESSAGE_ID, APP_ID = 0x0200, 0x0100, 0x0080, 0x0008
#: a content header: class, weight, the body's size, flags
CONTENT = struct.Struct(">HHQH")
METHOD, HEADER, BODY = 1, 2, 3
CHANNEL = 1


def short(text: bytes) -> bytes:
    """Write a short string, or the name of a field."""
    return bytes([len(text)]) + text


def long(data: bytes) -> bytes:
    """Write a length and the bytes of that length."""
    return struct.pack(">I", len(data)) + data


def text(data: bytes) -> bytes:
    """Write a field that is text, by its type."""
    return b"S" + long(data)


def array(values: Iterable[bytes]) -> bytes:
    """Write a field that is a list of fields."""
    return b"A" + long(b"".join(values))


def table(fields: Mapping[bytes, bytes]) -> bytes:
    """Write a table, without a type before it."""
    return long(b"".join(short(name) + value for name, value in fields.items()))


@attrs.frozen
class Raw:
    """A message: fields as they go over the wire, types included."""

    headers: Mapping[bytes, bytes]
    body: bytes = b"[[2, 3], {}, {}]"
    content_type: bytes = b"application/json"
    #: others, by their flag
    properties: Mapping[int, bytes] = attrs.field(factory=dict)

    def frames(self, queue: str) -> bytes:
        """Write the frames that publish it."""
        publish = frame.marshal(commands.Basic.Publish(exchange="", routing_key=queue), CHANNEL)
        properties = {CONTENT_TYPE: short(self.content_type), HEADERS: table(self.headers), **self.properties}
        listed = b"".join(properties[flag] for flag in sorted(properties, reverse=True))
        content = CONTENT.pack(60, 0, len(self.body), sum(properties)) + listed
        frames = [(HEADER, content), *([(BODY, self.body)] if self.body else [])]
        return publish + b"".join(struct.pack(">BH", kind, CHANNEL) + long(part) + b"\xce" for kind, part in frames)


def send(broker: str, queue: str, messages: Sequence[Raw]) -> None:
    """Publish; returns when the broker has all of them.

    :raises AMQPError: if the broker does not take one.
    """

    async def publish() -> None:
        connection = await aiormq.connect(broker)
        channel = await connection.channel(publisher_confirms=False)
        for message in messages:
            await connection.write_queue.put(ChannelFrame(payload=message.frames(queue), should_close=False))
        # an answer to this says that all before it is done
        await channel.basic_qos(prefetch_count=1)
        await connection.close()

    anyio.run(publish)
