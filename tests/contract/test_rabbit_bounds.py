"""What others decide on RabbitMQ's side, names, sizes and numbers, costs a connection nothing."""

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Iterator

import aio_pika
import anyio
import anyio.lowlevel
import pytest
from anyio.to_thread import run_sync

from hybridpool._brokers.rabbitmq import RabbitBroker, acks
from hybridpool._message import Binding, Outgoing, QueueSpec
from hybridpool._protocol import dead_letter
from hybridpool.errors import BrokerError
from hybridpool.events import BrokerConnected, BrokerLost
from tests.contract.inbox import PATIENCE, Events, Inbox, assert_quiet, until_depth
from tests.integration.raw import CORRELATION_ID, REPLY_TO, Raw, send, short, table, text
from tests.rabbit import Node

pytestmark = pytest.mark.anyio

MEGABYTE = 2**20
#: what queues of other clients are called
NAMES = [
    "with space",
    "slash/colon:at@hash#plus+",
    "ünï✓",
    "x" * 200,
    "100%",
    "a*b|c",
    "(paren)",
    "quo'te",
    "{0}[1]",
    "?!;&$~",
]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may leave a task that died unseen, or a traceback of the client library."""
    yield
    assert_quiet(caplog)


@pytest.fixture
def observed() -> Events:
    """Collect what the broker under test announces."""
    return Events()


@pytest.fixture
async def broker(broker_url: str, observed: Events, queue_name: str) -> AsyncIterator[RabbitBroker]:
    """Connect to the shared node, with one queue declared."""
    async with RabbitBroker(broker_url, observed) as connection:
        await connection.connected(PATIENCE)
        await connection.declare(QueueSpec(name=queue_name, expires=60_000))
        yield connection


@pytest.mark.parametrize("name", NAMES)
async def test_queues_of_any_name(broker: RabbitBroker, observed: Events, name: str) -> None:
    """A queue of any name is declared, consumed, sent to, delayed for and deleted."""
    queue, inbox = f"{name}-{uuid.uuid4().hex[:8]}", Inbox()
    await broker.declare(QueueSpec(name=queue, expires=60_000))
    await broker.consume(queue, 0, inbox)
    await broker.publish(Outgoing(body=b"at once", routing_key=queue, mandatory=True))
    await broker.publish(Outgoing(body=b"later", routing_key=queue, delay=1))
    assert [delivery.body for delivery in await inbox.take(2)] == [b"at once", b"later"]
    await broker.delete(queue)
    assert not observed.of(BrokerLost)


async def test_a_reason_that_is_cut_off(broker: RabbitBroker, observed: Events) -> None:
    """A missing queue is an error of the caller, also if the broker's reason is cut off within a character."""
    for length in (115, 116, 117, 118):
        with pytest.raises(BrokerError, match="does not exist"):
            await broker.depth("ü" * length)
    assert not observed.of(BrokerLost)


async def test_texts_of_any_bytes(broker: RabbitBroker, observed: Events, broker_url: str, queue_name: str) -> None:
    """A routing key, properties and header names that are not UTF-8 cost no connection, and go on as they came."""
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox)
    odd = b"\xff\xfe"
    message = Raw(
        {odd: text(odd), b"task": text(b"t")},
        content_type=odd,
        properties={CORRELATION_ID: short(odd), REPLY_TO: short(odd)},
    )
    await run_sync(send, broker_url, queue_name, [message])
    (came,) = await inbox.take(1)
    await broker.publish(dead_letter.write_delayed(came, 0))
    (again,) = await inbox.take(1)
    assert table(message.headers)[4:] in again.properties
    assert (again.reply_to, again.correlation_id, again.content_type) == ("\udcff\udcfe",) * 3
    assert not observed.of(BrokerLost)


async def test_what_others_refuse_costs_one_message(broker: RabbitBroker, observed: Events, queue_name: str) -> None:
    """A message for an exchange that does not exist fails alone, and those under way beside it are confirmed."""
    failed: list[str] = []

    async def nowhere() -> None:
        with pytest.raises(BrokerError, match="nowhere"):
            await broker.publish(Outgoing(body=b"", exchange="nowhere", routing_key="x"))
        failed.append("x")

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(nowhere)
            group.start_soon(broker.publish, Outgoing(body=b"good", routing_key=queue_name))
    assert len(failed) == 20
    assert await broker.depth(queue_name) == 20
    assert not observed.of(BrokerLost)


async def test_small_messages_beside_a_large_one(broker: RabbitBroker, observed: Events, queue_name: str) -> None:
    """While a large body is sent to an exchange, small messages can be sent to it, confirmed or not; all arrive."""
    inbox, name, exchange = Inbox(), f"{queue_name}-bound", f"{queue_name}-exchange"
    binding = Binding(exchange=exchange, type="topic", routing_key="#", durable=False)
    await broker.declare(QueueSpec(name=name, expires=60_000, bindings=(binding,)))
    large = Outgoing(body=b"x" * (20 * MEGABYTE), exchange=exchange, routing_key="large")
    small = [
        Outgoing(body=str(number).encode(), exchange=exchange, routing_key="small", is_confirmed=number % 2 == 0)
        for number in range(200)
    ]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(broker.publish, large)
        for at in range(0, len(small), 2):
            tasks.start_soon(broker.publish_many, small[at : at + 2])
            await anyio.lowlevel.checkpoint()
    assert await broker.publish_many(small) == [None] * len(small)
    await until_depth(broker, name, 1 + 2 * len(small))
    await broker.consume(name, 0, inbox)
    await inbox.until(lambda came: len(came) == 1 + 2 * len(small))
    assert sorted(delivery.body for delivery in inbox.items) == sorted([large.body, *(one.body for one in 2 * small)])
    assert not observed.of(BrokerLost)


async def test_a_large_message_comes_alone(broker: RabbitBroker, observed: Events, queue_name: str) -> None:
    """Of messages that are too large one is in memory at a time, and requests meanwhile are answered."""
    inbox = Inbox()
    for number in range(4):
        await broker.publish(Outgoing(body=bytes((number,)) * 5 * MEGABYTE, routing_key=queue_name))
    await broker.consume(queue_name, 0, inbox, alone_above=MEGABYTE)
    for number in range(4):
        (large,) = await inbox.take(1)
        assert bytes(large.body) == bytes((number,)) * 5 * MEGABYTE
        # what dead-lettering asks and says
        await broker.declare(QueueSpec(name=f"{queue_name}.dead", expires=60_000))
        await broker.publish(dead_letter.write_dead_letter(large, "too large", "w", dt.datetime.now(dt.UTC)))
        assert not inbox.items
        broker.ack(large)
    await broker.publish(Outgoing(body=b"small", routing_key=queue_name))
    assert [delivery.body for delivery in await inbox.take(1)] == [b"small"]
    assert await broker.depth(f"{queue_name}.dead") == 4
    await broker.delete(f"{queue_name}.dead")
    assert not observed.of(BrokerLost)


async def test_a_large_message_that_cannot_be_settled(
    broker: RabbitBroker, observed: Events, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large message that cannot be settled holds up deliveries and changes of the consumer only for a short time."""
    monkeypatch.setattr(acks, "MAX_PAUSE_S", 0.2)
    inbox = Inbox()
    for size in (5 * MEGABYTE, 1):
        await broker.publish(Outgoing(body=b"x" * size, routing_key=queue_name))
    await broker.consume(queue_name, 1, inbox, alone_above=MEGABYTE)
    (large,) = await inbox.take(1)
    # as for a message that is held, and gives its place to another one
    with anyio.fail_after(PATIENCE):
        await broker.consume(queue_name, 1, inbox, alone_above=MEGABYTE)
    (small,) = await inbox.take(1)
    assert (len(large.body), len(small.body)) == (5 * MEGABYTE, 1)
    broker.ack(small)
    broker.ack(large)
    await broker.flush()
    assert not observed.of(BrokerLost)


async def test_a_body_that_is_not_kept(broker: RabbitBroker, queue_name: str) -> None:
    """A body above the size to keep is dropped as it arrives, and its size is reported."""
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox, keeps=MEGABYTE)
    for size in (MEGABYTE, MEGABYTE + 1, 5 * MEGABYTE, 3):
        await broker.publish(Outgoing(body=b"x" * size, routing_key=queue_name))
    told = [(len(delivery.body), delivery.missing) for delivery in await inbox.take(4)]
    assert told == [(MEGABYTE, 0), (0, MEGABYTE + 1), (0, 5 * MEGABYTE), (3, 0)]


async def test_queues_that_were_only_sent_to(rabbit_node: Node, observed: Events, queue_name: str) -> None:
    """After a reconnect queues that were only sent to are declared when they are next used, not before."""
    async with RabbitBroker(rabbit_node.url, observed) as broker:
        await broker.connected(PATIENCE)
        inbox = Inbox()
        await broker.declare(QueueSpec(name=queue_name, expires=60_000))
        await broker.consume(queue_name, 0, inbox)
        targets = [f"{queue_name}-{number}" for number in range(30)]
        for target in targets:
            await broker.declare(QueueSpec(name=target, expires=60_000))
        await run_sync(rabbit_node.ctl, "close_all_connections", "test cuts")
        await observed.see(BrokerConnected, 2, patience=30)
        async with await aio_pika.connect(rabbit_node.url) as other:
            channel = await other.channel()
            for target in targets[:2]:
                await channel.queue_delete(target)
            await broker.publish(Outgoing(body=b"back", routing_key=queue_name))
            assert [delivery.body for delivery in await inbox.take(1)] == [b"back"]
            await broker.publish(Outgoing(body=b"1", routing_key=targets[0], mandatory=True))
            assert await broker.publish_many([Outgoing(body=b"2", routing_key=targets[1], mandatory=True)]) == [None]
            for target in targets[:2]:
                await until_depth(broker, target, 1)
                await broker.delete(target)
