"""Dead letters at hand, over the memory broker: read, sent back, deleted, and nothing lost."""

from collections.abc import AsyncIterator

import anyio
import pytest

from hybridpool._brokers.base import Deliver
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._dead_letters import DeadLetters, dead_letters
from hybridpool._message import Delivery, Outgoing, QueueSpec
from hybridpool._protocol.dead_letter import ORIGIN, REASON
from hybridpool._protocol.dead_letter_view import StoredDeadLetter
from hybridpool.errors import BrokerError
from tests.contract.inbox import Inbox

BODY = b"[[1],{},{}]"


def everything(_letter: StoredDeadLetter) -> bool:
    """Ask for all bodies."""
    return True


def put(server: MemoryServer, number: int, **more: object) -> None:
    """DeadLetter a message of the queue "mails"."""
    headers = {"task": "shop.add", "id": f"id-{number}", REASON: "why", ORIGIN: "mails", **more}
    server.put(Outgoing(body=BODY, routing_key="mails.dead", headers=headers))


@pytest.fixture
def server() -> MemoryServer:
    """Queues in this process."""
    return MemoryServer()


@pytest.fixture
async def broker(server: MemoryServer) -> AsyncIterator[MemoryBroker]:
    """Connect, with a queue and three dead letters of it."""
    async with MemoryBroker(server, lambda _: None) as connection:
        for name in ("mails", "mails.dead", "other"):
            await connection.declare(QueueSpec(name=name))
        for number in range(3):
            put(server, number)
        yield connection


async def lying(server: MemoryServer, queue: str) -> list[Delivery]:
    """Look at what a queue holds."""
    inbox = Inbox()
    async with MemoryBroker(server, lambda _: None) as other:
        await other.consume(queue, 0, inbox)
        await anyio.wait_all_tasks_blocked()
    return inbox.items


async def ids(server: MemoryServer, queue: str) -> list[object]:
    """Return the IDs of what a queue holds, in order."""
    return [delivery.headers["id"] for delivery in await lying(server, queue)]


def read(letters: DeadLetters) -> list[str]:
    """Return the IDs at hand."""
    return [found.letter.id for found in letters.found]


async def test_looking_changes_nothing(server: MemoryServer, broker: MemoryBroker) -> None:
    """Looking at letters leaves them and their order unchanged."""
    async with dead_letters(broker, ["mails"], lambda _: False) as letters:
        assert read(letters) == ["id-0", "id-1", "id-2"]
        assert await broker.depth("mails.dead") == 0
        assert {found.delivery.body for found in letters.found} == {b""}, "all bodies might not fit into memory"
    assert await ids(server, "mails.dead") == ["id-0", "id-1", "id-2"]
    assert {delivery.body for delivery in await lying(server, "mails.dead")} == {BODY}


async def test_no_queue_no_letters(broker: MemoryBroker) -> None:
    """A queue without dead letters has none."""
    async with dead_letters(broker, ["other", "nosuch"], everything) as letters:
        assert letters.found == []


async def test_a_queue_named_twice(broker: MemoryBroker) -> None:
    """A queue that is named twice is read once."""
    async with dead_letters(broker, ["mails", "mails"], everything) as letters:
        assert len(letters.found) == 3


async def test_sent_back(server: MemoryServer, broker: MemoryBroker) -> None:
    """A letter that is sent back leaves its queue and reaches the other one, alone."""
    async with dead_letters(broker, ["mails"], everything) as letters:
        assert await letters.send_back(letters.found[1], None) == "mails"
        assert await letters.send_back(letters.found[2], "other") == "other"
    assert await ids(server, "mails.dead") == ["id-0"]
    [message] = await lying(server, "mails")
    assert (message.body, message.headers) == (BODY, {"task": "shop.add", "id": "id-1"})
    assert await ids(server, "other") == ["id-2"]


async def test_what_no_queue_takes_stays(server: MemoryServer, broker: MemoryBroker) -> None:
    """A letter that no queue takes stays where it is."""
    async with dead_letters(broker, ["mails"], everything) as letters:
        with pytest.raises(BrokerError, match="nosuch"):
            await letters.send_back(letters.found[0], "nosuch")
    assert await ids(server, "mails.dead") == ["id-0", "id-1", "id-2"]


async def test_dropped(server: MemoryServer, broker: MemoryBroker) -> None:
    """`drop` deletes the chosen letter alone."""
    async with dead_letters(broker, ["mails"], lambda _: False) as letters:
        letters.drop(letters.found[1])
    assert await ids(server, "mails.dead") == ["id-0", "id-2"]


async def test_an_error_gives_all_back(server: MemoryServer, broker: MemoryBroker) -> None:
    """An error gives all letters back."""
    with pytest.raises(KeyError):
        async with dead_letters(broker, ["mails"], everything):
            raise KeyError
    assert await ids(server, "mails.dead") == ["id-0", "id-1", "id-2"]


async def test_a_queue_that_grows(server: MemoryServer, broker: MemoryBroker) -> None:
    """Reading ends although letters keep coming, and those are left there once each."""

    class Growing(MemoryBroker):
        async def consume(self, queue: str, prefetch: int, deliver: Deliver, **_: int | None) -> None:
            def deliver_and_grow(delivery: Delivery) -> None:
                number = len(seen)
                seen.append(number)
                if number < 100:
                    put(server, 3 + number)
                deliver(delivery)

            seen: list[int] = []
            await super().consume(queue, prefetch, deliver_and_grow)

    async with Growing(server, lambda _: None) as growing, dead_letters(growing, ["mails"], everything) as letters:
        assert read(letters) == ["id-0", "id-1", "id-2"]
        assert letters.missed == 0
    found = await ids(server, "mails.dead")
    assert sorted(set(map(str, found))) == sorted(map(str, found)), "none is there twice"
    assert {"id-0", "id-1", "id-2", "id-3"} <= set(found)
    assert await broker.depth("mails") == 0


async def test_a_connection_that_comes_back(server: MemoryServer, broker: MemoryBroker) -> None:
    """After a lost connection each letter is read once, and a choice counts."""

    class Cut(MemoryBroker):
        async def consume(self, queue: str, prefetch: int, deliver: Deliver, **_: int | None) -> None:
            await super().consume(queue, prefetch, self.once_cut(deliver))

        def once_cut(self, deliver: Deliver) -> Deliver:
            seen: list[str] = []

            def take(delivery: Delivery) -> None:
                seen.append(str(delivery.headers["id"]))
                deliver(delivery)
                if len(seen) == 2:
                    server.cut()

            return take

    async with Cut(server, lambda _: None) as cut, dead_letters(cut, ["mails"], everything) as letters:
        assert read(letters) == ["id-0", "id-1", "id-2"]
        letters.drop(letters.found[0])
    assert await ids(server, "mails.dead") == ["id-1", "id-2"]


async def test_looked_at_too_often(server: MemoryServer, broker: MemoryBroker) -> None:
    """A letter that was delivered often is written anew, without its count."""
    put(server, 3, **{"x-delivery-count": 10})
    async with dead_letters(broker, ["mails"], lambda _: False) as letters:
        assert len(letters.found) == 4
    found = await lying(server, "mails.dead")
    assert [delivery.headers["id"] for delivery in found] == ["id-0", "id-1", "id-2", "id-3"]
    assert "x-delivery-count" not in found[3].headers
    assert (found[3].body, found[3].headers[REASON], found[3].redelivered) == (BODY, "why", False)


async def test_a_connection_lost_between_sending_and_taking_out(server: MemoryServer, broker: MemoryBroker) -> None:
    """A connection lost between sending and deleting leaves the letter in both queues."""

    class Cut(MemoryBroker):
        async def publish(self, message: Outgoing) -> None:
            await super().publish(message)
            server.cut()

    async with Cut(server, lambda _: None) as cut, dead_letters(cut, ["mails"], everything) as letters:
        await letters.send_back(letters.found[0], None)
    assert await ids(server, "mails") == ["id-0"]
    assert await ids(server, "mails.dead") == ["id-0", "id-1", "id-2"]
