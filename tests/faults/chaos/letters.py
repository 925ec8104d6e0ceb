"""Take messages out of a queue and read which calls they are; client libraries cannot read all of them."""

import socket
import struct
from collections.abc import Sequence
from typing import Final

from tests.faults.chaos.calls import NAME
from tests.integration.raw import long, short, table, text

#: what a frame begins with: type, channel, size of what follows; one more byte ends it
FRAME: Final = struct.Struct(">BHI")
METHOD: Final = 1
HEADER: Final = 2
#: class and method, as AMQP 0-9-1 numbers them
START, START_OK = (10, 10), (10, 11)
TUNE, TUNE_OK = (10, 30), (10, 31)
OPEN, OPEN_OK = (10, 40), (10, 41)
CLOSE, CHANNEL_CLOSE = (10, 50), (20, 40)
CHANNEL_OPEN, CHANNEL_OPEN_OK = (20, 10), (20, 11)
GET, GET_OK, GET_EMPTY = (60, 70), (60, 71), (60, 72)
#: seconds
PATIENCE: Final = 20.0


def take_all(port: int, queue: str) -> Sequence[str]:
    """Take everything out of a queue, and return the names of the calls; none if the queue does not exist."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as child:
        client = _Client(child)
        names = []
        while (name := client.take(queue)) is not None:
            names.append(name)
        return names


class _Client:
    """A connection with one channel, of which just enough is read."""

    def __init__(self, child: socket.socket) -> None:
        self._link = child
        self._read = b""
        child.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(START)
        self._send(0, START_OK, table({}) + short(b"PLAIN") + long(b"\0guest\0guest") + short(b"en_US"))
        self._expect(TUNE)
        self._send(0, TUNE_OK, struct.pack(">HIH", 8, 131072, 0))
        self._send(0, OPEN, short(b"/") + short(b"") + b"\0")
        self._expect(OPEN_OK)
        self._send(1, CHANNEL_OPEN, short(b""))
        self._expect(CHANNEL_OPEN_OK)

    def take(self, queue: str) -> str | None:
        """Take one message, and return which call it is; None: there is none."""
        self._send(1, GET, b"\0\0" + short(queue.encode()) + b"\1")
        if self._expect(GET_OK, GET_EMPTY, CHANNEL_CLOSE) != GET_OK:
            return None
        kind, header = self._frame()
        assert kind == HEADER
        (size,) = struct.unpack_from(">Q", header, 4)
        while size > 0:
            _, body = self._frame()
            size -= len(body)
        return _value(header, NAME.encode()) or _value(header, b"id") or "?"

    def _send(self, channel: int, method: tuple[int, int], arguments: bytes) -> None:
        payload = struct.pack(">HH", *method) + arguments
        self._link.sendall(FRAME.pack(METHOD, channel, len(payload)) + payload + b"\xce")

    def _expect(self, *methods: tuple[int, int]) -> tuple[int, int]:
        while True:
            kind, payload = self._frame()
            if kind == METHOD:
                method = struct.unpack_from(">HH", payload)
                if method in methods:
                    return method[0], method[1]
                assert method not in (CLOSE, CHANNEL_CLOSE), payload

    def _frame(self) -> tuple[int, bytes]:
        kind, _, size = FRAME.unpack(self._exactly(FRAME.size))
        return kind, self._exactly(size + 1)[:-1]

    def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            more = self._link.recv(1 << 16)
            if not more:
                raise ConnectionError("the broker has closed the connection")
            self._read += more
        found, self._read = self._read[:size], self._read[size:]
        return found


def _value(header: bytes, name: bytes) -> str:
    """Return a header's text, found by its name without reading what is before it."""
    field = short(name) + text(b"")[:1]
    at = header.find(field)
    if at < 0:
        return ""
    at += len(field)
    (size,) = struct.unpack_from(">I", header, at)
    return header[at + 4 : at + 4 + size].decode()
