"""Messages that no client library would send: large headers, numbers that AMQP has and we have not, bytes as text."""

import struct
from collections.abc import Mapping
from typing import Final

import attrs

from tests.integration.raw import CORRELATION_ID, Raw, array, short, text

Fields = Mapping[bytes, bytes]

#: of a message's properties
DELIVERY_MODE: Final = 0x1000
REPLY_TO: Final = 0x0200

#: the odd part, by the headers that are beside the good ones; all of it is AMQP that RabbitMQ takes and hands on
ODDITIES: Final[Mapping[str, Fields]] = {
    "a time beyond a signed number": {b"t": b"T" + struct.pack(">Q", 2**64 - 1)},
    "small numbers that grow when they are written again": {b"a": array(b"b\x01" for _ in range(38_000))},
    "many long names": {b"%03d" % number + b"n" * 250: b"V" for number in range(480)},
    "floats that grow when they are written again": {b"f": array(b"f\0\0\0\0" for _ in range(22_000))},
    "many short headers": {b"h%d" % number: text(b"v" * 190) for number in range(600)},
    "one long header": {b"long": text(b"v" * 120_000)},
    "a name that is no UTF-8": {b"stra\xdfe": text(b"yes")},
    "a value that is no UTF-8": {b"city": text(b"M\xfcnchen")},
}


@attrs.frozen(kw_only=True)
class OddMessage:
    """One of them."""

    task: str
    id: str
    #: header by which the account knows it
    name: str
    oddity: str
    #: queue for the answer; empty: none
    reply_to: str

    def raw(self) -> Raw:
        """Write it."""
        headers = {
            b"lang": text(b"py"),
            b"task": text(self.task.encode()),
            b"id": text(self.id.encode()),
            self.name.encode(): text(self.id.encode()),
            **ODDITIES[self.oddity],
        }
        properties = {DELIVERY_MODE: b"\x02", CORRELATION_ID: short(self.id.encode())}
        if self.reply_to:
            properties[REPLY_TO] = short(self.reply_to.encode())
        return Raw(headers, b"[[], {}, {}]", properties=properties)
