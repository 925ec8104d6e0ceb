"""RabbitMQ at its worst: nodes that stop, freeze and refuse; connections that are cut. We come back by ourselves."""

import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import anyio
import pytest
from anyio.to_thread import run_sync

from hybridpool._brokers.rabbitmq import RabbitBroker
from hybridpool._message import Delivery, Outgoing, QueueSpec
from hybridpool.errors import BrokerError, BrokerUnavailable
from hybridpool.events import BrokerConnected, BrokerConnectFailed, BrokerLost, QueueDiffers
from tests.contract.inbox import PATIENCE, Events, Inbox, assert_quiet, until_depth
from tests.rabbit import Node

pytestmark = pytest.mark.anyio

#: seconds for what waits for a node's boot
BOOT = 120.0
#: seconds within which a broker is left, whatever state the node is in: four steps of 0.45 s, on a busy machine
LEAVING = 15.0


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may leave a task that died unseen, or a traceback of the client library."""
    yield
    assert_quiet(caplog)


@pytest.fixture
def own_node() -> Iterator[Node]:
    """A node for one test, not started."""
    node = Node("victim")
    yield node
    node.destroy()


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


async def cut_all(node: Node) -> None:
    """Have the node close every connection."""
    await run_sync(node.ctl, "close_all_connections", "test cuts")


def message(queue: str, body: bytes = b"0") -> Outgoing:
    """Return a message for a queue."""
    return Outgoing(body=body, routing_key=queue)


async def test_cut_connection_comes_back(
    rabbit_node: Node, broker: RabbitBroker, observed: Events, queue_name: str
) -> None:
    """After a cut connection the consumer comes back, and a late answer for an old delivery is ignored."""
    inbox = Inbox()
    await broker.publish(message(queue_name))
    await broker.consume(queue_name, 1, inbox)
    [first] = await inbox.take(1)
    await cut_all(rabbit_node)
    [again] = await inbox.take(1)
    assert (again.body, again.redelivered) == (b"0", True)
    assert again.channel > first.channel
    broker.ack(first)
    broker.requeue(first)
    await broker.publish(message(queue_name, b"1"))
    broker.ack(again)
    [following] = await inbox.take(1)
    assert (following.body, following.channel) == (b"1", again.channel)
    [lost] = observed.of(BrokerLost)
    assert "guest:guest" not in repr(lost)
    assert "CONNECTION_FORCED" in lost.reason
    assert lost.retry_in < 1
    await broker.connected(0)
    assert len(observed.of(BrokerConnected)) == 2


async def test_prefetch_and_private_queues_come_back(
    rabbit_node: Node, broker: RabbitBroker, observed: Events, queue_name: str
) -> None:
    """After a cut connection prefetch counts and private queues are restored."""
    inbox, replies = Inbox(), Inbox()
    reply = f"{queue_name}-reply"
    await broker.declare(QueueSpec(name=reply, private=True))
    await broker.consume(reply, 0, replies)
    await broker.consume(queue_name, 5, inbox)
    await broker.consume(queue_name, 2, inbox)
    await cut_all(rabbit_node)
    await observed.see(BrokerConnected, 2)
    await broker.publish(Outgoing(body=b"", routing_key=reply, mandatory=True))
    await replies.take(1)
    for _ in range(4):
        await broker.publish(message(queue_name))
    await until_depth(broker, queue_name, 2)
    await inbox.take(2)


async def test_wishes_while_disconnected_are_granted(own_node: Node, observed: Events, queue_name: str) -> None:
    """What is declared and consumed while disconnected holds once connected; publishing meanwhile fails at once."""
    inbox = Inbox()
    told: list[int] = []
    broker = RabbitBroker(own_node.url, observed, connect_timeout=1)
    broker.on_disconnect(lambda: told.append(len(observed.items)))
    async with broker:
        await observed.see(BrokerConnectFailed, 2)
        assert told[:2] == [0, 1], "the callback comes before each event of an attempt that failed"
        with pytest.raises(BrokerUnavailable, match="no connection to amqp://guest:"):
            await broker.publish(message(queue_name))
        with pytest.raises(BrokerUnavailable):
            await broker.connected(0.01)
        await broker.declare(QueueSpec(name=queue_name))
        await broker.consume(queue_name, 3, inbox)
        await run_sync(own_node.start)
        await broker.connected(BOOT)
        await broker.publish(message(queue_name))
        await inbox.take(1)
        waits = [failed.retry_in for failed in observed.of(BrokerConnectFailed)]
        assert waits[0] <= 0.2
        assert max(waits) <= 30


@pytest.mark.slow
async def test_restarted_node(own_node: Node, observed: Events, queue_name: str) -> None:
    """After the node was restarted the consumer gets every message, those it held as redelivered."""
    inbox = Inbox()
    await run_sync(own_node.start)
    async with RabbitBroker(own_node.url, observed) as broker:
        await broker.connected(PATIENCE)
        await broker.declare(QueueSpec(name=queue_name))
        await broker.consume(queue_name, 2, inbox)
        for number in range(4):
            await broker.publish(message(queue_name, b"%d" % number))
        stale = await inbox.take(2)
        await run_sync(own_node.stop)
        await observed.see(BrokerLost)
        for delivery in stale:
            broker.ack(delivery)
        await broker.flush()
        await run_sync(own_node.start)
        for expected in (b"0", b"1", b"2", b"3"):
            await inbox.until(bool, BOOT)
            delivery = inbox.items.pop(0)
            assert (delivery.body, delivery.redelivered) == (expected, expected in (b"0", b"1"))
            broker.ack(delivery)
        await until_depth(broker, queue_name, 0)


async def test_waiting_publishes_hear_of_the_loss(own_node: Node, observed: Events, queue_name: str) -> None:
    """Publishers that wait for a confirmation get BrokerUnavailable when the node is killed."""
    await run_sync(own_node.start)
    heard: list[str] = []

    async def publish(broker: RabbitBroker) -> None:
        try:
            await broker.publish(message(queue_name, b"x" * 100_000))
        except BrokerUnavailable as error:
            heard.append(str(error))

    async with RabbitBroker(own_node.url, observed) as broker:
        await broker.connected(PATIENCE)
        await broker.declare(QueueSpec(name=queue_name))
        own_node.freeze()
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for _ in range(200):
                    group.start_soon(publish, broker)
                # they fill the write queue and the socket's buffer, and wait at both
                await anyio.wait_all_tasks_blocked()
                assert heard == []
                await run_sync(own_node.kill)
        assert len(heard) == 200


async def test_deleted_by_us_stays_deleted(
    rabbit_node: Node, broker: RabbitBroker, observed: Events, queue_name: str
) -> None:
    """A queue that we deleted is not restored by a reconnect."""
    await broker.consume(queue_name, 1, Inbox())
    await broker.delete(queue_name)
    await cut_all(rabbit_node)
    await observed.see(BrokerConnected, 2)
    with pytest.raises(BrokerError, match="does not exist"):
        await broker.depth(queue_name)


async def test_wrong_password(broker_url: str, observed: Events) -> None:
    """A wrong password raises an error that is not BrokerUnavailable, and is not shown."""
    async with RabbitBroker(broker_url.replace("guest:guest", "guest:s3cret"), observed) as broker:
        with anyio.fail_after(PATIENCE), pytest.raises(BrokerError, match="ACCESS_REFUSED") as caught:
            await broker.connected(None)
        assert not isinstance(caught.value, BrokerUnavailable)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))
        assert len(observed.of(BrokerConnectFailed)) <= 2
    assert "s3cret" not in repr(observed.items)


async def test_unknown_virtual_host(broker_url: str, observed: Events) -> None:
    """An unknown virtual host raises an error that names it."""
    async with RabbitBroker(broker_url.removesuffix("//") + "/nowhere", observed) as broker:
        with anyio.fail_after(PATIENCE), pytest.raises(BrokerError, match="virtual host 'nowhere'"):
            await broker.connected(None)


async def test_queue_of_another_kind(broker: RabbitBroker, observed: Events, queue_name: str) -> None:
    """A queue of another type is used as it is, and reported."""
    name = f"{queue_name}-quorum"
    await broker.declare(QueueSpec(name=name, kind="quorum", expires=60_000))
    await broker.declare(QueueSpec(name=name, expires=60_000))
    [differs] = observed.of(QueueDiffers)
    assert differs.queue == name
    assert "inequivalent arg 'x-queue-type'" in differs.reason
    assert observed.of(BrokerLost) == []


async def test_deleted_queue(rabbit_node: Node, broker: RabbitBroker, observed: Events, queue_name: str) -> None:
    """A consumed queue that was deleted is declared and consumed again."""
    inbox, other = Inbox(), Inbox()
    await broker.declare(QueueSpec(name=f"{queue_name}-2", expires=60_000))
    await broker.consume(f"{queue_name}-2", 1, other)
    await broker.consume(queue_name, 1, inbox)
    await run_sync(rabbit_node.ctl, "delete_queue", queue_name)
    with anyio.fail_after(PATIENCE):
        while not inbox.items:
            await broker.publish(message(queue_name))
    assert inbox.items[0].channel == 1
    assert observed.of(BrokerLost) == []


async def test_closed_channel_comes_back(broker: RabbitBroker, observed: Events, queue_name: str) -> None:
    """A channel that the broker closed is opened again, and unsettled messages come again."""
    inbox = Inbox()
    await broker.publish(message(queue_name))
    await broker.consume(queue_name, 1, inbox)
    [first] = await inbox.take(1)
    session = broker._supervisor.current
    assert session is not None
    # the only way to provoke what the ledger exists to prevent: an answer for a tag that was never delivered
    session.acks.delivered(77)
    broker.ack(forged(first, 77))
    [again] = await inbox.take(1)
    assert again.channel > first.channel
    [lost] = observed.of(BrokerLost)
    assert "unknown delivery tag 77" in lost.reason


def forged(delivery: Delivery, tag: int) -> Delivery:
    """Return a delivery like this one with another tag."""
    delivery.tag = tag
    return delivery


async def test_cancelled_caller_costs_nothing(broker: RabbitBroker, observed: Events, queue_name: str) -> None:
    """A cancelled caller of `consume` costs neither the channel nor the held messages."""
    inbox = Inbox()
    await broker.publish(message(queue_name))
    await broker.consume(queue_name, 1, inbox)
    [held] = await inbox.take(1)
    for prefetch in range(2, 6):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await broker.consume(queue_name, prefetch, inbox)
    await broker.cancel(queue_name)
    broker.ack(held)
    await broker.flush()
    await until_depth(broker, queue_name, 0)
    assert observed.of(BrokerLost) == []


@pytest.mark.parametrize("moment", ["idle", "busy"])
async def test_frozen_node_is_left_in_time(rabbit_node: Node, broker_url: str, queue_name: str, moment: str) -> None:
    """A broker whose node is frozen can be left in time, idle or with answers to send."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(RabbitBroker(broker_url, Events()))
        await broker.connected(PATIENCE)
        await broker.declare(QueueSpec(name=queue_name, expires=60_000))
        inbox = Inbox()
        if moment == "busy":
            for _ in range(20):
                await broker.publish(message(queue_name))
            await broker.consume(queue_name, 0, inbox)
        held = await inbox.take(20 if moment == "busy" else 0)
        rabbit_node.freeze()
        try:
            for delivery in held:
                broker.ack(delivery)
            began = time.monotonic()
            await stack.aclose()
            assert time.monotonic() - began <= LEAVING
        finally:
            rabbit_node.thaw()


async def test_frozen_node_is_not_reached(rabbit_node: Node, broker_url: str, observed: Events) -> None:
    """A connection attempt to a frozen node ends at its timeout, and can be left in it."""
    rabbit_node.freeze()
    try:
        async with RabbitBroker(broker_url, observed, connect_timeout=0.2) as broker:
            await observed.see(BrokerConnectFailed, 2)
            assert {failed.reason for failed in observed.of(BrokerConnectFailed)} == {"no answer in time"}
            began = time.monotonic()
    finally:
        rabbit_node.thaw()
    assert time.monotonic() - began <= LEAVING
    with pytest.raises(BrokerUnavailable):
        await broker.connected(0)
