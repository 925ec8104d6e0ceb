"""Outcome → stored → published → acknowledged, over the memory broker."""

import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import attrs
import pytest
from anyio.abc import TaskGroup
from msgspec import structs

from hybridpool import answering, errors, events
from hybridpool.answering import Received
from hybridpool.brokers.memory import MemoryBroker, MemoryHub
from hybridpool.errors import BrokerError, BrokerUnavailable
from hybridpool.message import Delivery, Outgoing, QueueSpec
from hybridpool.outcome import Ignored, Lost, Outcome, Raised, Refused, Rejected, Retrying, Returned
from hybridpool.policy import fallback
from hybridpool.policy.admission import Denied
from hybridpool.policy.retry import RetryPace
from hybridpool.policy.settlement import Terms
from hybridpool.protocol import dead
from hybridpool.protocol.dead import REASON, WORKER
from hybridpool.protocol.head import LOST_BEFORE, read_head
from hybridpool.protocol.reply import is_final, read_meta
from hybridpool.results.rpc import RpcStore
from hybridpool.settle import DETOUR_S, Settler
from tests.contract.inbox import Facts, Inbox

#: seconds; a test that waits longer for anything has failed
PATIENCE = 60.0
RETURNED = Returned(b"5", "5")
RAISED = Raised("ValueError", "builtins", b'["x"]', "ValueError('x')", "Traceback …")
REFUSED = Refused("arguments do not fit", "TypeError", "builtins", b'["x"]')
LOST = Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1")
RETRYING = Retrying("OSError", "builtins", b'["away"]', "OSError('away')", "Traceback …", 0, None)
REJECTED = Rejected("no", False)
WANTED = Terms(wants_result=True, acks_late=True, max_deliveries=3)
HEADERS: dict[str, object] = {"task": "shop.add", "id": "id-1"}


class Recorder(MemoryBroker):
    """A memory broker that writes down what it is told, and can be made to fail."""

    def __init__(self, hub: MemoryHub, announce: events.Listener) -> None:
        super().__init__(hub, announce)
        self.told: list[str] = []
        self.news = anyio.Event()
        self.errors: dict[str, BrokerError] = {}
        self.published: list[Outgoing] = []
        #: until it is taken away
        self.lasting: dict[str, BrokerError] = {}
        #: for messages with a delay
        self.refused_delays: BrokerError | None = None
        #: what is refused without a delay is taken with one
        self.takes_delays = False
        #: it dies before it can acknowledge anything
        self.is_dying = False

    async def declare(self, queue: QueueSpec) -> None:
        """Write it down, or fail."""
        self._tell(f"declare {queue.name}")
        await super().declare(queue)

    async def publish(self, message: Outgoing) -> None:
        """Write it down, or fail."""
        if message.delay and self.refused_delays is not None:
            self.told.append(f"publish {message.routing_key}")
            raise self.refused_delays
        if not (message.delay and self.takes_delays):
            self._tell(f"publish {message.routing_key}")
        self.published.append(message)
        await super().publish(message)

    def ack(self, delivery: Delivery) -> None:
        """Write it down."""
        self.told.append("ack")
        self.news.set()
        if not self.is_dying:
            super().ack(delivery)

    def requeue(self, delivery: Delivery) -> None:
        """Write it down."""
        self.told.append("requeue")
        super().requeue(delivery)

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self.news.set()
        if what in self.lasting:
            raise self.lasting[what]
        if what in self.errors:
            raise self.errors.pop(what)


@attrs.define
class Desk:
    """A settler, its broker, and what comes of both."""

    hub: MemoryHub
    broker: Recorder
    settler: Settler
    inbox: Inbox
    facts: Facts
    tasks: TaskGroup
    #: queues of which a message keeps a place for long
    held: list[str]

    async def received(self, terms: Terms = WANTED, *, lost: int = 0) -> Received:
        """Receive a task."""
        message = Outgoing(
            body=b"[[],{},{}]",
            routing_key="celery",
            headers={**HEADERS, LOST_BEFORE: lost},
            reply_to="answers",
            correlation_id="id-1",
            priority=4,
        )
        self.hub.put(message)
        [delivery] = await self.inbox.take(1)
        return Received(delivery, read_head(delivery), terms)

    async def settled(self) -> list[str]:
        """Wait until nothing is under way, and return what the broker was told since the last time."""
        await anyio.wait_all_tasks_blocked()
        told = list(self.broker.told)
        self.broker.told.clear()
        return told

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until it is so; looks each time that the broker is told something."""
        with anyio.fail_after(PATIENCE):
            while not true():
                self.broker.news = anyio.Event()
                await self.broker.news.wait()

    async def left(self, queue: str) -> Delivery | None:
        """Take what is in a queue."""
        inbox = Inbox()
        async with MemoryBroker(self.hub, lambda fact: None) as other:
            await other.consume(queue, 0, inbox)
            await anyio.wait_all_tasks_blocked()
            for delivery in inbox.items:
                other.ack(delivery)
        return inbox.items[0] if inbox.items else None


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """Make a settler over a memory broker."""
    hub, facts, inbox, bus = MemoryHub(), Facts(), Inbox(), events.Bus()
    bus.subscribe(facts)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Recorder(hub, facts))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for queue in ("celery", "answers"):
            await broker.declare(QueueSpec(name=queue))
        await broker.consume("celery", 0, inbox)
        broker.told.clear()
        held: list[str] = []
        settler = Settler(broker, RpcStore(broker, 60.0), bus, tasks, "hybridpool@host", "quorum", held.append)
        yield Desk(hub, broker, settler, inbox, facts, tasks, held)
        settler.leave()


async def test_nothing_but_an_answer_is_given_at_once(desk: Desk) -> None:
    """The commonest case of all would cost a task of the loop."""
    received = await desk.received(attrs.evolve(WANTED, wants_result=False))
    desk.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    assert desk.broker.told == ["ack"]


@pytest.mark.parametrize("outcome", [RETURNED, RAISED])
async def test_stored_then_acknowledged(desk: Desk, outcome: Outcome) -> None:
    """A crash in between would lose the result, with nobody to run the task again."""
    desk.settler.done(await desk.received(), outcome, "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == ["publish answers", "ack"]
    answer = await desk.left("answers")
    assert answer is not None
    assert answer.correlation_id == "id-1"
    if outcome is RETURNED:
        assert read_meta(answer.body) == 5
    else:
        with pytest.raises(ValueError, match="x"):
            read_meta(answer.body)


async def test_refused_is_stored_buried_then_acknowledged(desk: Desk) -> None:
    """A message that cannot be run would be lost, or looked for in vain."""
    desk.settler.done(await desk.received(), REFUSED, "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == ["publish answers", "declare celery.dead", "publish celery.dead", "ack"]
    letter = await desk.left("celery.dead")
    assert letter is not None
    assert (letter.headers[REASON], letter.headers[WORKER]) == ("arguments do not fit", "hybridpool@host")
    assert (letter.body, letter.headers["task"], letter.priority) == (b"[[],{},{}]", "shop.add", 4)


async def test_lost_is_published_again_then_acknowledged(desk: Desk) -> None:
    """A crash in between would lose the task; without the count it would kill children for ever."""
    desk.settler.done(await desk.received(), LOST, "ForkPoolWorker-1", 0.0)
    assert await desk.settled() == ["publish celery", "ack"]
    [again] = await desk.inbox.take(1)
    assert again.headers[LOST_BEFORE] == 1
    assert (again.reply_to, again.correlation_id, again.redelivered) == ("answers", "id-1", False)
    assert desk.facts.of(events.TaskLost)[0].next_step == "it is queued again"


async def test_lost_too_often(desk: Desk) -> None:
    """A task that kills its children would do so for ever, or vanish."""
    desk.settler.done(await desk.received(lost=2), LOST, "ForkPoolWorker-1", 0.0)
    assert await desk.settled() == ["publish answers", "declare celery.dead", "publish celery.dead", "ack"]
    [fact] = desk.facts.of(events.TaskLost)
    assert (fact.attempt, fact.next_step) == (3, "dead-lettered to celery.dead")


async def test_lost_because_we_stop(desk: Desk) -> None:
    """Restarts of a worker would count as the task's fault."""
    received = await desk.received(lost=2)
    desk.settler.stopping = True
    desk.settler.done(received, LOST, "ForkPoolWorker-1", 0.0)
    assert desk.broker.told == ["requeue"]
    assert desk.facts.of(events.TaskLost)[0].next_step == "it goes back to its queue"


async def test_lost_after_an_early_answer(desk: Desk) -> None:
    """A task that may run at most once would run twice."""
    received = await desk.received(attrs.evolve(WANTED, acks_late=False))
    received.acknowledged = True
    desk.settler.done(received, LOST, "ForkPoolWorker-1", 0.0)
    assert await desk.settled() == ["publish answers"]
    assert "before it started" in desk.facts.of(events.TaskLost)[0].next_step


async def test_expired(desk: Desk) -> None:
    """Whoever waits for a task whose time has passed would not hear of it."""
    desk.settler.expired(await desk.received())
    assert await desk.settled() == ["publish answers", "ack"]
    assert desk.facts.of(events.TaskExpired) == [events.TaskExpired("shop.add", "id-1")]


async def test_denied(desk: Desk) -> None:
    """Whoever sent a task that nobody knows would wait for ever."""
    denied = Denied("unknown task 'shop.add'", "NotRegistered", "celery.exceptions", "shop.add")
    desk.settler.denied(await desk.received(), denied)
    assert await desk.settled() == ["publish answers", "declare celery.dead", "publish celery.dead", "ack"]
    [fact] = desk.facts.of(events.TaskRefused)
    assert (fact.reason, fact.dead_queue) == ("unknown task 'shop.add'", "celery.dead")


async def test_unreadable(desk: Desk) -> None:
    """A message that names no task is dead-lettered with the reason, and nobody is answered."""
    received = await desk.received()
    nameless = attrs.evolve(received.delivery, headers={"id": "id-1"})
    desk.settler.unreadable(nameless, "no task message")
    assert await desk.settled() == ["declare celery.dead", "publish celery.dead", "ack"]
    letter = await desk.left("celery.dead")
    assert letter is not None
    assert letter.headers[REASON] == "no task message"


async def test_one_bad_header(desk: Desk) -> None:
    """Whoever waits for a task of which one header is wrong is told so."""
    received = await desk.received()
    bad = attrs.evolve(received.delivery, headers={**HEADERS, "retries": "many"})
    desk.settler.unreadable(bad, "header 'retries' is no count")
    assert await desk.settled() == ["publish answers", "declare celery.dead", "publish celery.dead", "ack"]
    [fact] = desk.facts.of(events.TaskRefused)
    assert (fact.name, fact.id, fact.reason) == ("shop.add", "id-1", "header 'retries' is no count")


@pytest.mark.parametrize(
    ("outcome", "step"),
    [
        (RETURNED, "publish answers"),
        (REFUSED, "publish answers"),
        (REFUSED, "declare celery.dead"),
        (REFUSED, "publish celery.dead"),
        (LOST, "publish celery"),
        (RETRYING, "publish answers"),
        (RETRYING, "publish celery"),
        (REJECTED, "publish celery.dead"),
    ],
)
async def test_no_connection_midway(desk: Desk, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, step: str) -> None:
    """A message whose outcome is not safe would be acknowledged, and so lost; or an outcome be thrown away."""
    monkeypatch.setattr(fallback, "FIRST_PAUSE_S", 0.0)
    received = await desk.received()
    desk.broker.errors[step] = BrokerUnavailable("cut")
    desk.settler.done(received, outcome, "ForkPoolWorker-1", 0.1)
    await desk.until(lambda: "ack" in desk.broker.told)
    told = await desk.settled()
    assert told.count(step) == 2, "it must be tried again"
    assert told.index("ack") == len(told) - 1, "nothing may be settled before"
    assert desk.facts.of(events.SettleDelayed) == [events.SettleDelayed("shop.add", "id-1", "cut")]


async def test_a_cut_connection_midway(desk: Desk) -> None:
    """An answer that belongs to an older connection would settle somebody else's message."""
    received = await desk.received()
    desk.hub.cut()
    [again] = await desk.inbox.take(1)
    desk.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    await desk.settled()
    assert again.redelivered
    desk.broker.requeue(again)
    assert len(await desk.inbox.take(1)) == 1, "the message was settled through its older delivery"


async def come_back(desk: Desk, at_work: list[Received]) -> tuple[bool, Delivery]:
    """Cut the connection; tell what the settler says of the message that comes again, and that message."""
    desk.settler.answering.lost(at_work)
    desk.hub.cut()
    [again] = await desk.inbox.take(1)
    return desk.settler.answering.recognises(again, read_head(again)), again


async def test_at_work_when_the_connection_went(desk: Desk) -> None:
    """A task would be run beside itself because the connection was lost while it ran."""
    received = await desk.received()
    assert await come_back(desk, [received]) == (True, received.delivery)
    assert desk.facts.of(events.TaskCameBack) == [events.TaskCameBack("shop.add", "id-1", is_done=False)]
    assert await desk.settled() == []
    desk.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == ["publish answers", "ack"]
    assert await desk.left("celery") is None, "it was not acknowledged where it came again"


async def test_another_message_of_the_same_id(desk: Desk) -> None:
    """A message that another worker's lost connection gave back is not taken for one of the same id that is at work."""
    received = await desk.received()
    desk.settler.answering.lost([received])
    delivery = received.delivery
    for change in ({"body": delivery.body[::-1]}, {"headers": {**delivery.headers, "tenant": "b"}}):
        other = attrs.evolve(delivery, redelivered=True, **change)
        assert not desk.settler.answering.recognises(other, received.head)
    counted = attrs.evolve(delivery, redelivered=True, headers={**delivery.headers, "x-delivery-count": 1})
    assert desk.settler.answering.recognises(counted, received.head), "the broker has counted its return"


async def test_done_before_it_comes_back(desk: Desk) -> None:
    """A task that has run, and whose result is known, would be run again."""
    received = await desk.received()
    desk.settler.answering.lost([received])
    desk.broker.is_dying = True
    desk.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == ["publish answers", "ack"]
    desk.broker.is_dying = False
    known, _ = await come_back(desk, [])
    assert known
    assert desk.facts.of(events.TaskCameBack) == [events.TaskCameBack("shop.add", "id-1", is_done=True)]
    assert await desk.settled() == ["ack"]


async def test_acknowledged_into_a_dying_connection(desk: Desk) -> None:
    """An acknowledgement that the broker did not hear would cost a second run."""
    received = await desk.received(attrs.evolve(WANTED, wants_result=False))
    desk.broker.is_dying = True
    desk.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    desk.broker.is_dying = False
    known, _ = await come_back(desk, [])
    assert known
    assert await desk.settled() == ["ack", "ack"]
    assert await desk.left("celery") is None


@pytest.mark.parametrize("outcome", [Rejected("once more", True), LOST])
async def test_meant_to_come_again(desk: Desk, outcome: Outcome) -> None:
    """A message that goes round by the task's own wish would be taken for one that was done."""
    received = await desk.received()
    desk.settler.answering.lost([received])
    desk.settler.stopping = isinstance(outcome, Lost)
    desk.settler.done(received, outcome, "ForkPoolWorker-1", 0.1)
    await desk.settled()
    known, _ = await come_back(desk, [])
    assert not known


async def test_postponed_is_not_done(desk: Desk) -> None:
    """What came before its time, and comes again at its time, would be taken for done."""
    received = await desk.received()
    desk.settler.answering.lost([])
    desk.settler.postponed(received, 0.0)
    await desk.settled()
    [later] = await desk.inbox.take(1)
    desk.hub.cut()
    [again] = await desk.inbox.take(1)
    assert again.body == later.body
    assert not desk.settler.answering.recognises(again, read_head(again))


async def test_still_being_settled_when_the_connection_went(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task whose result waits for a connection would be run again as soon as there is one."""
    monkeypatch.setattr(fallback, "FIRST_PAUSE_S", 0.0)
    received = await desk.received()
    desk.broker.errors["publish answers"] = BrokerUnavailable("cut")
    desk.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    known, _ = await come_back(desk, [])
    assert known
    assert await desk.settled() == ["publish answers", "publish answers", "ack"]
    assert await desk.left("celery") is None


@pytest.mark.parametrize("error", [errors.MessageTooLarge("too large"), errors.CannotEncode("no form")])
async def test_a_result_that_does_not_fit(desk: Desk, error: BrokerError) -> None:
    """A client whose result the broker does not take is told so, and the task is not run again."""
    received = await desk.received()
    desk.broker.errors["publish answers"] = error
    desk.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == ["publish answers", "publish answers", "ack"]
    answer = await desk.left("answers")
    assert answer is not None
    with pytest.raises(errors.ResultError, match=f"the task has run, but its result cannot be sent: {error}"):
        read_meta(answer.body)
    assert desk.facts.of(events.SettleFailed) == [
        events.SettleFailed("shop.add", "id-1", str(error), "the client is told so in place of the result")
    ]


@pytest.mark.parametrize("error", [errors.AccessRefused("no right"), errors.BrokerRefused("no")])
async def test_a_result_that_is_refused(desk: Desk, error: BrokerError) -> None:
    """A task whose client cannot be told is acknowledged: it has run."""
    received = await desk.received()
    desk.broker.errors["publish answers"] = error
    desk.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == ["publish answers", "ack"]
    assert desk.facts.of(events.SettleFailed) == [
        events.SettleFailed("shop.add", "id-1", str(error), "the client is not told")
    ]


async def test_a_dead_letter_with_headers_that_are_refused(desk: Desk) -> None:
    """A dead letter whose headers cannot be written goes without those that only its sender needs."""
    received = await desk.received()
    desk.broker.errors["publish celery.dead"] = errors.CannotEncode("headers too large")
    desk.settler.done(received, REFUSED, "ForkPoolWorker-1", 0.1)
    assert (await desk.settled())[-3:] == ["declare celery.dead", "publish celery.dead", "ack"]
    letter = await desk.left("celery.dead")
    assert letter is not None
    assert str(letter.headers[REASON]).startswith("arguments do not fit [left out: ")
    assert (letter.headers["task"], letter.headers["id"], letter.body) == ("shop.add", "id-1", b"[[],{},{}]")


@pytest.mark.parametrize("step", ["declare celery.dead", "publish celery.dead"])
async def test_a_dead_letter_that_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A message that can be stored nowhere is neither given back nor acknowledged; it is tried again, and said once."""
    monkeypatch.setattr(fallback, "FIRST_PAUSE_S", 0.001)
    received = await desk.received()
    desk.broker.lasting[step] = errors.AccessRefused("no right")
    desk.settler.done(received, REFUSED, "ForkPoolWorker-1", 0.1)
    await desk.until(lambda: desk.broker.told.count(step) >= 4)
    assert not {"ack", "requeue"} & set(desk.broker.told)
    assert len(desk.facts.of(events.SettleFailed)) == 1
    assert desk.held == ["celery"], "it keeps a place that others need"
    desk.broker.lasting.clear()
    await desk.until(lambda: "ack" in desk.broker.told)
    assert await desk.left("celery.dead") is not None


async def test_what_is_held_is_bounded_in_bytes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is taken in the place of messages that wait when their bodies are large, and it is said once."""
    monkeypatch.setattr(answering, "MAX_HELD_BYTES", 25)
    desk.broker.lasting["publish celery.dead"] = errors.AccessRefused("no right")
    for _ in range(4):
        desk.settler.done(await desk.received(), REFUSED, "ForkPoolWorker-1", 0.1)
    await desk.settled()
    assert desk.held == ["celery", "celery"], "two bodies of 10 bytes"
    assert desk.facts.of(events.TooManyHeld) == [events.TooManyHeld("celery", 3)]


async def test_a_worker_that_ends_waits_for_no_right(desk: Desk) -> None:
    """A message that can be stored nowhere does not keep a worker from ending: the broker has it back then."""
    received = await desk.received()
    desk.broker.lasting["publish celery.dead"] = errors.AccessRefused("no right")
    desk.settler.done(received, REFUSED, "ForkPoolWorker-1", 0.1)
    await desk.settled()
    desk.settler.leave()
    await desk.until(lambda: "publish celery.dead" in desk.broker.told)
    await anyio.wait_all_tasks_blocked()
    assert not desk.settler.answering.unsettled
    assert "ack" not in await desk.settled()


async def test_a_retry_that_the_broker_does_not_hold(desk: Desk) -> None:
    """The next attempt of a task waits here where the broker may not hold it, and is counted."""
    received = await desk.received()
    desk.broker.refused_delays = errors.AccessRefused("no right")
    desk.settler.done(received, structs.replace(RETRYING, countdown=1.0), "ForkPoolWorker-1", 0.1)
    [again] = await desk.inbox.take(1)
    assert read_head(again).retries == 1
    assert await desk.settled() == ["publish answers", "publish celery", "publish celery", "ack"]
    assert desk.facts.of(events.SettleFailed) == [
        events.SettleFailed("shop.add", "id-1", "no right", "it waits here for 1 s, and not in the broker")
    ]


async def test_a_retry_that_waits_here_when_the_worker_ends(desk: Desk) -> None:
    """A worker that ends publishes what waits here, with the time before which it must not run."""
    received = await desk.received()
    desk.broker.refused_delays = errors.AccessRefused("no right")
    desk.settler.done(received, structs.replace(RETRYING, countdown=300.0), "ForkPoolWorker-1", 0.1)
    await desk.settled()
    desk.settler.leave()
    [again] = await desk.inbox.take(1)
    head = read_head(again)
    assert head.retries == 1
    assert head.eta is not None
    assert head.eta > dt.datetime.now(dt.UTC) + dt.timedelta(seconds=200)


@pytest.mark.parametrize(
    "error",
    [errors.AccessRefused("no right"), errors.MessageTooLarge("too large"), errors.CannotEncode("too many headers")],
)
@pytest.mark.parametrize("outcome", [RETRYING, LOST])
async def test_an_attempt_that_cannot_be_published(desk: Desk, outcome: Outcome, error: BrokerError) -> None:
    """A task whose next attempt is refused for good is not run again: its client is told, its message dead-lettered."""
    received = await desk.received()
    desk.broker.lasting["publish celery"] = error
    desk.settler.done(received, outcome, "ForkPoolWorker-1", 0.1)
    told = await desk.settled()
    assert told[-4:] == ["publish answers", "declare celery.dead", "publish celery.dead", "ack"]
    letter = await desk.left("celery.dead")
    assert letter is not None
    assert letter.headers[REASON] == f"its next attempt cannot be published: {error}"


@pytest.mark.parametrize("outcome", [RETRYING, LOST])
async def test_a_queue_that_stays_full(desk: Desk, monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    """The next attempt for a queue that stays full is held by the broker, so that it keeps no place here."""
    monkeypatch.setattr(fallback, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(fallback, "DIRECT_S", 0.02)
    received = await desk.received()
    desk.broker.lasting["publish celery"] = errors.QueueFull("full")
    desk.broker.takes_delays = True
    desk.settler.done(received, outcome, "ForkPoolWorker-1", 0.1)
    await desk.until(lambda: "ack" in desk.broker.told)
    assert desk.broker.published[-1].delay == DETOUR_S
    [delayed] = desk.facts.of(events.SettleDelayed)
    assert delayed.waits_for == "room"


FACTS: list[tuple[Outcome, Callable[[Any], bool]]] = [
    (RETURNED, lambda fact: fact == events.TaskSucceeded("shop.add", "id-1", "ForkPoolWorker-1", 0.1, "5")),
    (
        RAISED,
        lambda fact: (
            fact == events.TaskFailed("shop.add", "id-1", "ForkPoolWorker-1", 0.1, "ValueError('x')", "Traceback …")
        ),
    ),
    (
        REFUSED,
        lambda fact: fact == events.TaskRefused("celery", "shop.add", "id-1", "arguments do not fit", "celery.dead"),
    ),
]


@pytest.mark.parametrize(("outcome", "is_right"), FACTS)
async def test_facts(desk: Desk, outcome: Outcome, is_right: Callable[[Any], bool]) -> None:
    """The log would not tell how a task ended."""
    desk.settler.done(await desk.received(), outcome, "ForkPoolWorker-1", 0.1)
    assert is_right(desk.facts.items[-1])
    await desk.settled()


async def test_without_a_backend(desk: Desk) -> None:
    """A worker without a backend would promise results."""
    bare = Settler(desk.broker, None, events.Bus(), desk.tasks, "w", "classic")
    received = await desk.received()
    assert not bare.wants_result(received.delivery)
    assert desk.settler.wants_result(received.delivery)
    bare.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == ["ack"]


# ---- retries and verdicts --------------------------------------------------------------------------------------------


async def test_retried_is_told_published_then_acknowledged(desk: Desk) -> None:
    """A crash before the publishing would lose the task; the next attempt would be another task, or uncounted."""
    desk.settler.done(await desk.received(lost=1), RETRYING, "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == ["publish answers", "publish celery", "ack"]
    [again] = await desk.inbox.take(1)
    head = read_head(again)
    assert (head.id, head.retries, head.lost_before, head.eta) == ("id-1", 1, 0, None)
    assert (again.body, again.reply_to, again.priority, again.redelivered) == (b"[[],{},{}]", "answers", 4, False)
    told = await desk.left("answers")
    assert told is not None
    assert not is_final(told.body)
    assert desk.facts.of(events.TaskRetried) == [
        events.TaskRetried("shop.add", "id-1", "ForkPoolWorker-1", 0, "OSError('away')")
    ]


async def test_a_retry_after_an_early_answer(desk: Desk) -> None:
    """A task that runs at most once would have no retries, or be acknowledged twice."""
    received = await desk.received(attrs.evolve(WANTED, acks_late=False))
    received.acknowledged = True
    desk.settler.done(received, RETRYING, "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == ["publish answers", "publish celery"]


async def test_a_crash_between_publishing_and_the_answer(desk: Desk) -> None:
    """The one moment in which a retry is there twice: it may repeat, and must not be lost."""
    desk.broker.is_dying = True
    desk.settler.done(await desk.received(), RETRYING, "ForkPoolWorker-1", 0.1)
    await desk.settled()
    desk.hub.cut()
    await anyio.wait_all_tasks_blocked()
    # the next attempt came at once; after the cut both come (again): nothing is gone
    found = {(read_head(item).retries, item.redelivered) for item in desk.inbox.items}
    assert found == {(1, False), (1, True), (0, True)}


async def test_the_wait_is_the_tasks(desk: Desk) -> None:
    """The next attempt would come at another time than the options say, or the log than the broker."""
    pace = RetryPace(backoff=7, jitter=False)
    asked = attrs.evolve(WANTED, pace=pace)
    desk.settler.done(await desk.received(asked), structs.replace(RETRYING, countdown=None), "ForkPoolWorker-1", 0.1)
    await desk.settled()
    [message] = [message for message in desk.broker.published if message.routing_key == "celery"]
    assert message.delay == 7
    assert desk.facts.of(events.TaskRetried)[0].wait == 7
    eta = dt.datetime.fromisoformat(str(message.headers["eta"]))
    assert abs((eta - dt.datetime.now(dt.UTC)).total_seconds() - 7) < PATIENCE


async def test_a_wait_without_end(desk: Desk) -> None:
    """A countdown of a billion years would end the worker."""
    far = structs.replace(RETRYING, countdown=1e14)
    desk.settler.done(await desk.received(), far, "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == ["publish answers", "publish celery", "ack"]


async def test_new_arguments(desk: Desk) -> None:
    """The next attempt would have the arguments of the last one."""
    desk.settler.done(await desk.received(), structs.replace(RETRYING, body=b"[[7],{},null]"), "ForkPoolWorker-1", 0.1)
    await desk.settled()
    [again] = await desk.inbox.take(1)
    assert again.body == b"[[7],{},null]"


async def test_rejected_is_told_buried_then_acknowledged(desk: Desk) -> None:
    """What a task rejects would vanish without a reason."""
    desk.settler.done(await desk.received(), REJECTED, "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == ["publish answers", "declare celery.dead", "publish celery.dead", "ack"]
    letter = await desk.left("celery.dead")
    assert letter is not None
    assert letter.headers[REASON] == "the task rejected it: no"
    [fact] = desk.facts.of(events.TaskRejected)
    assert (fact.reason, fact.next_step) == ("no", "dead-lettered to celery.dead")


@pytest.mark.parametrize(
    ("early", "told", "then"),
    [(False, ["requeue"], "it goes back to its queue"), (True, ["publish celery"], "it is queued again")],
)
async def test_rejected_to_be_given_back(desk: Desk, early: bool, told: list[str], then: str) -> None:
    """A message that was acknowledged before its start would be gone, though the task gave it back."""
    received = await desk.received()
    if early:
        desk.broker.ack(received.delivery)
        desk.broker.told.clear()
        received.acknowledged = True
    desk.settler.done(received, Rejected("not now", True), "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == told
    assert desk.facts.of(events.TaskRejected)[0].next_step == then
    assert len(await desk.inbox.take(1)) == 1


async def test_ignored(desk: Desk) -> None:
    """It would come back, or its sender be told something."""
    desk.settler.done(await desk.received(), Ignored(), "ForkPoolWorker-1", 0.1)
    assert await desk.settled() == ["ack"]
    assert desk.facts.of(events.TaskIgnored) == [events.TaskIgnored("shop.add", "id-1", "ForkPoolWorker-1")]


async def test_the_story_of_the_lost(desk: Desk) -> None:
    """A dead letter would not tell how often, where and how its children died."""
    died = Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1", exitcode=-9, peak=2**20)
    received = await desk.received()
    for _ in range(2):
        desk.settler.done(received, died, "ForkPoolWorker-1", 0.0)
        [again] = await desk.inbox.take(1)
        received = Received(again, read_head(again), WANTED)
    desk.settler.done(received, died, "ForkPoolWorker-1", 0.0)
    await desk.settled()
    letter = await desk.left("celery.dead")
    assert letter is not None
    assert [letter.headers[name] for name in (dead.DELIVERIES, dead.EXIT, dead.PEAK)] == [3, -9, 2**20]
    notes = letter.headers[dead.HISTORY]
    assert isinstance(notes, list)
    assert len(notes) == 3
    assert all("hybridpool@host ForkPoolWorker-1: signal 9 (SIGKILL)" in note for note in notes)
