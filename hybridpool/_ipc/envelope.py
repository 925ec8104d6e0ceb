"""A message as the children of another library's app get it: whole, with the properties as they came.

Our own apps' children need a name, an id and a body, and get them in the fields of `RunCall`. Another library reads
more: custom headers, stamps, reply queue, priority. So its message is the body of the call, as an `Envelope`; nothing
is added to the calls of our own apps. The parent reads neither the properties nor the body.
"""

from typing import Any, Final

import msgspec

#: content type of a call whose body is an `Envelope`
MESSAGE: Final = "application/x-hybridpool-message"
#: stands for any name of a queue in a manifest
ANY_QUEUE: Final = "\N{BULLET}"
#: content type of a call whose body is an `Unfinished`
UNFINISHED: Final = "application/x-hybridpool-unfinished"
#: what an `Unfinished` asks for that is not to be recorded: whether the task's success is recorded already
IS_DONE: Final = "is done?"
#: how the name of a `Command` begins that is a signal of the app's library
SIGNAL_PREFIX: Final = "signal "
#: content type of a call whose body is a `Command`
COMMAND: Final = "application/x-hybridpool-command"
#: name of a command that is ours: mark tasks as revoked, by their `ids`, that are not known to have begun
MARK_REVOKED: Final = "hybridpool.mark_revoked"


class Envelope(msgspec.Struct, array_like=True, gc=False):
    """One message."""

    content_type: str | None
    #: as AMQP encodes them, with the headers
    properties: bytes
    exchange: str
    routing_key: str
    redelivered: bool
    body: bytes


class Unfinished(msgspec.Struct, array_like=True, gc=False):
    """A message whose task did not end in a child that could record it, and why."""

    envelope: Envelope
    #: "lost", "timed out", "terminated", "revoked", "expired" or "refused"; or `IS_DONE`
    how: str
    #: it was acknowledged before the task began
    acknowledged: bool
    #: of a child that was lost: how it ended; of a message that is refused: the reason
    cause: str = ""
    #: seconds, of a task that ran over its time limit
    limit: float = 0.0
    #: the exception for the client, of a message that is refused: its name, its module, its arguments as JSON
    kind: str = ""
    module: str = ""
    arguments: bytes = b"[]"
    #: of the message, as far as the parent could read them: the app may not be able to
    task_id: str = ""
    correlation_id: str | None = None
    reply_to: str | None = None


class Command(msgspec.Struct, array_like=True, gc=False):
    """A remote control command of the app's own."""

    name: str
    #: a JSON object
    arguments: bytes


_encode = msgspec.msgpack.Encoder().encode


def pack_envelope(message: Envelope | Unfinished | Command) -> bytes:
    """Write one of them.

    Short texts of AMQP may be any bytes (`surrogateescape`); in those that are not UTF-8 "?" stands for what is not.
    """
    try:
        return _encode(message)
    except UnicodeEncodeError:
        return _encode(_as_utf8(message))


def _as_utf8(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case Envelope() | Unfinished():
            return type(value)(*(_as_utf8(getattr(value, name)) for name in value.__struct_fields__))
        case _:
            return value


unpack_envelope = msgspec.msgpack.Decoder(Envelope).decode
unpack_unfinished = msgspec.msgpack.Decoder(Unfinished).decode
unpack_command = msgspec.msgpack.Decoder(Command).decode
