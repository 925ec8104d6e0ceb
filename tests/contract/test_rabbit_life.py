"""The life of a connection to RabbitMQ: several brokers, alarms, silence, refusals. What it costs, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import anyio
import pytest
from anyio.to_thread import run_sync

from hybridpool._brokers.rabbitmq import RabbitBroker
from hybridpool._brokers.rabbitmq.declarations import Declarations
from hybridpool._brokers.rabbitmq.session import Session
from hybridpool._message import Binding, Outgoing, QueueSpec
from hybridpool.errors import BrokerError, BrokerUnavailable, QueueFull, QueueNotFound
from hybridpool.events import BrokerConnected, BrokerConnectFailed, BrokerLost, PublishingBlocked, PublishingResumed
from tests.contract.inbox import PATIENCE, Events, Inbox, assert_quiet, until_depth
from tests.proxy import Proxy
from tests.queues import BrokerConsole
from tests.rabbit import Node, free_ports
from tests.workers import Worker

pytestmark = pytest.mark.anyio

#: seconds for what only missing heartbeats can tell
SILENCE = 90.0


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may leave a task that died unseen, or a traceback of the client library."""
    yield
    assert_quiet(caplog)


@pytest.fixture(scope="module")
def own_node() -> Iterator[Node]:
    """A node whose alarms and limits may be changed."""
    with Node("sufferer") as node:
        yield node


@pytest.fixture
def observed() -> Events:
    """Collect what the broker under test announces."""
    return Events()


@pytest.fixture
async def proxy(rabbit_node: Node) -> AsyncIterator[Proxy]:
    """Stand between us and the shared node."""
    async with Proxy(rabbit_node.port) as found:
        yield found


def address(port: int, login: str = "guest:guest") -> str:
    """Return the URL of what listens there."""
    return f"amqp://{login}@127.0.0.1:{port}//"


def shown(port: int) -> str:
    """Return the URL as it is announced."""
    return f"amqp://guest:**@127.0.0.1:{port}//"


def message(queue: str, body: bytes = b"0") -> Outgoing:
    """Return a message for a queue."""
    return Outgoing(body=body, routing_key=queue)


# ---- two connections -----------------------------------------------------------------------------------------


async def publish_in_vain(broker: RabbitBroker, sent: Outgoing) -> None:
    """Publish what may be lost with the connection."""
    with suppress(BrokerUnavailable):
        await broker.publish(sent)


@pytest.fixture
async def alarmed(own_node: Node, observed: Events, queue_name: str) -> AsyncIterator[tuple[RabbitBroker, Inbox]]:
    """Consume one at a time from a queue of five, and have the node block publishing meanwhile."""
    inbox = Inbox()
    async with RabbitBroker(own_node.url, observed) as broker:
        await broker.connected(PATIENCE)
        await broker.declare(QueueSpec(name=queue_name, expires=60_000))
        for number in range(5):
            await broker.publish(message(queue_name, b"%d" % number))
        await broker.consume(queue_name, 1, inbox)
        await run_sync(own_node.raise_alarm)
        try:
            async with anyio.create_task_group() as group:
                # the broker takes the first one, and blocks its sender
                group.start_soon(publish_in_vain, broker, message(f"{queue_name}-2"))
                await observed.see(PublishingBlocked)
                yield broker, inbox
                group.cancel_scope.cancel()
        finally:
            await run_sync(own_node.clear_alarm)


async def test_acks_go_on_while_publishing_waits(
    own_node: Node, alarmed: tuple[RabbitBroker, Inbox], observed: Events, queue_name: str
) -> None:
    """Acknowledgements go out and requests are answered while the broker blocks publishing."""
    broker, inbox = alarmed
    published: list[bytes] = []

    async def publish(body: bytes) -> None:
        await broker.publish(message(queue_name, body))
        published.append(body)

    async with anyio.create_task_group() as group:
        for body in (b"5", b"6"):
            group.start_soon(publish, body)
        for number in range(5):
            [delivery] = await inbox.take(1)
            assert delivery.body == b"%d" % number
            broker.ack(delivery)
        await broker.declare(QueueSpec(name=f"{queue_name}-2", expires=60_000))
        assert published == []
        await run_sync(own_node.clear_alarm)
        for _ in range(2):
            [delivery] = await inbox.take(1)
            broker.ack(delivery)
    await until_depth(broker, queue_name, 0)
    assert [event.reason for event in observed.of(PublishingBlocked)] == ["low on memory"]
    assert observed.of(PublishingResumed) == [PublishingResumed(shown(own_node.port))]
    assert observed.of(BrokerLost) == []


async def test_blocked_broker_can_be_left(own_node: Node, alarmed: tuple[RabbitBroker, Inbox], queue_name: str) -> None:
    """A broker that blocks publishing can be left, and the last acknowledgements are sent."""
    broker, inbox = alarmed
    [delivery] = await inbox.take(1)
    broker.ack(delivery)
    with anyio.fail_after(PATIENCE):
        await broker.__aexit__(None, None, None)
    async with RabbitBroker(own_node.url, Events()) as other:
        await other.connected(PATIENCE)
        await until_depth(other, queue_name, 4)


@pytest.mark.parametrize("which", [0, 1])
async def test_either_connection_ends_both(proxy: Proxy, observed: Events, queue_name: str, which: int) -> None:
    """When either of the two connections is lost, both are opened again."""
    inbox = Inbox()
    told: list[int] = []
    async with RabbitBroker(address(proxy.port), observed) as broker:
        broker.on_disconnect(lambda: told.append(len(observed.of(BrokerLost))))
        await broker.connected(PATIENCE)
        await broker.declare(QueueSpec(name=queue_name, expires=60_000))
        await broker.consume(queue_name, 1, inbox)
        assert len(proxy.connections) == 2
        proxy.connections[which].cut()
        await observed.see(BrokerConnected, 2)
        await broker.publish(message(queue_name))
        await inbox.take(1)
        assert len(proxy.connections) == 4
        [lost] = observed.of(BrokerLost)
        assert lost.reason == "the connection was cut"
        assert told == [0], "the callback comes once, before the event"


# ---- several brokers -----------------------------------------------------------------------------------------


async def test_next_broker_is_tried_at_once(rabbit_node: Node, observed: Events) -> None:
    """The next broker of the URL is tried at once if the first cannot be reached."""
    [nobody] = free_ports(1)
    async with RabbitBroker(f"{address(nobody)};{address(rabbit_node.port)}", observed) as broker:
        await broker.connected(PATIENCE)
    failed, connected = observed.items
    assert isinstance(failed, BrokerConnectFailed)
    assert (failed.url, failed.next_url) == (shown(nobody), shown(rabbit_node.port))
    assert connected == BrokerConnected(shown(rabbit_node.port))


async def test_failover(rabbit_node: Node, proxy: Proxy, observed: Events, queue_name: str) -> None:
    """When the node in use goes, the next one is used, with queues and consumers restored."""
    inbox = Inbox()
    async with RabbitBroker(f"{address(proxy.port)};{address(rabbit_node.port)}", observed) as broker:
        await broker.connected(PATIENCE)
        await broker.declare(QueueSpec(name=queue_name, expires=60_000))
        await broker.consume(queue_name, 1, inbox)
        proxy.refuse()
        proxy.cut()
        await observed.see(BrokerConnected, 2)
        await broker.publish(message(queue_name))
        await inbox.take(1)
    assert [event.url for event in observed.of(BrokerConnected)] == [shown(proxy.port), shown(rabbit_node.port)]


async def test_back_off_after_a_whole_round(observed: Events) -> None:
    """The pause grows only after all brokers of the URL have failed."""
    ports = free_ports(3)
    async with RabbitBroker(";".join(map(address, ports)), observed) as broker:
        await observed.see(BrokerConnectFailed, 6)
        with pytest.raises(BrokerUnavailable) as caught:
            await broker.connected(0)
    rounds = observed.of(BrokerConnectFailed)[:6]
    assert [event.url for event in rounds] == [shown(port) for port in (*ports, *ports)]
    assert [bool(event.next_url) for event in rounds] == [True, True, False] * 2
    assert [event.retry_in > 0 for event in rounds] == [False, False, True] * 2
    assert all(shown(port) in str(caught.value) for port in ports)


async def test_refused_by_one(rabbit_node: Node, observed: Events) -> None:
    """A login that one broker refuses is tried at the next broker."""
    port = rabbit_node.port
    async with RabbitBroker(f"{address(port, 'guest:s3cret')};{address(port)}", observed) as broker:
        await broker.connected(PATIENCE)
    assert "s3cret" not in repr(observed.items)


async def test_refused_by_all(rabbit_node: Node, observed: Events) -> None:
    """When all brokers refuse the login, the error lists each reason and shows no password."""
    wrong = address(rabbit_node.port, "guest:s3cret")
    async with RabbitBroker(f"{wrong};{wrong}", observed) as broker:
        with (
            anyio.fail_after(PATIENCE),
            pytest.raises(BrokerError, match=r"ACCESS_REFUSED.*; .*ACCESS_REFUSED") as caught,
        ):
            await broker.connected(None)
    assert "s3cret" not in str(caught.value) + repr(observed.items)


# ---- silence -------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_half_open_connection(proxy: Proxy, observed: Events, queue_name: str) -> None:
    """A connection on which nothing arrives is given up, and the messages come again on a new one."""
    inbox = Inbox()
    async with RabbitBroker(address(proxy.port), observed, heartbeat=1, connect_timeout=5) as broker:
        await broker.connected(PATIENCE)
        await broker.declare(QueueSpec(name=queue_name, expires=60_000))
        await broker.publish(message(queue_name))
        await broker.consume(queue_name, 1, inbox)
        [held] = await inbox.take(1)
        proxy.stall()
        await observed.see(BrokerConnectFailed, 1, SILENCE)
        proxy.resume()
        [again] = await inbox.take(1, SILENCE)
        assert (again.body, again.redelivered) == (b"0", True)
        broker.ack(held)
        broker.ack(again)
        await until_depth(broker, queue_name, 0)
    silent, unanswered = observed.of(BrokerLost)[0], observed.of(BrokerConnectFailed)[0]
    assert silent.reason == "nothing heard for 6 s, no heartbeat either"
    assert unanswered.reason == "no answer in time"


async def test_slow_network(proxy: Proxy, observed: Events, queue_name: str) -> None:
    """A slow network does not count as a lost connection."""
    proxy.delay = 0.05
    inbox = Inbox()
    async with RabbitBroker(address(proxy.port), observed, connect_timeout=PATIENCE) as broker:
        await broker.connected(PATIENCE)
        await broker.declare(QueueSpec(name=queue_name, expires=60_000))
        await broker.consume(queue_name, 1, inbox)
        await broker.publish(message(queue_name))
        [delivery] = await inbox.take(1)
        broker.ack(delivery)
    assert observed.of(BrokerLost) == []


# ---- what the broker ends ------------------------------------------------------------------------------------


async def test_message_held_too_long(own_node: Node, observed: Events, queue_name: str) -> None:
    """After the broker's consumer timeout the message comes again, and the consumer goes on."""
    inbox = Inbox()
    change = "[application:set_env(rabbit, K, V) || {K, V} <- [{consumer_timeout, %s}, {channel_tick_interval, %s}]]."
    await run_sync(own_node.ctl, "eval", change % (300, 200))
    try:
        async with RabbitBroker(own_node.url, observed) as broker:
            await broker.connected(PATIENCE)
            # RabbitMQ 4.3 looks at quorum queues only
            await broker.declare(QueueSpec(name=queue_name, kind="quorum", expires=60_000))
            await broker.publish(message(queue_name))
            await broker.consume(queue_name, 1, inbox)
            [held] = await inbox.take(1)
            [again] = await inbox.take(1)
            broker.ack(held)
            broker.ack(again)
            await until_depth(broker, queue_name, 0)
    finally:
        await run_sync(own_node.ctl, "eval", change % (1_800_000, 60_000))
    for lost in observed.of(BrokerLost):  # 4.3 ends the consumer alone
        assert "PRECONDITION_FAILED - delivery acknowledgement on channel" in lost.reason


async def test_a_full_queue(rabbit_node: Node, observed: Events, queue_name: str) -> None:
    """A full queue refuses its own messages with QueueFull, and those for other queues are confirmed."""
    full = f"{queue_name}-full"
    with BrokerConsole(rabbit_node.url) as console:
        console.declare(full, {"x-max-length": 1, "x-overflow": "reject-publish"})
        async with RabbitBroker(rabbit_node.url, observed) as broker:
            await broker.connected(PATIENCE)
            await broker.declare(QueueSpec(name=queue_name, expires=60_000))
            mixed = [message(full), message(queue_name), message(full), message(full), message(queue_name)]
            told = await broker.publish_many(mixed)
            assert [type(error) for error in told[1::3]] == [type(None)] * 2
            assert {type(error) for error in told[2:4]} == {QueueFull}
            assert "did not take" in str(told[3])
            await broker.publish(message(queue_name))
            await until_depth(broker, queue_name, 3)
        console.delete(full)


async def cancelled_by_another(session: Session) -> None:
    """End as the client library does: with a cancellation that it has kept, in place of the one that came."""
    with session.guard("publish"):
        session.fail("gone")
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            raise asyncio.CancelledError("the library's") from None


async def test_the_library_cancels_in_the_same_moment(proxy: Proxy, observed: Events) -> None:
    """A cancellation raised inside the client library becomes BrokerUnavailable, not a cancellation of the caller."""
    async with RabbitBroker(address(proxy.port), observed) as broker:
        await broker.connected(PATIENCE)
        session = broker._supervisor.current
        assert session is not None
        with pytest.raises(BrokerUnavailable, match="publish: gone"):
            await cancelled_by_another(session)


async def test_an_exchange_is_declared_again(rabbit_node: Node, observed: Events, queue_name: str) -> None:
    """An exchange that is gone with the lost connection, as after a restart, is there for the next session."""
    async with RabbitBroker(rabbit_node.url, observed) as broker:
        await broker.connected(PATIENCE)
        await broker.declare_exchange(queue_name, durable=False)
        session = broker._supervisor.current
        assert session is not None
        async with session.topology.temporary_channel() as channel:
            await channel._channel.exchange_delete(queue_name)
        with pytest.raises(QueueNotFound, match="no exchange"):
            await broker.publish(Outgoing(body=b"", exchange=queue_name, routing_key="a.b"))
        session.fail("the test ends it")
        await broker.connected(PATIENCE)
        await broker.publish(Outgoing(body=b"", exchange=queue_name, routing_key="a.b"))


async def test_a_private_queue_is_another_each_time(rabbit_node: Node, observed: Events, queue_name: str) -> None:
    """A private queue has a new name in each session, so an old one that is still locked does no harm."""
    inbox = Inbox()
    async with RabbitBroker(rabbit_node.url, observed) as broker, RabbitBroker(rabbit_node.url, observed) as thief:
        for one in (broker, thief):
            await one.connected(PATIENCE)
        spread = Outgoing(body=b"to all", exchange=queue_name, routing_key="", broadcast=True)
        bindings = (Binding(exchange=queue_name, type="fanout", durable=False),)
        await broker.declare(QueueSpec(name=queue_name, private=True, bindings=bindings))
        await broker.consume(queue_name, 0, inbox)
        session = broker._supervisor.current
        assert session is not None
        session.fail("the test ends it")
        # the next session declares the private queue under a new name
        await broker.connected(PATIENCE)
        await broker.publish(spread)
        [delivery] = await inbox.take(1)
        assert delivery.queue == queue_name
        names = await run_sync(rabbit_node.ctl, "list_queues", "name")
        assert f"{queue_name}.{session.number + 1}" in names.split()


# ---- what nothing can help -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("login", "vhost", "why"),
    [("guest:s3cret", "/", "ACCESS_REFUSED"), ("guest:guest", "nowhere", "virtual host 'nowhere' does not exist")],
)
def test_worker_exits_at_once(rabbit_node: Node, queue_name: str, login: str, vhost: str, why: str) -> None:
    """A worker whose login or virtual host is refused exits with one line that says why."""
    with Worker(f"amqp://{login}@127.0.0.1:{rabbit_node.port}/{vhost}", queue_name, ready=0) as worker:
        assert worker.wait() == 1
        [line] = worker.seen("amqp://guest:.*" + why)
        assert line.string.startswith(f"hybridpool: cannot connect to {shown(rabbit_node.port)[:-1]}{vhost}: ")
        assert not worker.seen("Trying again|Traceback|s3cret")


async def test_an_error_of_our_own(
    rabbit_node: Node,
    observed: Events,
    queue_name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An unforeseen error of our own costs one connection, is logged, and the broker connects again."""

    async def fail(*_: object) -> None:
        raise LookupError("unforeseen")

    inbox = Inbox()
    async with RabbitBroker(rabbit_node.url, observed) as broker:
        await broker.connected(PATIENCE)
        await broker.declare(QueueSpec(name=queue_name))
        await broker.consume(queue_name, 1, inbox)
        monkeypatch.setattr(Declarations, "renew", fail)
        await run_sync(rabbit_node.ctl, "delete_queue", queue_name)
        await observed.see(BrokerConnected, 2)
        await broker.publish(Outgoing(body=b"after", routing_key=queue_name, mandatory=True))
        assert [delivery.body for delivery in await inbox.take(1)] == [b"after"]
        await broker.delete(queue_name)
    assert "LookupError: unforeseen" in caplog.text
