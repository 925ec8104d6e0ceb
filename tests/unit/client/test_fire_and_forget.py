"""Calls that are sent without confirmation."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import anyio
import anyio.lowlevel
import pytest

from hybridpool._client import fire_and_forget
from hybridpool._client.fire_and_forget import FireAndForget
from hybridpool._client.sync_portal import Portal
from hybridpool._message import Outgoing
from hybridpool.errors import BrokerUnavailable
from tests.rabbit import wait_for

PATIENCE = 60.0


@pytest.fixture
def portal() -> Iterator[Portal]:
    """Give a background loop."""
    made = Portal()
    yield made
    made.close()


class Way:
    """Takes messages, as long as it is open."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.portions: list[int] = []
        self.is_open = threading.Event()
        self.is_open.set()
        self.error: BrokerUnavailable | None = None

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Take some messages."""
        await anyio.to_thread.run_sync(self.is_open.wait)
        if self.error is not None:
            raise self.error
        self.sent += [message.body for message in messages]
        self.portions.append(len(messages))


def message(number: int) -> Outgoing:
    """Return a message."""
    return Outgoing(body=b"%d" % number, routing_key="q")


def test_all_in_their_order(portal: Portal) -> None:
    """Calls without confirmation are sent once each, in their order."""
    way = Way()
    line = FireAndForget(portal, way.send, PATIENCE)
    for number in range(20_000):
        line.put(message(number))
    portal.call(line.finish)
    assert way.sent == [b"%d" % number for number in range(20_000)]


def test_again_after_a_rest(portal: Portal) -> None:
    """A call after a pause is sent."""
    way = Way()
    line = FireAndForget(portal, way.send, PATIENCE)
    for number in range(3):
        line.put(message(number))
        assert wait_for(lambda: len(way.sent) > number, PATIENCE)  # noqa: B023  at once
        # an empty call of the loop: what sent it has ended
        portal.call(anyio.lowlevel.checkpoint)


def test_of_several_threads(portal: Portal) -> None:
    """Calls of several threads are all sent, once each."""
    way = Way()
    line = FireAndForget(portal, way.send, PATIENCE)

    def put_some(first: int) -> None:
        for number in range(first, first + 2000):
            line.put(message(number))

    threads = [threading.Thread(target=put_some, args=(first,)) for first in (0, 2000, 4000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    portal.call(line.finish)
    assert sorted(map(int, way.sent)) == list(range(6000))


class HeldUp(deque[Outgoing]):
    """A line in which a thread that has appended is held up."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    def append(self, message: Outgoing) -> None:
        """Append, and let something happen before the caller goes on."""
        super().append(message)
        self.meanwhile()


def test_a_thread_is_held_up_after_it_has_appended(portal: Portal) -> None:
    """A message is sent though the loop sent everything between its thread's append and its announcement."""
    way = Way()
    line = FireAndForget(portal, way.send, PATIENCE)

    def open_and_finish() -> None:
        way.is_open.set()
        portal.call(line.finish)

    held_up = HeldUp(lambda: None)
    line._queue = held_up  # pyright: ignore[reportPrivateUsage]
    way.is_open.clear()
    line.put(message(0))
    held_up.meanwhile = open_and_finish
    line.put(message(1))
    held_up.meanwhile = lambda: None
    # whatever the second call of `put` has had scheduled is done
    portal.call(line.finish)
    line.put(message(2))
    assert wait_for(lambda: len(way.sent) == 3, PATIENCE)


def test_no_room(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full line refuses calls with BrokerUnavailable, and takes them again when it has space."""
    monkeypatch.setattr(fire_and_forget, "MAX_WAITING_MESSAGES", 10)
    way = Way()
    way.is_open.clear()
    line = FireAndForget(portal, way.send, 0.05)
    for number in range(10):
        line.put(message(number))
    with pytest.raises(BrokerUnavailable, match="10 calls wait"):
        line.put(message(10))
    way.is_open.set()
    portal.call(line.finish)
    line.put(message(11))
    portal.call(line.finish)
    assert len(way.sent) == 11


def test_not_sent(portal: Portal, caplog: pytest.LogCaptureFixture) -> None:
    """Calls that cannot be sent are logged, and later calls are sent."""
    way = Way()
    way.error = BrokerUnavailable("no connection")
    line = FireAndForget(portal, way.send, PATIENCE)
    line.put(message(0))
    portal.call(line.finish)
    assert "of 1 unconfirmed calls not all were sent: no connection" in caplog.text
    way.error = None
    line.put(message(1))
    portal.call(line.finish)
    assert way.sent == [b"1"]


def test_after_an_error_that_nobody_foresaw(portal: Portal, caplog: pytest.LogCaptureFixture) -> None:
    """An unforeseen error while sending is logged, and later calls are sent."""
    way, errors = Way(), [ValueError("odd")]

    async def send(messages: Sequence[Outgoing]) -> None:
        if errors:
            raise errors.pop()
        await way.send(messages)

    line = FireAndForget(portal, send, PATIENCE)
    line.put(message(0))
    assert wait_for(lambda: "not all were sent: odd" in caplog.text, PATIENCE)
    portal.call(anyio.lowlevel.checkpoint)
    line.put(message(1))
    assert wait_for(lambda: way.sent == [b"1"], PATIENCE)
