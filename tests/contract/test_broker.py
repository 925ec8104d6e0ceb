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
    """Connect, with one queue declared; short-lived, should a test fail to drop it."""
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
    """A property of a Celery message would be lost between two workers."""
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


@pytest.mark.parametrize("size", [0, 1, 200_000, 1_000_000])
async def test_body_of_any_size(broker: Broker, queue_name: str, size: int) -> None:
    """An empty body or one of several frames would come in pieces or hang the channel."""
    inbox = Inbox()
    await broker.publish(Outgoing(body=b"x" * size, routing_key=queue_name))
    await broker.publish(Outgoing(body=b"next", routing_key=queue_name))
    await broker.consume(queue_name, 0, inbox)
    assert seen(await inbox.take(2)) == [b"x" * size, b"next"]


async def test_published_is_stored(broker: Broker, queue_name: str) -> None:
    """`publish` would return before the broker has the message."""
    await fill(broker, queue_name, 3)
    assert await broker.depth(queue_name) == 3


async def test_many_are_stored(broker: Broker, queue_name: str) -> None:
    """Of many messages some would be lost without a word, or come in another order."""
    inbox = Inbox()
    messages = [Outgoing(body=b"%d" % n, routing_key=queue_name, mandatory=n % 2 == 0) for n in range(3000)]
    assert await broker.publish_many(messages) == [None] * 3000
    assert await broker.publish_many([]) == []
    await broker.consume(queue_name, 0, inbox)
    assert seen(await inbox.take(3000)) == [b"%d" % n for n in range(3000)]
    for delivery in inbox.items:
        broker.ack(delivery)


async def test_each_of_many_has_its_own_fate(broker: Broker, queue_name: str) -> None:
    """One message that nobody takes would spoil the others, or pass for delivered."""
    there = Outgoing(body=b"", routing_key=queue_name, mandatory=True)
    nowhere = Outgoing(body=b"", routing_key=f"{queue_name}-nowhere", mandatory=True)
    told = await broker.publish_many([there, nowhere, there, nowhere])
    assert [type(error) for error in told] == [type(None), QueueNotFound, type(None), QueueNotFound]
    assert "NO_ROUTE" in str(told[1])
    assert await broker.depth(queue_name) == 2


async def test_not_waited_for(broker: Broker, queue_name: str) -> None:
    """What is sent without a confirmation would not be sent at all."""
    fire_and_forget = Outgoing(body=b"", routing_key=queue_name, is_confirmed=False)
    await broker.publish(fire_and_forget)
    assert await broker.publish_many([fire_and_forget, fire_and_forget]) == [None, None]
    await until_depth(broker, queue_name, 3)


async def test_never_inside_publish(broker: Broker, queue_name: str) -> None:
    """A consumer would run in the middle of the publisher's step."""
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox)
    for _ in range(3):
        before = len(inbox.items)
        broker.requeue(inbox.items[0]) if inbox.items else None
        assert len(inbox.items) == before
        await broker.publish(Outgoing(body=b"", routing_key=queue_name))


async def test_prefetch_is_the_most(broker: Broker, queue_name: str) -> None:
    """A worker would hoard what others could run."""
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
    """Finished tasks would run again after each restart."""
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
    """`flush` would return while answers still wait here."""
    inbox = Inbox()
    await fill(broker, queue_name, 300)
    await broker.consume(queue_name, 0, inbox)
    for delivery in (await inbox.take(300))[::2]:
        broker.requeue(delivery)
    await broker.cancel(queue_name)
    await broker.flush()
    await until_depth(broker, queue_name, 150 - len(inbox.items))


async def test_requeued_comes_again_in_its_place(broker: Broker, queue_name: str) -> None:
    """A message given back would go to the end of a long queue, or not be known as a second try."""
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
    """An urgent task would wait behind all that came before it."""
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
    """What a stopped worker held would be lost."""
    await fill(broker, queue_name, 3)
    inbox = Inbox()
    async with opened(observed) as other:
        await other.connected(PATIENCE)
        await other.consume(queue_name, 2, inbox)
        await inbox.take(2)
    await until_depth(broker, queue_name, 3)
    await broker.consume(queue_name, 0, inbox)
    assert [(d.body, d.redelivered) for d in await inbox.take(3)] == [(b"0", True), (b"1", True), (b"2", False)]


async def test_prefetch_can_change(broker: Broker, queue_name: str) -> None:
    """The worker could not follow its pool's size, or would lose what it holds when it does."""
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
    """A worker that shuts down would go on taking messages."""
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
    """A shutdown before the start would fail."""
    await broker.cancel(queue_name)


async def test_queues_are_separate(broker: Broker, queue_name: str) -> None:
    """One full queue would keep another from being consumed."""
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
    """One of two workers would get all the work."""
    one, two = Inbox(), Inbox()
    async with opened(observed) as other:
        await other.connected(PATIENCE)
        await broker.consume(queue_name, 0, one)
        await other.consume(queue_name, 0, two)
        await fill(broker, queue_name, 10)
        await one.take(5)
        await two.take(5)


async def test_unroutable_is_told(broker: Broker, queue_name: str) -> None:
    """A message for a queue with a typing error in its name would vanish."""
    nowhere = Outgoing(body=b"", routing_key=f"{queue_name}-nowhere", mandatory=True)
    with pytest.raises(BrokerError, match="nowhere"):
        await broker.publish(nowhere)
    await fill(broker, queue_name, 1)


async def test_unroutable_is_dropped_if_not_mandatory(broker: Broker, queue_name: str) -> None:
    """An answer to a client that is gone would be an error."""
    await broker.publish(Outgoing(body=b"", routing_key=f"{queue_name}-nowhere"))


async def test_unknown_exchange(broker: Broker, queue_name: str) -> None:
    """One wrong message would end the consumers, or all publishing."""
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox)
    with pytest.raises(BrokerError):
        await broker.publish(Outgoing(body=b"", routing_key=queue_name, exchange=f"{queue_name}-none"))
    await fill(broker, queue_name, 1)
    [came] = await inbox.take(1)
    assert came.channel == 1


async def test_missing_queue(broker: Broker, queue_name: str) -> None:
    """A queue that does not exist is `QueueNotFound`, and the consumers of others go on."""
    inbox = Inbox()
    await broker.consume(queue_name, 0, inbox)
    with pytest.raises(QueueNotFound, match="nowhere"):
        await broker.consume(f"{queue_name}-nowhere", 1, inbox)
    with pytest.raises(QueueNotFound, match="nowhere"):
        await broker.depth(f"{queue_name}-nowhere")
    await fill(broker, queue_name, 1)
    await inbox.take(1)


async def test_order_is_kept(broker: Broker, queue_name: str) -> None:
    """Messages would overtake each other on their way to the worker."""
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
    """A task settled twice by mistake would cost the channel and all that is on it."""
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
    """A task that ends after its connection was left would break, or settle another's message."""
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
    """A task with `expires` would run when nobody wants it any more."""
    inbox = Inbox()
    await broker.publish(Outgoing(body=b"old", routing_key=queue_name, expiration=1))
    await until_depth(broker, queue_name, 0)
    await fill(broker, queue_name, 1)
    await broker.consume(queue_name, 0, inbox)
    assert seen(await inbox.take(1)) == [b"0"]


async def test_private_queue_goes_with_its_owner(
    opened: Open, broker: Broker, observed: Events, queue_name: str
) -> None:
    """Reply queues of clients that are gone would pile up in the broker."""
    name = f"{queue_name}-reply"
    async with opened(observed) as other:
        await other.connected(PATIENCE)
        await other.declare(QueueSpec(name=name, private=True))
        await other.publish(Outgoing(body=b"", routing_key=name, mandatory=True))
    await until_missing(broker, name)


async def test_differing_queue_is_used(opened: Open, broker: Broker, observed: Events, queue_name: str) -> None:
    """A worker could not start on a queue that Celery declared with other arguments, or nobody would know of it."""
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
    """A queue that was replaced would stay, or come back with the next reconnect."""
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


async def test_left_is_unavailable(opened: Open, observed: Events, queue_name: str) -> None:
    """Publishing after the end would hang."""
    async with opened(observed) as broker:
        await broker.connected(PATIENCE)
    with pytest.raises(BrokerUnavailable):
        await broker.publish(Outgoing(body=b"", routing_key=queue_name))
    with pytest.raises(BrokerUnavailable):
        await broker.depth(queue_name)
    assert len(observed.of(BrokerConnected)) == 1


async def test_leaves_at_once(opened: Open, observed: Events) -> None:
    """A worker that is told to stop before it has connected would stay."""
    async with AsyncExitStack() as stack:
        with anyio.fail_after(PATIENCE):
            await stack.enter_async_context(opened(observed))
    with anyio.fail_after(PATIENCE):
        await stack.aclose()


async def test_error_in_the_block_comes_out_bare(opened: Open, observed: Events) -> None:
    """Callers would have to look for their own errors in groups."""
    with pytest.raises(KeyError):
        async with opened(observed):
            raise KeyError
