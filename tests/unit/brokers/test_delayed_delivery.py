"""The delay queues, followed as a broker does: bindings matched, times to live added up."""

import asyncio
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import attrs
import pytest
from aiormq import exceptions as foreign
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._brokers.rabbitmq.aiormq_compat import AmqpChannel
from hybridpool._brokers.rabbitmq.connection import AmqpConnection
from hybridpool._brokers.rabbitmq.delayed_delivery import LEVELS, MAX_DELAY_S, DelayQueues, pattern, routing_key
from hybridpool._brokers.rabbitmq.topology import Topology
from hybridpool.errors import BrokerError

DELAYS = st.integers(1, MAX_DELAY_S) | st.integers(0, LEVELS - 1).map(lambda level: 2**level)
#: what users call their queues
NAMES = st.text("ab-_é", min_size=1, max_size=4)
QUEUES = st.lists(NAMES | st.sampled_from("01"), min_size=1, max_size=4).map(".".join)


@attrs.define
class Map:
    """What a broker knows after declarations; stands in for a connection, and for each channel on it."""

    queues: set[str]
    arguments: dict[str, Mapping[str, Any]] = attrs.field(factory=dict)
    to_queues: dict[tuple[str, str], set[str]] = attrs.field(factory=dict)
    to_exchanges: dict[tuple[str, str], set[str]] = attrs.field(factory=dict)
    binds: list[str] = attrs.field(factory=list)

    async def channel(self, *, confirms: bool) -> AmqpChannel:
        """Open a channel."""
        assert not confirms
        return cast(AmqpChannel, self)

    async def close(self) -> None:
        """Close a channel."""

    async def queue_declare(self, queue: str, *, durable: bool, arguments: Mapping[str, Any]) -> None:
        """Note a queue."""
        assert durable
        self.queues.add(queue)
        self.arguments[queue] = arguments

    async def exchange_declare(self, exchange: str, **_: object) -> None:
        """Note nothing: an exchange is what is bound."""

    async def queue_bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        """Note a binding of a queue; other callers get their turn meanwhile."""
        await asyncio.sleep(0)
        if queue not in self.queues:
            raise foreign.ChannelNotFoundEntity(f"NOT_FOUND - no queue '{queue}'")
        self.binds.append(queue)
        self.to_queues.setdefault((exchange, routing_key), set()).add(queue)

    async def exchange_bind(self, destination: str, source: str, routing_key: str) -> None:
        """Note a binding of an exchange."""
        self.to_exchanges.setdefault((source, routing_key), set()).add(destination)

    def route(self, exchange: str, key: str) -> set[str]:
        """Return the queues that take a message."""
        taken: set[str] = set()
        for (source, wanted), queues in self.to_queues.items():
            if source == exchange and matches(wanted, key):
                taken |= queues
        for (source, wanted), exchanges in self.to_exchanges.items():
            if source == exchange and matches(wanted, key):
                taken = taken.union(*(self.route(following, key) for following in exchanges))
        return taken

    def walk(self, exchange: str, key: str) -> tuple[str, float]:
        """Follow a message to the queue where it stays; returns that and the seconds it took."""
        waited = 0.0
        while True:
            (queue,) = self.route(exchange, key)
            told = self.arguments.get(queue)
            if told is None:
                return queue, waited
            waited += told["x-message-ttl"] / 1000
            exchange, key = told["x-dead-letter-exchange"], told.get("x-dead-letter-routing-key", key)

    def delay_queues(self) -> DelayQueues:
        """Return the delay queues of a new connection."""
        return DelayQueues(Topology(cast(AmqpConnection, self), lambda queue, why: pytest.fail(f"{queue}: {why}")))


def matches(wanted: str, key: str) -> bool:
    """Match as a topic exchange does: `*` is one word, `#` any number."""

    @cache
    def rest(here: int, there: int) -> bool:
        if here == len(pattern_):
            return there == len(words)
        if pattern_[here] == "#":
            return any(rest(here + 1, later) for later in range(there, len(words) + 1))
        return there < len(words) and pattern_[here] in ("*", words[there]) and rest(here + 1, there + 1)

    pattern_, words = wanted.split("."), key.split(".")
    return rest(0, 0)


@given(delay=DELAYS, queue=QUEUES, others=st.sets(QUEUES, max_size=4), before=st.none() | DELAYS)
def test_adds_up(delay: int, queue: str, others: set[str], before: int | None) -> None:
    """A delayed message takes the levels whose seconds add up to its delay, and reaches its own queue."""
    known = Map({queue, *others})

    async def go() -> tuple[str, str]:
        delay_queues = known.delay_queues()
        for other in (*others, *(f"{other}.{queue}" for other in others)):
            known.queues.add(other)
            await delay_queues.prepare(other, 1 if before is None else before)
        return await delay_queues.prepare(queue, delay)

    assert known.walk(*asyncio.run(go())) == (queue, delay)


@given(delay=DELAYS, queue=QUEUES)
def test_one_way_at_each_level(delay: int, queue: str) -> None:
    """Each level either holds a message or passes it on."""
    key = routing_key(queue, delay)
    assert all(matches(pattern(level, 0), key) != matches(pattern(level, 1), key) for level in range(LEVELS))


def test_beyond_the_longest() -> None:
    """A delay beyond the longest is cut to the longest."""
    known = Map({"celery"})
    assert known.walk(*asyncio.run(known.delay_queues().prepare("celery", 2**LEVELS))) == ("celery", MAX_DELAY_S)


def test_only_what_is_needed() -> None:
    """Only the levels that a delay needs are declared."""
    known = Map({"celery"})
    asyncio.run(known.delay_queues().prepare("celery", 5))
    assert {name for name in known.queues if name.startswith("celery_")} == {f"celery_delayed_{n}" for n in range(3)}


def test_missing_queue() -> None:
    """A delay for a missing queue is refused."""
    known = Map({"celery"})
    with pytest.raises(BrokerError, match=r"no queue takes a message for nowhere: NOT_FOUND"):
        asyncio.run(known.delay_queues().prepare("nowhere", 5))


def test_bound_each_time() -> None:
    """A queue is bound again at each delayed message."""
    known = Map({"celery"})

    async def go() -> tuple[str, str]:
        delay_queues = known.delay_queues()
        await delay_queues.prepare("celery", 1)
        known.to_queues = {way: queues - {"celery"} for way, queues in known.to_queues.items()}
        return await delay_queues.prepare("celery", 1)

    assert known.walk(*asyncio.run(go())) == ("celery", 1)


def test_bound_for_all_who_ask_at_once() -> None:
    """Messages at the same time share one binding."""
    known = Map({"celery", "other"})

    async def go() -> None:
        delay_queues = known.delay_queues()
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(delay_queues.prepare("celery", 3))
                group.create_task(delay_queues.prepare("other", 3))

    asyncio.run(go())
    assert 1 <= known.binds.count("celery") <= 2
    assert 1 <= known.binds.count("other") <= 2


@pytest.mark.parametrize("name", ["*", "a.#", "#", "*.b", "q" * 250, "ü" * 125])
def test_names_that_are_patterns_or_long(name: str) -> None:
    """A queue whose name is a pattern, or is very long, gets its own delayed messages and no others."""
    others = {"a.b", "a.c", "plain"}
    there = Map(queues={name, *others})

    async def run() -> None:
        delay_queues = DelayQueues(Topology(cast(AmqpConnection, there), lambda *_: None))
        for queue in (name, *others):
            _, key = await delay_queues.prepare(queue, 5)
            assert len(key.encode()) <= 255
        for queue in (name, *others):
            _, key = await delay_queues.prepare(queue, 5)
            assert there.route("celery_delayed_delivery", key) == {f"{queue}.due"}

    asyncio.run(run())


@given(delay=DELAYS, queue=QUEUES)
def test_leaves_by_a_queue_of_its_own(delay: int, queue: str) -> None:
    """Each queue has a last delay queue of its own, in which its due messages wait while it is full."""
    known = Map({queue})
    exchange, key = asyncio.run(known.delay_queues().prepare(queue, delay))
    stations = []
    while (station := next(iter(known.route(exchange, key)))) != queue:
        stations.append(station)
        told = known.arguments[station]
        exchange, key = told["x-dead-letter-exchange"], told.get("x-dead-letter-routing-key", key)
    assert stations[-1] == f"{queue}.due"
    assert all(station.startswith("celery_delayed_") for station in stations[:-1])


@given(delay=DELAYS, queue=QUEUES)
def test_beside_a_worker_of_celery(delay: int, queue: str) -> None:
    """A queue that a Celery worker has bound too gets each message once, ours and Celery's."""
    known = Map({queue})
    known.to_queues["celery_delayed_delivery", f"#.{queue}"] = {queue}
    exchange, key = asyncio.run(known.delay_queues().prepare(queue, delay))
    assert known.walk(exchange, key) == (queue, delay)
    assert known.walk(exchange, routing_key(queue, delay)) == (queue, delay)


def test_a_queue_that_does_not_last() -> None:
    """A queue that the broker deletes by itself has no last delay queue."""
    known = Map({"reply"})
    delay_queues = known.delay_queues()
    delay_queues.temporary.add("reply")
    assert known.walk(*asyncio.run(delay_queues.prepare("reply", 3))) == ("reply", 3)
    assert "reply.due" not in known.queues
