"""Messages that the broker holds back: one suite for every adapter, and what only a real node can do to them."""

import time
from collections.abc import AsyncIterator, Callable, Iterator

import anyio
import pytest
from anyio.to_thread import run_sync

from hybridpool._brokers.base import Broker
from hybridpool._brokers.factory import open_broker
from hybridpool._brokers.memory import MemoryServer
from hybridpool._brokers.rabbitmq import RabbitBroker
from hybridpool._message import Delivery, Outgoing, QueueSpec
from hybridpool.errors import BrokerError
from hybridpool.events import BrokerConnected
from tests.contract.inbox import PATIENCE, Events, Inbox, assert_quiet
from tests.rabbit import Node

pytestmark = pytest.mark.anyio

#: seconds by which the broker's clock and ours, both in whole milliseconds, may differ over a delay
ROUNDING = 0.02
#: seconds for what waits for a node's boot
BOOT = 120.0
#: more than RabbitMQ keeps under way from one queue to the next
MANY = 100

Open = Callable[[Events], Broker]


@pytest.fixture(params=["memory", "rabbitmq"])
def opened(request: pytest.FixtureRequest) -> Open:
    """Return what makes connections to one and the same broker."""
    if request.param == "memory":
        server = MemoryServer()
        return lambda observed: open_broker("memory://", observed, server=server)
    url = request.getfixturevalue("broker_url")
    open_broker(url, Events())  # imports the driver, here and not on the loop
    return lambda observed: open_broker(url, observed, name=request.node.name)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may leave a task that died unseen."""
    yield
    assert_quiet(caplog)


@pytest.fixture
async def broker(opened: Open, queue_name: str) -> AsyncIterator[Broker]:
    """Connect, with one queue declared."""
    async with opened(Events()) as connection:
        await connection.connected(PATIENCE)
        await connection.declare(spec(queue_name))
        yield connection


@pytest.fixture
def own_node() -> Iterator[Node]:
    """A node for one test."""
    with Node("victim") as node:
        yield node


def spec(name: str) -> QueueSpec:
    """Return a queue that the broker drops a minute after its last consumer."""
    return QueueSpec(name=name, expires=60_000)


def delayed(queue: str, delay: int, body: bytes = b"0") -> Outgoing:
    """Return a message to be held back."""
    return Outgoing(body=body, routing_key=queue, delay=delay, mandatory=True)


def seen(deliveries: list[Delivery]) -> list[bytes]:
    """Return the deliveries' bodies."""
    return [delivery.body for delivery in deliveries]


async def assert_empty(broker: Broker, queue: str, inbox: Inbox) -> None:
    """Fail if anything else was on its way to the queue: what is sent now comes after it."""
    await broker.publish(Outgoing(body=b"the last", routing_key=queue))
    assert seen(await inbox.take(1)) == [b"the last"]


@pytest.mark.parametrize("delay", [1, 2])
async def test_not_before_its_time(broker: Broker, queue_name: str, delay: int) -> None:
    """A delayed message arrives once, and not before its time."""
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox)
    began = time.monotonic()
    await broker.publish(delayed(queue_name, delay))
    [came] = await inbox.take(1)
    assert time.monotonic() - began >= delay - ROUNDING
    assert (came.queue, came.redelivered) == (queue_name, False)
    await assert_empty(broker, queue_name, inbox)


async def test_in_the_order_of_their_times(broker: Broker, queue_name: str) -> None:
    """Delayed messages arrive in the order of their times, and none is lost."""
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox)
    async with anyio.create_task_group() as group:
        for number in range(MANY):
            group.start_soon(broker.publish, delayed(queue_name, 10, b"later %d" % number))
            group.start_soon(broker.publish, delayed(queue_name, 1, b"sooner %d" % number))
    came = seen(await inbox.take(2 * MANY))
    # at once: in no order
    assert set(came[:MANY]) == {b"sooner %d" % number for number in range(MANY)}
    assert set(came[MANY:]) == {b"later %d" % number for number in range(MANY)}


async def test_outlives_its_publisher(opened: Open, broker: Broker, queue_name: str) -> None:
    """A delayed message arrives after its publisher has gone."""
    async with opened(Events()) as other:
        await other.connected(PATIENCE)
        await other.publish(delayed(queue_name, 1))
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox)
    assert seen(await inbox.take(1)) == [b"0"]


async def test_confirmed_is_held(broker: Broker, queue_name: str) -> None:
    """`publish` returns when the broker holds the delayed message, and not at the end of its delay."""
    await broker.publish(delayed(queue_name, 3600))
    assert await broker.depth(queue_name) == 0


async def test_names_with_dots(broker: Broker, queue_name: str) -> None:
    """Delayed messages for queues whose names end alike each reach their own queue."""
    names = [queue_name, f"shop.{queue_name}", f"1.{queue_name}", f"{queue_name}.low"]
    inboxes = [Inbox() for _ in names]
    for name, inbox in zip(names, inboxes, strict=True):
        await broker.declare(spec(name))
        await broker.consume(name, 0, inbox)
        await broker.publish(delayed(name, 1, b"too soon for those that follow"))
    for inbox in inboxes:
        await inbox.take(1)
    for name in names:
        await broker.publish(delayed(name, 1, name.encode()))
    for name, inbox in zip(names, inboxes, strict=True):
        assert seen(await inbox.take(1)) == [name.encode()]
    for name, inbox in zip(names, inboxes, strict=True):
        await assert_empty(broker, name, inbox)


async def test_missing_queue(broker: Broker, queue_name: str) -> None:
    """A delayed message for a missing queue is refused, and works once the queue is declared."""
    nowhere = f"{queue_name}-nowhere"
    for delay in (1, 3600):
        with pytest.raises(BrokerError, match=f"no queue takes a message for {nowhere}"):
            await broker.publish(delayed(nowhere, delay))
    inbox = Inbox()
    await broker.declare(spec(nowhere))
    await broker.consume(nowhere, 0, inbox)
    await broker.publish(delayed(nowhere, 1))
    await inbox.take(1)


async def test_queue_made_again(broker: Broker, queue_name: str) -> None:
    """A queue that was deleted and declared again gets delayed messages."""
    inbox = Inbox()
    await broker.publish(delayed(queue_name, 1, b"before"))
    await broker.delete(queue_name)
    with pytest.raises(BrokerError, match=queue_name):
        await broker.publish(delayed(queue_name, 1))
    await broker.declare(spec(queue_name))
    await broker.consume(queue_name, 0, inbox)
    await broker.publish(delayed(queue_name, 1, b"after"))
    await inbox.until(lambda items: b"after" in seen(items))


async def test_deleted_queue_stops_nobody(broker: Broker, queue_name: str) -> None:
    """Delayed messages for a deleted queue do not hold up those of other queues."""
    gone, inbox = f"{queue_name}-gone", Inbox()
    await broker.declare(spec(gone))
    async with anyio.create_task_group() as group:
        for _ in range(MANY):
            group.start_soon(broker.publish, delayed(gone, 1))
    await broker.delete(gone)
    await broker.consume(queue_name, 0, inbox)
    await broker.publish(delayed(queue_name, 1))
    await inbox.take(1)


async def test_nothing_else_changes(broker: Broker, queue_name: str) -> None:
    """Body, headers and properties of a delayed message arrive as they were sent."""
    headers = {"task": "shop.resize", "retries": 2, "eta": None, "timelimit": [30, None], "deep": {"a": "ä", "b": True}}
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox)
    await broker.publish(
        Outgoing(
            body=b"\x00\xff[]" * 100_000,
            routing_key=queue_name,
            headers=headers,
            content_type="application/x-test",
            content_encoding="binary",
            correlation_id="c-1",
            reply_to="answers",
            priority=3,
            delay=1,
        )
    )
    [came] = await inbox.take(1)
    of_the_broker = ("x-death", "x-first-death-", "x-last-death-")
    assert {name: value for name, value in came.headers.items() if not name.startswith(of_the_broker)} == headers
    assert (came.queue, came.body) == (queue_name, b"\x00\xff[]" * 100_000)
    assert (came.content_type, came.content_encoding) == ("application/x-test", "binary")
    assert (came.correlation_id, came.reply_to, came.priority) == ("c-1", "answers", 3)


async def test_beyond_the_longest(broker: Broker, queue_name: str) -> None:
    """A delay of a century is accepted, and its message does not arrive early."""
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox)
    await broker.publish(delayed(queue_name, 100 * 365 * 24 * 3600))
    await broker.publish(delayed(queue_name, 1, b"soon"))
    assert seen(await inbox.take(1)) == [b"soon"]
    await assert_empty(broker, queue_name, inbox)


# ---- one node's faults -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("hard", [False, True], ids=["stopped", "killed"])
async def test_node_restarts_meanwhile(own_node: Node, queue_name: str, hard: bool) -> None:
    """Delayed messages survive a stop and a kill of the node."""
    observed, inbox = Events(), Inbox()
    async with RabbitBroker(own_node.url, observed) as broker:
        await broker.connected(PATIENCE)
        await broker.declare(QueueSpec(name=queue_name))
        # RabbitMQ 3.10 may forget what lies in a queue that is younger than about a second when it is killed, on a busy
        # machine in an older one too: each of its queues is in use for some seconds before
        for seconds in (1, 2, 4, 8):
            await broker.publish(delayed(queue_name, seconds, b"first"))
        await until_depth_at_least(broker, queue_name, 3)
        bodies = {b"%d" % number for number in range(MANY)}
        async with anyio.create_task_group() as group:
            for number, body in enumerate(bodies):
                group.start_soon(broker.publish, delayed(queue_name, 1 + number % 12, body))
        await until_depth_at_least(broker, queue_name, 4)
        await run_sync(lambda: own_node.restart(hard=hard))
        await observed.see(BrokerConnected, 2, BOOT)
        await broker.consume(queue_name, 0, inbox)
        # From one queue to the next messages go at least once (`x-dead-letter-strategy`): a node that goes, in order or
        # not, between the arrival in the next queue and the end in the last hands some over twice.
        await inbox.until(lambda items: set(seen(items)) - {b"first"} == bodies, BOOT)


async def test_dead_ones_are_kept(broker_url: str, queue_name: str) -> None:
    """A delayed message whose queue was deleted is kept in the dead-letter queue of the delays."""
    async with RabbitBroker(broker_url, Events()) as broker:
        await broker.connected(PATIENCE)
        await broker.declare(spec(queue_name))
        await broker.publish(delayed(queue_name, 1, queue_name.encode()))
        await broker.delete(queue_name)
        inbox = Inbox()
        await broker.consume("hybridpool_delayed.dead", 0, inbox)
        await inbox.until(lambda items: queue_name.encode() in seen(items))


async def until_depth_at_least(broker: Broker, queue: str, depth: int) -> None:
    """Wait until that many messages are ready; each look is a round trip to the broker."""
    with anyio.fail_after(PATIENCE):
        while await broker.depth(queue) < depth:
            pass
