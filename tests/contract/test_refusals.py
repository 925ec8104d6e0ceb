"""What a broker refuses, and how each refusal is told from the others: one suite for every adapter."""

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import anyio
import attrs
import pytest
from anyio.to_thread import run_sync

from hybridpool._brokers.base import Broker
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._brokers.rabbitmq import RabbitBroker, supervisor
from hybridpool._message import Outgoing, QueueSpec
from hybridpool.errors import (
    AccessRefused,
    BrokerError,
    BrokerUnavailable,
    CannotEncode,
    MessageTooLarge,
    QueueFull,
    QueueNotFound,
)
from hybridpool.events import BrokerConnected, BrokerLost
from tests.contract.inbox import PATIENCE, Events, Inbox, assert_quiet, until_depth
from tests.rabbit import Node

pytestmark = pytest.mark.anyio

#: bytes: the largest body that the brokers of this file take
MAX_BODY = 1000
#: bytes: so many that they are written in portions
LARGE_BODY = 12_000_000
#: more than RabbitMQ keeps under way from one queue to the next
MANY = 60


@attrs.frozen
class Strict:
    """A broker that refuses, and how to take a right from its user."""

    open: Callable[[Events], Broker]
    #: queues that may be made and written; None: all
    permit: Callable[[str, str], None]


@pytest.fixture(scope="module", autouse=True)
def strict_node() -> Iterator[Node]:
    """A node with a small max_message_size and a user whose rights may be changed; there before a test is watched."""
    node = Node("strict")
    node.configure(f"max_message_size = {MAX_BODY}")
    with node:
        node.ctl("add_user", "narrow", "pw")
        yield node


@pytest.fixture(params=["memory", "rabbitmq"])
def strict(request: pytest.FixtureRequest) -> Strict:
    """Return what makes connections to one and the same broker, and takes rights away."""
    if request.param == "memory":
        server = MemoryServer(max_message_size=MAX_BODY)
        known: set[tuple[str, str]] = set()

        def permit(configure: str, write: str) -> None:
            for right in known:
                server.allow(*right)
            known.clear()
            known.update((what, queue) for what, queue in (("configure", configure), ("write", write)) if queue)
            for right in known:
                server.forbid(*right)

        return Strict(lambda observed: MemoryBroker(server, observed), permit)
    node: Node = request.getfixturevalue("strict_node")
    url = node.url.replace("guest:guest", "narrow:pw")

    def allow(configure: str, write: str) -> None:
        # the right to publish by a queue's name is the right to write to the default exchange, whichever queue
        writable = "^$" if write else ".*"
        node.ctl("set_permissions", "narrow", f"^(?!{configure}$).*" if configure else ".*", writable, ".*")

    allow("", "")
    return Strict(lambda observed: RabbitBroker(url, observed), allow)


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
async def broker(strict: Strict, observed: Events, queue_name: str) -> AsyncIterator[Broker]:
    """Connect, with one queue declared."""
    async with strict.open(observed) as connection:
        await connection.connected(PATIENCE)
        await connection.declare(spec(queue_name))
        yield connection


def spec(name: str, max_length: int | None = None) -> QueueSpec:
    """Return a queue that the broker drops a minute after its last consumer."""
    return QueueSpec(name=name, expires=60_000, max_length=max_length)


async def test_a_body_that_is_too_large(broker: Broker, observed: Events, queue_name: str) -> None:
    """A body above max_message_size is refused each time, and the connection stays."""
    await broker.publish(Outgoing(body=b"x" * MAX_BODY, routing_key=queue_name))
    for _ in range(2):
        with pytest.raises(MessageTooLarge, match=f"{MAX_BODY}"):
            await broker.publish(Outgoing(body=b"x" * (MAX_BODY + 1), routing_key=queue_name))
    await broker.publish(Outgoing(body=b"x", routing_key=queue_name))
    await until_depth(broker, queue_name, 2)
    assert observed.of(BrokerLost) == []


async def test_several_bodies_that_are_too_large(broker: Broker, observed: Events, queue_name: str) -> None:
    """Large bodies that are under way at once are all refused, and the connection stays: none is broken off within."""
    told: list[str] = []

    async def send() -> None:
        with pytest.raises(MessageTooLarge) as refused:
            await broker.publish(Outgoing(body=b"x" * LARGE_BODY, routing_key=queue_name))
        told.append(type(refused.value).__name__)

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(send)
    assert len(told) == 8
    assert observed.of(BrokerLost) == []


async def test_others_under_way_are_not_affected(broker: Broker, queue_name: str) -> None:
    """A refused message fails none of those that are under way at the same time."""
    told: dict[int, str] = {}

    async def send(number: int) -> None:
        size = MAX_BODY + 1 if number == MANY // 2 else 1
        try:
            await broker.publish(Outgoing(body=b"x" * size, routing_key=queue_name))
        except BrokerError as error:
            told[number] = type(error).__name__

    async with anyio.create_task_group() as group:
        for number in range(MANY):
            group.start_soon(send, number)
    assert told == {MANY // 2: "MessageTooLarge"}
    assert await broker.depth(queue_name) >= MANY - 1


async def test_each_of_many(broker: Broker, queue_name: str) -> None:
    """Of messages that are sent together each refused one gets its own reason, and the others are stored."""
    good = Outgoing(body=b"x", routing_key=queue_name)
    sent = [
        good,
        attrs.evolve(good, body=b"x" * (MAX_BODY + 1)),
        good,
        attrs.evolve(good, routing_key=f"{queue_name}-nowhere", mandatory=True),
        attrs.evolve(good, exchange=f"{queue_name}-nowhere"),
        attrs.evolve(good, headers={"odd": object()}),
        good,
    ]
    told = [type(error) for error in await broker.publish_many(sent)]
    nothing = type(None)
    assert told == [nothing, MessageTooLarge, nothing, QueueNotFound, QueueNotFound, CannotEncode, nothing]
    assert await broker.depth(queue_name) >= 3


@pytest.mark.parametrize(
    "message",
    [
        Outgoing(body=b"", routing_key="k" * 256),
        Outgoing(body=b"", routing_key="k", reply_to="r" * 256),
        Outgoing(body=b"", routing_key="k", correlation_id="é" * 128),
        Outgoing(body=b"", routing_key="k", headers={"deep": {"list": [1, {2, 3}]}}),
        Outgoing(body=b"", routing_key="k", headers={"number": 2**70}),
    ],
    ids=["routing key", "reply_to", "correlation_id", "header", "number"],
)
async def test_what_has_no_form(broker: Broker, observed: Events, message: Outgoing) -> None:
    """A message that AMQP cannot carry is refused before anything is sent."""
    with pytest.raises(CannotEncode):
        await broker.publish(message)
    assert observed.of(BrokerLost) == []


async def test_a_queue_that_is_full(broker: Broker, queue_name: str) -> None:
    """A full queue raises QueueFull, and takes messages again when there is space."""
    full = f"{queue_name}-full"
    await broker.declare(spec(full, max_length=2))
    message = Outgoing(body=b"x", routing_key=full)
    for _ in range(2):
        await broker.publish(message)
    with pytest.raises(QueueFull):
        await broker.publish(message)
    await broker.publish(Outgoing(body=b"x", routing_key=queue_name))
    inbox = Inbox()
    await broker.consume(full, 0, inbox)
    for delivery in await inbox.take(2):
        broker.ack(delivery)
    await until_taken(broker, message)
    await inbox.take(1)


async def until_taken(broker: Broker, message: Outgoing) -> None:
    """Publish until the queue has room; each attempt is a round trip to the broker."""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                await broker.publish(message)
            except QueueFull:
                continue
            return


async def test_no_right_to_publish(strict: Strict, broker: Broker, queue_name: str) -> None:
    """A user without the right to publish gets AccessRefused, and can publish once the right is granted."""
    message = Outgoing(body=b"x", routing_key=queue_name)
    await run_sync(strict.permit, "", queue_name)
    with pytest.raises(AccessRefused) as caught:
        await broker.publish(message)
    assert not isinstance(caught.value, BrokerUnavailable)
    await run_sync(strict.permit, "", "")
    with anyio.fail_after(PATIENCE):
        while await refused(broker, message):  # the broker remembers a user's rights for a moment
            pass


async def refused(broker: Broker, message: Outgoing) -> bool:
    """Tell whether a message is refused; each look is a round trip to the broker."""
    try:
        await broker.publish(message)
    except AccessRefused:
        return True
    return False


async def test_no_right_to_declare(strict: Strict, broker: Broker, observed: Events, queue_name: str) -> None:
    """A user without the right to declare can use a queue that exists, and gets AccessRefused for a missing one."""
    missing = f"{queue_name}-missing"
    await run_sync(strict.permit, missing, "")
    with pytest.raises(AccessRefused):
        await broker.declare(spec(missing))
    await run_sync(strict.permit, queue_name, "")
    async with strict.open(Events()) as other:
        await other.connected(PATIENCE)
        await other.declare(spec(queue_name))
        await other.publish(Outgoing(body=b"x", routing_key=queue_name, mandatory=True))
    await run_sync(strict.permit, "", "")
    assert observed.of(BrokerLost) == []


async def test_answers_are_read(broker: Broker, queue_name: str) -> None:
    """What was acknowledged before `answers_read` returns does not come again."""
    inbox = Inbox()
    await broker.publish(Outgoing(body=b"x", routing_key=queue_name))
    await broker.consume(queue_name, 1, inbox)
    [delivery] = await inbox.take(1)
    broker.ack(delivery)
    await broker.answers_read()
    await broker.publish(Outgoing(body=b"y", routing_key=queue_name))
    await inbox.take(1)


async def test_a_full_queue_stops_no_other_delay(broker_url: str, queue_name: str) -> None:
    """Messages due for a full queue wait beside it, and those for other queues arrive in their time."""
    full, other = f"{queue_name}-full", f"{queue_name}-other"
    async with RabbitBroker(broker_url, Events()) as broker:
        await broker.connected(PATIENCE)
        await broker.declare(QueueSpec(name=full, max_length=1))
        await broker.declare(QueueSpec(name=other))
        try:
            await broker.publish(Outgoing(body=b"x", routing_key=full))
            async with anyio.create_task_group() as group:
                for _ in range(MANY):
                    message = Outgoing(body=b"x", routing_key=full, delay=1, mandatory=True)
                    group.start_soon(partial(broker.publish, message))
            inbox = Inbox()
            await broker.consume(other, 0, inbox)
            # two levels, the last of them the one that the others have left or never leave
            await broker.publish(Outgoing(body=b"y", routing_key=other, delay=3, mandatory=True))
            await inbox.take(1)
        finally:
            for queue in (full, other, f"{full}.due", f"{other}.due"):
                await broker.delete(queue)


async def test_a_queue_that_is_refused_at_a_reconnect(
    strict_node: Node, observed: Events, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that is refused at a reconnect does not hold up others, and is consumed once the right is there again."""
    monkeypatch.setattr(supervisor, "REFUSED_AGAIN_S", 0.2)
    other, refused, inbox = f"{queue_name}-other", f"{queue_name}-refused", Inbox()

    def permit(pattern: str) -> None:
        strict_node.ctl("set_permissions", "narrow", pattern, ".*", ".*")

    await run_sync(permit, ".*")
    async with RabbitBroker(strict_node.url.replace("guest:guest", "narrow:pw"), observed) as broker:
        await broker.connected(PATIENCE)
        for queue in (refused, other):
            await broker.declare(QueueSpec(name=queue))
            await broker.consume(queue, 10, inbox)
        await run_sync(permit, f"^(?!{refused}$).*")
        await run_sync(strict_node.ctl, "delete_queue", refused)
        await run_sync(strict_node.ctl, "close_all_connections", "a test")
        await observed.see(BrokerConnected, 2)
        await broker.publish(Outgoing(body=b"there", routing_key=other))
        [delivery] = await inbox.take(1)
        assert delivery.body == b"there"
        broker.ack(delivery)
        # as a pool does that grows or shrinks
        await broker.consume(refused, 20, inbox)
        await run_sync(permit, ".*")
        with anyio.fail_after(PATIENCE):
            while not await is_sent(broker, refused):  # noqa: ASYNC110  # the broker does not announce it
                await anyio.sleep(0.1)
        [delivery] = await inbox.take(1)
        assert delivery.queue == refused
        broker.ack(delivery)
        for queue in (refused, other):
            await broker.delete(queue)


async def is_sent(broker: Broker, queue: str) -> bool:
    """Tell whether the broker takes a message for the queue."""
    try:
        await broker.publish(Outgoing(body=b"again", routing_key=queue, mandatory=True))
    except BrokerError:
        return False
    return True
