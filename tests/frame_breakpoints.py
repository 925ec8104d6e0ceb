"""Stopping a client of RabbitMQ at one step that it takes: what goes through a `Proxy`, read as AMQP.

So a test names the two steps between which something breaks, and does not depend on timing.
"""

import enum
import struct
import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

import attrs
from anyio.from_thread import start_blocking_portal

from tests.proxy import Connection, Proxy
from tests.workers import PATIENCE

#: what a client says first, before any frame
GREETING = b"AMQP\x00\x00\x09\x01"
#: a frame's head: its type, channel, size; then the payload and an octet of end
HEAD = struct.Struct(">BHI")
#: a method's class and number, with which the payload of a frame of type 1 begins
METHOD = struct.Struct(">HH")
PUBLISH, DELIVER, ACK = (60, 40), (60, 60), (60, 80)
#: what an acknowledgement says, by either side: the tag, and whether all before it are meant too
ANSWER = struct.Struct(">QB")
#: where the arguments of a method begin
ARGUMENTS = HEAD.size + METHOD.size


class Step(enum.Enum):
    """What does not come through."""

    PUBLISH = "a message to the queue"
    CONFIRM = "the broker's confirmation of a message to the queue"
    ACK = "the acknowledgement of a message from the queue"


class Breakpoint:
    """Lets everything pass but the first such step, and all that comes after it on that connection in that direction.

    :param queue: to which messages go through the default exchange, or from which they come.
    """

    def __init__(self, step: Step, queue: str) -> None:
        self._step = step
        self._queue = queue
        self._is_hit = threading.Event()
        #: by connection and direction: the beginning of a frame; None: nothing passes any more
        self._rests: dict[tuple[Connection, bool], bytes | None] = {}
        #: by connection and channel, which count each for itself
        self._published: Counter[tuple[Connection, int]] = Counter()
        #: the message whose answer is waited for: its connection, channel and tag
        self._noted: tuple[Connection, int, int] | None = None

    def wait(self) -> None:
        """Wait until the step was stopped.

        :raises AssertionError: if it did not come in time.
        """
        assert self._is_hit.wait(PATIENCE), f"{self._step.value} did not come within {PATIENCE:g} s"

    def pass_on(self, connection: Connection, outward: bool, data: bytes) -> bytes:
        """Return what passes; see `Proxy`."""
        rest = self._rests.get((connection, outward), b"")
        if rest is None:
            return b""
        passed = b""
        rest += data
        while frame := first_frame(rest):
            if not self._is_hit.is_set() and self._is_it(connection, outward, frame):
                self._rests[connection, outward] = None
                self._is_hit.set()
                return passed
            passed += frame
            rest = rest[len(frame) :]
        self._rests[connection, outward] = rest
        return passed

    def _is_it(self, connection: Connection, outward: bool, frame: bytes) -> bool:
        method = method_of(frame)
        channel = 0 if method is None else HEAD.unpack_from(frame)[1]
        if method == PUBLISH:
            self._published[connection, channel] += 1
            number = self._published[connection, channel]
            return self._note(Step.CONFIRM, published_to(frame), connection, channel, number)
        if method == DELIVER:
            queue, tag = delivered_from(frame)
            return self._note(Step.ACK, queue, connection, channel, tag)
        if method == ACK and self._noted is not None and outward is (self._step is Step.ACK):
            tag, multiple = ANSWER.unpack_from(frame, ARGUMENTS)
            of, on, noted = self._noted
            return of is connection and on == channel and (tag >= noted if multiple & 1 else tag == noted)
        return False

    def _note(self, awaited: Step, queue: str, connection: Connection, channel: int, tag: int) -> bool:
        """Note the message whose answer is awaited; tell whether the message itself is what must not pass."""
        if queue != self._queue:
            return False
        if self._step is awaited and self._noted is None:
            self._noted = (connection, channel, tag)
        return self._step is Step.PUBLISH and awaited is Step.CONFIRM


def first_frame(data: bytes) -> bytes:
    """Return the first frame, the greeting being one; nothing if it is not there whole."""
    size = len(GREETING)
    if data[:1] != GREETING[:1]:
        size = HEAD.size + HEAD.unpack_from(data)[2] + 1 if len(data) >= HEAD.size else HEAD.size
    return data[:size] if len(data) >= size else b""


def method_of(frame: bytes) -> tuple[int, ...] | None:
    """Return class and number of the method that a frame holds, if it holds one."""
    return METHOD.unpack_from(frame, HEAD.size) if frame[0] == 1 else None


def published_to(frame: bytes) -> str:
    """Return the queue that a message goes to through the default exchange; else nothing."""
    exchange, at = short_text(frame, ARGUMENTS + 2)  # two reserved octets
    return "" if exchange else short_text(frame, at)[0]


def delivered_from(frame: bytes) -> tuple[str, int]:
    """Return the queue that a message was sent to through the default exchange, else nothing; and its tag."""
    _, at = short_text(frame, ARGUMENTS)
    tag, _ = ANSWER.unpack_from(frame, at)
    exchange, at = short_text(frame, at + ANSWER.size)
    return "" if exchange else short_text(frame, at)[0], tag


def short_text(frame: bytes, at: int) -> tuple[str, int]:
    """Read a short string; returns where it ends, too."""
    end = at + 1 + frame[at]
    return frame[at + 1 : end].decode(), end


@attrs.frozen
class StoppingProxy:
    """A proxy before the broker that stops one step of its client."""

    url: str
    stop: Breakpoint
    #: resets every connection
    cut: Callable[[], None]


@contextmanager
def stopped_at(port: int, step: Step, queue: str) -> Generator[StoppingProxy]:
    """Open a proxy before the broker at this port; the proxy has a thread of its own, so that tests may wait."""
    breakpoint_ = Breakpoint(step, queue)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Proxy(port, breakpoint_.pass_on)) as proxy,
    ):
        yield StoppingProxy(f"amqp://guest:guest@127.0.0.1:{proxy.port}//", breakpoint_, lambda: portal.call(proxy.cut))
