"""The broker port: one suite for every adapter."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import anyio
import pytest

from hybridpool._brokers.base import Broker
from hybridpool._brokers.factory import open_broker
from hybridpool._brokers.memory import MemoryServer
from hybridpool._message import Binding, Delivery, ExchangeType, Outgoing, QueueSpec
from hybridpool.errors import BrokerError, BrokerUnavailable, QueueNotFound
from hybridpool.events import BrokerConnected, QueueDiffers
from tests.contract.inbox import PATIENCE, Events, Inbox, assert_quiet, until_depth, until_missing

pytestmark = pytest.mark.anyio

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
def observed() -> Events:
    """Collect what the broker under test announces."""
    return Events()


@pytest.fixture
async def broker(opened: Open, observed: Events, queue_name: str) -> AsyncIterator[Broker]:
    """Connect, with one queue declared, which expires if a test does not delete it."""
    async with opened(observed) as connection:
        await connection.connected(PATIENCE)
        await connection.declare(spec(queue_name))
        yield connection


def spec(name: str) -> QueueSpec:
    """Return a queue that the broker drops a minute after its last consumer."""
    return QueueSpec(name=name, expires=60_000)


async def fill(broker: Broker, queue: str, number: int) -> None:
    """Publish messages whose bodies are 0, 1, 2 …"""
    for body in bodies(number):
        await broker.publish(Outgoing(body=body, routing_key=queue))


def bodies(number: int, start: int = 0) -> list[bytes]:
    """Return the bodies that `fill` publishes."""
    return [b"%d" % index for index in range(start, start + number)]


def seen(deliveries: list[Delivery]) -> list[bytes]:
    """Return the deliveries' bodies."""
    return [delivery.body for delivery in deliveries]


async def test_round_trip(broker: Broker, queue_name: str) -> None:
    """Body, headers and properties of a message arrive as they were sent."""
    headers = {"task": "shop.resize", "retries": 2, "eta": None, "timelimit": [30, None], "deep": {"a": "ä", "b": True}}
    inbox = Inbox()
    await broker.publish(
        Outgoing(
            body=b"\x00\xff[]",
            routing_key=queue_name,
            headers=headers,
            content_type="application/x-test",
            content_encoding="binary",
            correlation_id="c-1",
            reply_to="answers",
            priority=3,
            mandatory=True,
        )
    )
    await broker.consume(queue_name, 1, inbox)
    [came] = await inbox.take(1)
    assert came.headers == headers
    assert (came.queue, came.exchange, came.routing_key) == (queue_name, "", queue_name)
    assert (came.content_type, came.content_encoding) == ("application/x-test", "binary")
    assert (came.correlation_id, came.reply_to, came.priority) == ("c-1", "answers", 3)
    assert (came.body, came.redelivered) == (b"\x00\xff[]", False)


async def test_headers_are_read_again(broker: Broker, queue_name: str) -> None:
    """A message that was made slim while its task waits has the headers that it had, and its correlation id."""
    headers = {"task": "shop.resize", "retries": 2, "eta": None, "timelimit": [30, None]}
    inbox = Inbox()
    await broker.publish(
        Outgoing(body=b"[]", routing_key=queue_name, headers=headers, correlation_id="c-1", mandatory=True)
    )
    await broker.consume(queue_name, 1, inbox)
    [came] = await inbox.take(1)
    came.slim("c-1")
    assert (came.headers, came.correlation_id) == (headers, "c-1")


@pytest.mark.parametrize("size", [0, 1, 200_000, 1_000_000])
async def test_body_of_any_size(broker: Broker, queue_name: str, size: int) -> None:
    """A body of any size, empty or of several frames, arrives whole."""
    inbox = Inbox()
    await broker.publish(Outgoing(body=b"x" * size, routing_key=queue_name))
    await broker.publish(Outgoing(body=b"next", routing_key=queue_name))
    await broker.consume(queue_name, 0, inbox)
    assert seen(await inbox.take(2)) == [b"x" * size, b"next"]


async def test_published_is_stored(broker: Broker, queue_name: str) -> None:
    """`publish` returns when the broker has the message."""
    await fill(broker, queue_name, 3)
    assert await broker.depth(queue_name) == 3


async def test_many_are_stored(broker: Broker, queue_name: str) -> None:
    """`publish_many` stores all messages in their order."""
    inbox = Inbox()
    messages = [Outgoing(body=b"%d" % n, routing_key=queue_name, mandatory=n % 2 == 0) for n in range(3000)]
    assert await broker.publish_many(messages) == [None] * 3000
    assert await broker.publish_many([]) == []
    await broker.consume(queue_name, 0, inbox)
    assert seen(await inbox.take(3000)) == [b"%d" % n for n in range(3000)]
    for delivery in inbox.items:
        broker.ack(delivery)


async def test_each_of_many_has_its_own_fate(broker: Broker, queue_name: str) -> None:
    """Each of many messages succeeds or fails by itself."""
    there = Outgoing(body=b"", routing_key=queue_name, mandatory=True)
    nowhere = Outgoing(body=b"", routing_key=f"{queue_name}-nowhere", mandatory=True)
    told = await broker.publish_many([there, nowhere, there, nowhere])
    assert [type(error) for error in told] == [type(None), QueueNotFound, type(None), QueueNotFound]
    assert "NO_ROUTE" in str(told[1])
    assert await broker.depth(queue_name) == 2


async def test_not_waited_for(broker: Broker, queue_name: str) -> None:
    """A message without confirmation is sent as well."""
    fire_and_forget = Outgoing(body=b"", routing_key=queue_name, is_confirmed=False)
    await broker.publish(fire_and_forget)
    assert await broker.publish_many([fire_and_forget, fire_and_forget]) == [None, None]
    await until_depth(broker, queue_name, 3)


async def test_never_inside_publish(broker: Broker, queue_name: str) -> None:
    """A consumer is never called inside `publish` or `requeue`."""
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox)
    for _ in range(3):
        before = len(inbox.items)
        broker.requeue(inbox.items[0]) if inbox.items else None
        assert len(inbox.items) == before
        await broker.publish(Outgoing(body=b"", routing_key=queue_name))


async def test_prefetch_is_the_most(broker: Broker, queue_name: str) -> None:
    """A consumer holds at most `prefetch` unsettled messages."""
    inbox = Inbox()
    await fill(broker, queue_name, 10)
    await broker.consume(queue_name, 3, inbox)
    first = await inbox.take(3)
    await until_depth(broker, queue_name, 7)
    assert inbox.items == []
    broker.ack(first[1])
    assert seen(await inbox.take(1)) == [b"3"]
    await until_depth(broker, queue_name, 6)
    assert inbox.items == []


async def test_acknowledged_is_gone(opened: Open, broker: Broker, observed: Events, queue_name: str) -> None:
    """An acknowledged message does not come again, and one that is not does, marked as redelivered."""
    await fill(broker, queue_name, 5)
    async with opened(observed) as other:
        inbox = Inbox()
        await other.connected(PATIENCE)
        await other.consume(queue_name, 0, inbox)
        came = await inbox.take(5)
        for index in (4, 0, 2, 1):
            other.ack(came[index])
    await until_depth(broker, queue_name, 1)
    await broker.consume(queue_name, 0, inbox)
    [left] = await inbox.take(1)
    assert (left.body, left.redelivered) == (b"3", True)


async def test_flushed_is_settled(broker: Broker, queue_name: str) -> None:
    """`flush` returns when all answers have been sent."""
    inbox = Inbox()
    await fill(broker, queue_name, 300)
    await broker.consume(queue_name, 0, inbox)
    for delivery in (await inbox.take(300))[::2]:
        broker.requeue(delivery)
    await broker.cancel(queue_name)
    await broker.flush()
    await until_depth(broker, queue_name, 150 - len(inbox.items))


async def test_requeued_comes_again_in_its_place(broker: Broker, queue_name: str) -> None:
    """A requeued message comes again, marked as redelivered, before later ones."""
    inbox = Inbox()
    await fill(broker, queue_name, 4)
    await broker.consume(queue_name, 2, inbox)
    zero, one = await inbox.take(2)
    broker.requeue(one)
    broker.requeue(zero)
    again = await inbox.take(2)
    assert sorted(seen(again)) == [b"0", b"1"]
    assert all(delivery.redelivered for delivery in again)


async def test_rejected_is_gone(broker: Broker, queue_name: str) -> None:
    """A rejected message is not delivered again; the ones around it are settled as they were answered."""
    inbox = Inbox()
    await fill(broker, queue_name, 4)
    await broker.consume(queue_name, 0, inbox)
    came = await inbox.take(4)
    broker.reject(came[0])
    broker.reject(came[1])
    broker.requeue(came[2])
    broker.ack(came[3])
    [again] = await inbox.take(1)
    assert (again.body, again.redelivered) == (b"2", True)
    broker.reject(again)
    broker.requeue(again)
    await broker.answers_read()
    await broker.cancel(queue_name)
    assert await broker.depth(queue_name) == 0
    assert inbox.items == []


@pytest.mark.parametrize("key", [None, "dead.one"])
async def test_rejected_is_dead_lettered(broker: Broker, queue_name: str, key: str | None) -> None:
    """A rejected message goes where its queue's arguments say, with the routing key that they name or its own."""
    inbox, source, dead = Inbox(), f"{queue_name}-source", f"{queue_name}-dead"
    exchange = f"{queue_name}-dlx"
    binding = Binding(exchange=exchange, type="topic", routing_key=key or source, durable=False)
    await broker.declare(QueueSpec(name=dead, expires=60_000, bindings=(binding,)))
    arguments = {"x-dead-letter-exchange": exchange, **({"x-dead-letter-routing-key": key} if key else {})}
    await broker.declare(QueueSpec(name=source, expires=60_000, arguments=arguments))
    await fill(broker, source, 2)
    await broker.consume(source, 0, inbox)
    rejected, acknowledged = await inbox.take(2)
    broker.reject(rejected)
    broker.ack(acknowledged)
    await until_depth(broker, dead, 1)
    await broker.consume(dead, 0, inbox)
    [came] = await inbox.take(1)
    assert (came.queue, came.body, came.exchange, came.routing_key) == (dead, b"0", exchange, key or source)


async def test_arguments_of_a_queue(opened: Open, broker: Broker, observed: Events, queue_name: str) -> None:
    """Arguments are part of a queue's declaration: another value is a queue that differs."""
    name = f"{queue_name}-arguments"
    await broker.declare(QueueSpec(name=name, expires=60_000, arguments={"x-max-priority": 3}))
    await broker.declare(QueueSpec(name=name, expires=60_000, arguments={"x-max-priority": 3}))
    assert observed.of(QueueDiffers) == []
    await broker.declare(QueueSpec(name=name, expires=60_000, arguments={"x-max-priority": 4}))
    assert [event.queue for event in observed.of(QueueDiffers)] == [name]


@pytest.mark.parametrize(
    ("type", "key", "taken"),
    [
        ("topic", "task.*", ["task.failed", "task.retried"]),
        ("topic", "#", ["task", "task.failed", "task.failed.twice", "task.retried", "worker.failed"]),
        ("topic", "#.failed", ["task.failed", "worker.failed"]),
        ("topic", "task.#", ["task", "task.failed", "task.failed.twice", "task.retried"]),
        ("topic", "*.failed.#", ["task.failed", "task.failed.twice", "worker.failed"]),
        ("direct", "task.failed", ["task.failed"]),
        ("direct", "task.*", []),
        ("fanout", "", ["task", "task.failed", "task.failed.twice", "task.retried", "worker.failed"]),
    ],
)
async def test_bindings(broker: Broker, queue_name: str, type: ExchangeType, key: str, taken: list[str]) -> None:
    """A queue gets the messages of an exchange whose routing key its binding matches."""
    inbox, exchange, name = Inbox(), f"{queue_name}-exchange", f"{queue_name}-bound"
    binding = Binding(exchange=exchange, type=type, routing_key=key, durable=False)
    await broker.declare(QueueSpec(name=name, expires=60_000, bindings=(binding,)))
    keys = ["task", "task.failed", "task.failed.twice", "task.retried", "worker.failed"]
    for each in keys:
        await broker.publish(Outgoing(body=each.encode(), exchange=exchange, routing_key=each))
    # goes the same way as the others, and comes last
    await broker.publish(Outgoing(body=b"end", exchange="", routing_key=name))
    await broker.consume(name, 0, inbox)
    await inbox.until(lambda came: any(delivery.body == b"end" for delivery in came))
    assert [delivery.routing_key for delivery in inbox.items if delivery.exchange] == taken
    assert {delivery.exchange for delivery in inbox.items} <= {exchange, ""}


async def test_two_bindings_are_one_message(broker: Broker, queue_name: str) -> None:
    """A queue gets a message once, however many of its bindings match; each queue gets its own."""
    one, two = f"{queue_name}-one", f"{queue_name}-two"
    exchange = f"{queue_name}-exchange"
    bindings = tuple(
        Binding(exchange=exchange, type="topic", routing_key=key, durable=False) for key in ("a.*", "*.b", "a.b")
    )
    await broker.declare(QueueSpec(name=one, expires=60_000, bindings=bindings))
    await broker.declare(QueueSpec(name=two, expires=60_000, bindings=bindings[:1]))
    await broker.publish(Outgoing(body=b"", exchange=exchange, routing_key="a.b", mandatory=True))
    await broker.publish(Outgoing(body=b"", exchange=exchange, routing_key="c.b", mandatory=True))
    await until_depth(broker, one, 2)
    await until_depth(broker, two, 1)


async def test_declared_exchange(broker: Broker, queue_name: str) -> None:
    """A message for an exchange without queues is dropped in silence, or an error if it is mandatory."""
    exchange = f"{queue_name}-exchange"
    await broker.declare_exchange(exchange, durable=False)
    await broker.declare_exchange(exchange, durable=False)
    await broker.publish(Outgoing(body=b"", exchange=exchange, routing_key="a.b"))
    with pytest.raises(QueueNotFound, match="NO_ROUTE"):
        await broker.publish(Outgoing(body=b"", exchange=exchange, routing_key="a.b", mandatory=True))
    # one of another type is used as it is
    await broker.declare_exchange(exchange, "fanout", durable=False)
    await broker.declare(
        QueueSpec(
            name=f"{queue_name}-bound",
            expires=60_000,
            bindings=(Binding(exchange=exchange, type="topic", routing_key="a.*", durable=False),),
        )
    )
    await broker.publish(Outgoing(body=b"", exchange=exchange, routing_key="a.b", mandatory=True))
    await until_depth(broker, f"{queue_name}-bound", 1)


async def test_priority(broker: Broker, queue_name: str) -> None:
    """Messages come in the order of their priority."""
    inbox, queue_name = Inbox(), f"{queue_name}-ranked"
    await broker.declare(QueueSpec(name=queue_name, max_priority=5))
    try:
        for body, priority in ((b"low", 0), (b"none", None), (b"high", 5), (b"beyond", 9), (b"middle", 2)):
            await broker.publish(Outgoing(body=body, routing_key=queue_name, priority=priority))
        await broker.consume(queue_name, 1, inbox)
        came: list[bytes] = []
        for _ in range(5):
            [delivery] = await inbox.take(1)
            came.append(delivery.body)
            broker.ack(delivery)
        assert came == [b"high", b"beyond", b"middle", b"low", b"none"]
    finally:
        await broker.delete(queue_name)


async def test_unsettled_goes_back_when_left(opened: Open, broker: Broker, observed: Events, queue_name: str) -> None:
    """Unsettled messages go back to their places in the queue when the broker is left."""
    await fill(broker, queue_name, 3)
    inbox = Inbox()
    async with opened(observed) as other:
        await other.connected(PATIENCE)
        await other.consume(queue_name, 2, inbox)
        await inbox.take(2)
    await until_depth(broker, queue_name, 3)
    await broker.consume(queue_name, 0, inbox)
    assert [(d.body, d.redelivered) for d in await inbox.take(3)] == [(b"0", True), (b"1", True), (b"2", False)]


async def test_requeues_in_place(broker: Broker, queue_name: str) -> None:
    """A queue that is as declared takes requeued messages back to their places, and says so."""
    assert await broker.requeues_in_place(spec(queue_name))
    inbox = Inbox()
    await fill(broker, queue_name, 4)
    await broker.consume(queue_name, 3, inbox)
    held = await inbox.take(3)
    await broker.cancel(queue_name)
    for delivery in held:
        broker.requeue(delivery)
    await until_depth(broker, queue_name, 4)
    await broker.consume(queue_name, 4, inbox)
    assert seen(await inbox.take(4)) == bodies(4)


async def test_prefetch_can_change(broker: Broker, queue_name: str) -> None:
    """The prefetch count can change while messages are held, and no consumer of before stays."""
    inbox = Inbox()
    await fill(broker, queue_name, 10)
    await broker.consume(queue_name, 1, inbox)
    held = await inbox.take(1)
    await broker.consume(queue_name, 4, inbox)
    await until_depth(broker, queue_name, 5)
    held += await inbox.take(4)
    assert seen(held) == bodies(5)
    await broker.consume(queue_name, 1, inbox)
    for delivery in held:
        broker.ack(delivery)
    # one by one: the consumers of before must not be there any more
    for expected in bodies(5, start=5):
        [delivery] = await inbox.take(1)
        assert delivery.body == expected
        broker.ack(delivery)
    await until_depth(broker, queue_name, 0)


async def test_cancelled_gets_nothing(broker: Broker, queue_name: str) -> None:
    """A cancelled consumer gets nothing more, and what it holds can still be acknowledged."""
    inbox = Inbox()
    await fill(broker, queue_name, 2)
    await broker.consume(queue_name, 1, inbox)
    [held] = await inbox.take(1)
    await broker.cancel(queue_name)
    broker.ack(held)
    await broker.flush()
    assert await broker.depth(queue_name) == 1
    assert inbox.items == []


async def test_cancel_of_nothing(broker: Broker, queue_name: str) -> None:
    """Cancelling a queue that is not consumed does nothing."""
    await broker.cancel(queue_name)


async def test_queues_are_separate(broker: Broker, queue_name: str) -> None:
    """Queues are consumed independently, each with its own prefetch count."""
    one, two = Inbox(), Inbox()
    other = f"{queue_name}-2"
    await broker.declare(spec(other))
    await fill(broker, queue_name, 3)
    await broker.consume(queue_name, 1, one)
    await broker.consume(other, 2, two)
    await fill(broker, other, 2)
    assert {delivery.queue for delivery in await two.take(2)} == {other}
    assert {delivery.queue for delivery in await one.take(1)} == {queue_name}
    await broker.cancel(queue_name)
    await fill(broker, other, 1)
    assert two.items == []


async def test_consumers_take_turns(opened: Open, broker: Broker, observed: Events, queue_name: str) -> None:
    """Two consumers of one queue share its messages equally."""
    one, two = Inbox(), Inbox()
    async with opened(observed) as other:
        await other.connected(PATIENCE)
        await broker.consume(queue_name, 0, one)
        await other.consume(queue_name, 0, two)
        await fill(broker, queue_name, 10)
        await one.take(5)
        await two.take(5)


async def test_unroutable_is_told(broker: Broker, queue_name: str) -> None:
    """A mandatory message that no queue takes raises an error that names the queue."""
    nowhere = Outgoing(body=b"", routing_key=f"{queue_name}-nowhere", mandatory=True)
    with pytest.raises(BrokerError, match="nowhere"):
        await broker.publish(nowhere)
    await fill(broker, queue_name, 1)


async def test_unroutable_is_dropped_if_not_mandatory(broker: Broker, queue_name: str) -> None:
    """A message that is not mandatory and that no queue takes is dropped without an error."""
    await broker.publish(Outgoing(body=b"", routing_key=f"{queue_name}-nowhere"))


async def test_unknown_exchange(broker: Broker, queue_name: str) -> None:
    """An unknown exchange fails the one message, and consumers and publishing go on."""
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox)
    with pytest.raises(BrokerError):
        await broker.publish(Outgoing(body=b"", routing_key=queue_name, exchange=f"{queue_name}-none"))
    await fill(broker, queue_name, 1)
    [came] = await inbox.take(1)
    assert came.channel == 1


async def test_missing_queue(broker: Broker, queue_name: str) -> None:
    """Consuming or measuring a missing queue raises an error that names it, and other consumers go on."""
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox)
    with pytest.raises(QueueNotFound, match="nowhere"):
        await broker.consume(f"{queue_name}-nowhere", 1, inbox)
    with pytest.raises(QueueNotFound, match="nowhere"):
        await broker.depth(f"{queue_name}-nowhere")
    await fill(broker, queue_name, 1)
    await inbox.take(1)


async def test_order_is_kept(broker: Broker, queue_name: str) -> None:
    """Messages reach the consumer in the order in which they were published."""
    inbox = Inbox()
    got: list[bytes] = []

    def settle_at_once(delivery: Delivery) -> None:
        got.append(delivery.body)
        broker.ack(delivery)
        if len(got) == 2000:
            inbox(delivery)

    await broker.consume(queue_name, 50, settle_at_once)
    async with anyio.create_task_group() as group:
        for body in bodies(2000):
            group.start_soon(broker.publish, Outgoing(body=body, routing_key=queue_name))
    await inbox.take(1)
    assert got == bodies(2000)


async def test_second_answer_is_ignored(broker: Broker, queue_name: str) -> None:
    """A second answer for a delivery is ignored, and the channel stays open."""
    inbox = Inbox()
    await fill(broker, queue_name, 2)
    await broker.consume(queue_name, 1, inbox)
    [zero] = await inbox.take(1)
    broker.ack(zero)
    broker.requeue(zero)
    [one] = await inbox.take(1)
    broker.ack(zero)
    broker.ack(one)
    await fill(broker, queue_name, 1)
    [again] = await inbox.take(1)
    assert (one.body, again.body, again.channel) == (b"1", b"0", 1)


async def test_late_answer_is_ignored(opened: Open, broker: Broker, observed: Events, queue_name: str) -> None:
    """An answer after the broker was left is ignored."""
    inbox = Inbox()
    await fill(broker, queue_name, 1)
    async with opened(observed) as other:
        await other.connected(PATIENCE)
        await other.consume(queue_name, 1, inbox)
        [late] = await inbox.take(1)
    other.ack(late)
    other.requeue(late)
    await until_depth(broker, queue_name, 1)


async def test_expired_is_not_delivered(broker: Broker, queue_name: str) -> None:
    """An expired message is not delivered."""
    inbox = Inbox()
    await broker.publish(Outgoing(body=b"old", routing_key=queue_name, expiration=1))
    await until_depth(broker, queue_name, 0)
    await fill(broker, queue_name, 1)
    await broker.consume(queue_name, 0, inbox)
    assert seen(await inbox.take(1)) == [b"0"]


async def test_private_queue_goes_with_its_owner(
    opened: Open, broker: Broker, observed: Events, queue_name: str
) -> None:
    """A private queue is deleted when its owner leaves."""
    name = f"{queue_name}-reply"
    async with opened(observed) as other:
        await other.connected(PATIENCE)
        await other.declare(QueueSpec(name=name, private=True))
        await other.publish(Outgoing(body=b"", routing_key=name, mandatory=True))
    await until_missing(broker, name)


async def test_differing_queue_is_used(opened: Open, broker: Broker, observed: Events, queue_name: str) -> None:
    """A queue that exists with other arguments is used as it is, and reported once."""
    await fill(broker, queue_name, 1)
    own, inbox = Events(), Inbox()
    async with opened(own) as other:
        await other.connected(PATIENCE)
        await other.declare(QueueSpec(name=queue_name, expires=99_000))
        await other.declare(QueueSpec(name=queue_name, expires=99_000))
        await other.consume(queue_name, 1, inbox)
        await inbox.take(1)
    [differs] = own.of(QueueDiffers)
    assert differs.queue == queue_name
    assert "expires" in differs.reason
    assert observed.of(QueueDiffers) == []


async def test_deleted_is_gone(broker: Broker, queue_name: str) -> None:
    """A deleted queue is gone with its messages, and can be declared again."""
    inbox = Inbox()
    await fill(broker, queue_name, 2)
    await broker.consume(queue_name, 1, inbox)
    [held] = await inbox.take(1)
    await broker.delete(queue_name)
    await until_missing(broker, queue_name)
    broker.ack(held)
    await broker.delete(queue_name)
    await broker.declare(spec(queue_name))
    await fill(broker, queue_name, 1)
    assert await broker.depth(queue_name) == 1
    assert inbox.items == []


async def test_purged_is_empty(broker: Broker, queue_name: str) -> None:
    """A purge deletes what is ready, says how many that were, and leaves what was delivered."""
    inbox = Inbox()
    await fill(broker, queue_name, 3)
    await broker.consume(queue_name, 1, inbox)
    [held] = await inbox.take(1)
    assert await broker.purge(queue_name) == 2
    assert await broker.depth(queue_name) == 0
    await broker.cancel(queue_name)
    broker.requeue(held)
    await broker.answers_read()
    assert await broker.depth(queue_name) == 1
    with pytest.raises(QueueNotFound):
        await broker.purge(f"{queue_name}.missing")


async def test_left_is_unavailable(opened: Open, observed: Events, queue_name: str) -> None:
    """Using a broker after it was left raises BrokerUnavailable."""
    async with opened(observed) as broker:
        await broker.connected(PATIENCE)
    with pytest.raises(BrokerUnavailable):
        await broker.publish(Outgoing(body=b"", routing_key=queue_name))
    with pytest.raises(BrokerUnavailable):
        await broker.depth(queue_name)
    assert len(observed.of(BrokerConnected)) == 1


async def test_leaves_at_once(opened: Open, observed: Events) -> None:
    """A broker can be left before it has connected."""
    async with AsyncExitStack() as stack:
        with anyio.fail_after(PATIENCE):
            await stack.enter_async_context(opened(observed))
    with anyio.fail_after(PATIENCE):
        await stack.aclose()


async def test_error_in_the_block_comes_out_bare(opened: Open, observed: Events) -> None:
    """An error in the block comes out as it is, not in a group."""
    with pytest.raises(KeyError):
        async with opened(observed):
            raise KeyError
