"""Outcome → stored → published → acknowledged, over the memory broker."""

import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import anyio
import attrs
import pytest
from anyio.abc import TaskGroup
from msgspec import structs

from hybridpool import errors, events
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._message import Delivery, Outgoing, QueueSpec
from hybridpool._outcome import Ignored, Lost, Outcome, Raised, Refused, Rejected, Retrying, Returned
from hybridpool._policy import fallback
from hybridpool._policy.admission import Denied
from hybridpool._policy.retry import RetryPace
from hybridpool._policy.settlement import DeliveryOptions
from hybridpool._protocol import dead_letter
from hybridpool._protocol.dead_letter import REASON, WORKER
from hybridpool._protocol.result_message import is_final, read_meta
from hybridpool._protocol.task_headers import LOST_BEFORE, read_head
from hybridpool._results.rpc import RpcStore
from hybridpool._worker import redelivery
from hybridpool._worker.received import Received
from hybridpool._worker.redelivery import RedeliveryTracker
from hybridpool._worker.settlement import DETOUR_S, Settler
from hybridpool.errors import BrokerError, BrokerUnavailable
from tests.contract.inbox import Events, Inbox

#: seconds; a test that waits longer for anything has failed
PATIENCE = 60.0
RETURNED = Returned(b"5", "5")
RAISED = Raised("ValueError", "builtins", b'["x"]', "ValueError('x')", "Traceback …")
REFUSED = Refused("arguments do not fit", "TypeError", "builtins", b'["x"]')
LOST = Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1")
RETRYING = Retrying("OSError", "builtins", b'["away"]', "OSError('away')", "Traceback …", 0, None)
REJECTED = Rejected("no", False)
WANTED = DeliveryOptions(wants_result=True, acks_late=True, max_deliveries=3)
HEADERS: dict[str, object] = {"task": "shop.add", "id": "id-1"}
NOW = 1_700_000_000.0
#: what events say of the task
TASK = events.TaskRef("shop.add", "id-1", queue="celery", timestamp=NOW)


class Recorder(MemoryBroker):
    """A memory broker that writes down what it is told, and can be made to fail."""

    def __init__(self, server: MemoryServer, announce: events.Listener) -> None:
        super().__init__(server, announce)
        self.told: list[str] = []
        self.news = anyio.Event()
        self.errors: dict[str, BrokerError] = {}
        self.published: list[Outgoing] = []
        #: by step; each is raised until a test takes it away
        self.lasting: dict[str, BrokerError] = {}
        #: for messages with a delay
        self.refused_delays: BrokerError | None = None
        #: what is refused without a delay is taken with one
        self.takes_delays = False
        #: the connection dies before an acknowledgement is sent
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
class Bench:
    """A settler, its broker, and what comes of both."""

    server: MemoryServer
    broker: Recorder
    settler: Settler
    tracker: RedeliveryTracker
    inbox: Inbox
    observed: Events
    tasks: TaskGroup
    #: queues of which a message keeps a place for long
    held: list[str]

    async def received(self, options: DeliveryOptions = WANTED, *, lost: int = 0) -> Received:
        """Receive a task."""
        message = Outgoing(
            body=b"[[],{},{}]",
            routing_key="celery",
            headers={**HEADERS, LOST_BEFORE: lost},
            reply_to="answers",
            correlation_id="id-1",
            priority=4,
        )
        self.server.put(message)
        [delivery] = await self.inbox.take(1)
        return Received(delivery, read_head(delivery), options)

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
        async with MemoryBroker(self.server, lambda event: None) as other:
            await other.consume(queue, 0, inbox)
            await anyio.wait_all_tasks_blocked()
            for delivery in inbox.items:
                other.ack(delivery)
        return inbox.items[0] if inbox.items else None


@pytest.fixture(autouse=True)
def _fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each message come at the same time."""
    monkeypatch.setattr("hybridpool._worker.received.time", SimpleNamespace(time=lambda: NOW))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Make a settler over a memory broker."""
    server, observed, inbox, bus = MemoryServer(), Events(), Inbox(), events.Bus()
    bus.subscribe(observed)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Recorder(server, observed))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for queue in ("celery", "answers"):
            await broker.declare(QueueSpec(name=queue))
        await broker.consume("celery", 0, inbox)
        broker.told.clear()
        held: list[str] = []
        tracker = RedeliveryTracker(broker, bus, held.append)
        settler = Settler(broker, RpcStore(broker, 60.0), tracker, bus, tasks, "hybridpool@host", "quorum")
        yield Bench(server, broker, settler, tracker, inbox, observed, tasks, held)
        settler.leave()
        tracker.close()


async def test_nothing_but_an_answer_is_given_at_once(bench: Bench) -> None:
    """A task whose result is not wanted is acknowledged at once, without another task of the event loop."""
    received = await bench.received(attrs.evolve(WANTED, wants_result=False))
    bench.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    assert bench.broker.told == ["ack"]


@pytest.mark.parametrize("outcome", [RETURNED, RAISED])
async def test_stored_then_acknowledged(bench: Bench, outcome: Outcome) -> None:
    """A task's result or error is published to its client, then its message is acknowledged."""
    bench.settler.done(await bench.received(), outcome, "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["publish answers", "ack"]
    answer = await bench.left("answers")
    assert answer is not None
    assert answer.correlation_id == "id-1"
    if outcome is RETURNED:
        assert read_meta(answer.body) == 5
    else:
        with pytest.raises(ValueError, match="x"):
            read_meta(answer.body)


async def test_refused_is_stored_dead_lettered_then_acknowledged(bench: Bench) -> None:
    """A refused message is answered, dead-lettered whole with the reason and the worker, then acknowledged."""
    bench.settler.done(await bench.received(), REFUSED, "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["publish answers", "declare celery.dead", "publish celery.dead", "ack"]
    letter = await bench.left("celery.dead")
    assert letter is not None
    assert (letter.headers[REASON], letter.headers[WORKER]) == ("arguments do not fit", "hybridpool@host")
    assert (letter.body, letter.headers["task"], letter.priority) == (b"[[],{},{}]", "shop.add", 4)


async def test_lost_is_published_again_then_acknowledged(bench: Bench) -> None:
    """A task whose child died is published again with the loss counted, then its message is acknowledged."""
    bench.settler.done(await bench.received(), LOST, "ForkPoolWorker-1", 0.0)
    assert await bench.settled() == ["publish celery", "ack"]
    [again] = await bench.inbox.take(1)
    assert again.headers[LOST_BEFORE] == 1
    assert (again.reply_to, again.correlation_id, again.redelivered) == ("answers", "id-1", False)
    assert bench.observed.of(events.TaskLost)[0].next_step == "it is queued again"


async def test_lost_too_often(bench: Bench) -> None:
    """A task that is lost at its last permitted delivery is answered, dead-lettered, then acknowledged."""
    bench.settler.done(await bench.received(lost=2), LOST, "ForkPoolWorker-1", 0.0)
    assert await bench.settled() == ["publish answers", "declare celery.dead", "publish celery.dead", "ack"]
    [event] = bench.observed.of(events.TaskLost)
    assert (event.attempt, event.next_step) == (3, "dead-lettered to celery.dead")


async def test_lost_because_we_stop(bench: Bench) -> None:
    """A task that is lost because the worker stops goes back to its queue, and the loss is not counted."""
    received = await bench.received(lost=2)
    bench.settler.stopping = True
    bench.settler.done(received, LOST, "ForkPoolWorker-1", 0.0)
    assert bench.broker.told == ["requeue"]
    assert bench.observed.of(events.TaskLost)[0].next_step == "it goes back to its queue"


async def test_lost_after_an_early_answer(bench: Bench) -> None:
    """A task that is lost after its early acknowledgement is not published again, and its client is answered."""
    received = await bench.received(attrs.evolve(WANTED, acks_late=False))
    received.acknowledged = True
    bench.settler.done(received, LOST, "ForkPoolWorker-1", 0.0)
    assert await bench.settled() == ["publish answers"]
    assert "acknowledged when it began" in bench.observed.of(events.TaskLost)[0].next_step


async def test_expired(bench: Bench) -> None:
    """The client of an expired task is answered, then the message is acknowledged."""
    bench.settler.expired(await bench.received())
    assert await bench.settled() == ["publish answers", "ack"]
    assert bench.observed.of(events.TaskExpired) == [events.TaskExpired(TASK)]


@pytest.mark.parametrize("how", ["expired", "revoked"])
async def test_unwanted(bench: Bench, how: str) -> None:
    """A task that is not wanted any more is answered only if its result is, and is acknowledged once."""
    silent = attrs.evolve(WANTED, wants_result=False)
    getattr(bench.settler, how)(await bench.received(silent))
    assert await bench.settled() == ["ack"]
    early = await bench.received(attrs.evolve(WANTED, acks_late=False))
    early.acknowledged = True
    getattr(bench.settler, how)(early)
    assert await bench.settled() == ["publish answers"]


async def test_a_revoked_task_that_lets_itself_be_stopped(bench: Bench) -> None:
    """A task that ends with `TaskCancelled` was revoked; it did not fail."""
    stopped = Raised("TaskCancelled", "hybridpool.errors", b"[]", "TaskCancelled()", "Traceback …")
    bench.settler.done(await bench.received(), stopped, "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["publish answers", "ack"]
    assert bench.observed.items[-1] == events.TaskRevoked(TASK, "ForkPoolWorker-1")


async def test_denied(bench: Bench) -> None:
    """The client of an unknown task is answered, and the message is dead-lettered, then acknowledged."""
    denied = Denied("unknown task 'shop.add'", "NotRegistered", "celery.exceptions", "shop.add")
    bench.settler.denied(await bench.received(), denied)
    assert await bench.settled() == ["publish answers", "declare celery.dead", "publish celery.dead", "ack"]
    [event] = bench.observed.of(events.TaskRefused)
    assert (event.reason, event.dead_queue) == ("unknown task 'shop.add'", "celery.dead")


async def test_unreadable(bench: Bench) -> None:
    """A message that names no task is dead-lettered with the reason, and no client is answered."""
    received = await bench.received()
    nameless = attrs.evolve(received.delivery, headers={"id": "id-1"})
    bench.settler.unreadable(nameless, "no task message")
    assert await bench.settled() == ["declare celery.dead", "publish celery.dead", "ack"]
    letter = await bench.left("celery.dead")
    assert letter is not None
    assert letter.headers[REASON] == "no task message"


async def test_one_bad_header(bench: Bench) -> None:
    """The client of a task with one wrong header is answered, and the message is dead-lettered, then acknowledged."""
    received = await bench.received()
    bad = attrs.evolve(received.delivery, headers={**HEADERS, "retries": "many"})
    bench.settler.unreadable(bad, "header 'retries' is not a count")
    assert await bench.settled() == ["publish answers", "declare celery.dead", "publish celery.dead", "ack"]
    [event] = bench.observed.of(events.TaskRefused)
    assert (event.task.name, event.task.id, event.reason) == ("shop.add", "id-1", "header 'retries' is not a count")


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
async def test_no_connection_midway(bench: Bench, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, step: str) -> None:
    """A step that fails without a connection is tried again, and the message is acknowledged after all steps."""
    monkeypatch.setattr(fallback, "FIRST_PAUSE_S", 0.0)
    received = await bench.received()
    bench.broker.errors[step] = BrokerUnavailable("cut")
    bench.settler.done(received, outcome, "ForkPoolWorker-1", 0.1)
    await bench.until(lambda: "ack" in bench.broker.told)
    told = await bench.settled()
    assert told.count(step) == 2, "it must be tried again"
    assert told.index("ack") == len(told) - 1, "nothing may be settled before"
    assert bench.observed.of(events.SettleDelayed) == [events.SettleDelayed(TASK, "cut")]


async def test_a_cut_connection_midway(bench: Bench) -> None:
    """An acknowledgement for a delivery of an older connection does not settle the message that came again."""
    received = await bench.received()
    bench.server.cut()
    [again] = await bench.inbox.take(1)
    bench.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    await bench.settled()
    assert again.redelivered
    bench.broker.requeue(again)
    assert len(await bench.inbox.take(1)) == 1, "the message was settled through its older delivery"


async def come_back(bench: Bench, at_work: list[Received]) -> tuple[bool, Delivery]:
    """Cut the connection; tell what the settler says of the message that comes again, and that message."""
    bench.tracker.lost(at_work)
    bench.server.cut()
    [again] = await bench.inbox.take(1)
    return bench.tracker.recognises(again, read_head(again)), again


async def test_at_work_when_the_connection_went(bench: Bench) -> None:
    """A task that is at work when the connection is lost is not begun again, and its new delivery is acknowledged."""
    received = await bench.received()
    assert await come_back(bench, [received]) == (True, received.delivery)
    assert bench.observed.of(events.TaskRedelivered) == [events.TaskRedelivered(TASK, is_done=False)]
    assert await bench.settled() == []
    bench.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["publish answers", "ack"]
    assert await bench.left("celery") is None, "it was not acknowledged where it came again"


async def test_one_that_is_held_keeps_its_new_place(bench: Bench) -> None:
    """A message that waits here for long takes a place again when it comes again, and another is taken in its place."""
    received = await bench.received()
    bench.tracker.hold(received)
    bench.tracker.hold(received)
    assert bench.held == ["celery"]
    assert (await come_back(bench, [received]))[0]
    assert bench.held == ["celery", "celery"]


async def test_done_between_the_loss_and_its_return(bench: Bench) -> None:
    """An acknowledged run does not wait for its message: that is acknowledged when it comes again."""
    received = await bench.received()
    bench.tracker.lost([received])
    received.acknowledged = True
    bench.server.cut()
    [again] = await bench.inbox.take(1)
    assert bench.tracker.recognises(again, read_head(again))
    assert "ack" in await bench.settled()


async def test_returns_that_are_excused_are_counted(bench: Bench) -> None:
    """How often in a row a message came back because it only waited here is counted on."""
    received = await bench.received()
    for times in (1, 2, 3):
        bench.tracker.lost([], waiting=[received])
        received.excused = bench.tracker.excused(received.delivery, received.head)
        assert received.excused == times
    assert bench.tracker.excused(received.delivery, received.head) == 0


async def test_another_message_of_the_same_id(bench: Bench) -> None:
    """A message that another worker's lost connection gave back is not taken for one of the same id that is at work."""
    received = await bench.received()
    bench.tracker.lost([received])
    delivery = received.delivery
    for change in ({"body": delivery.body[::-1]}, {"headers": {**delivery.headers, "tenant": "b"}}):
        other = attrs.evolve(delivery, redelivered=True, **change)
        assert not bench.tracker.recognises(other, received.head)
    counted = attrs.evolve(delivery, redelivered=True, headers={**delivery.headers, "x-delivery-count": 1})
    assert bench.tracker.recognises(counted, received.head), "the broker has counted its return"


async def test_done_before_it_comes_back(bench: Bench) -> None:
    """A message whose task has run and answered is acknowledged when it comes again, and not run."""
    received = await bench.received()
    bench.tracker.lost([received])
    bench.broker.is_dying = True
    bench.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["publish answers", "ack"]
    bench.broker.is_dying = False
    known, _ = await come_back(bench, [])
    assert known
    assert bench.observed.of(events.TaskRedelivered) == [events.TaskRedelivered(TASK, is_done=True)]
    assert await bench.settled() == ["ack"]


async def test_acknowledged_into_a_dying_connection(bench: Bench) -> None:
    """A message whose acknowledgement the broker did not get is acknowledged when it comes again, and not run."""
    received = await bench.received(attrs.evolve(WANTED, wants_result=False))
    bench.broker.is_dying = True
    bench.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    bench.broker.is_dying = False
    known, _ = await come_back(bench, [])
    assert known
    assert await bench.settled() == ["ack", "ack"]
    assert await bench.left("celery") is None


@pytest.mark.parametrize(("many", "size"), [(3, 1024), (1024, 3 * len(b"[[],{},{}]"))], ids=["messages", "bytes"])
async def test_acknowledged_messages_are_not_kept_for_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, many: int, size: int
) -> None:
    """Past a number of messages, or of bytes, the broker is asked at once whether it has read the acknowledgements."""
    monkeypatch.setattr(redelivery, "ASK_AFTER_S", 3600.0)
    monkeypatch.setattr(redelivery, "ASK_AT_MESSAGES", many)
    monkeypatch.setattr(redelivery, "ASK_AT_BYTES", size)
    first = await bench.received(attrs.evolve(WANTED, wants_result=False))
    bench.settler.done(first, RETURNED, "ForkPoolWorker-1", 0.1)
    await anyio.wait_all_tasks_blocked()
    assert bench.tracker.redeliveries.is_unsure, "it asked too early"
    for _ in range(2):
        received = await bench.received(attrs.evolve(WANTED, wants_result=False))
        bench.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    await anyio.wait_all_tasks_blocked()
    assert not bench.tracker.redeliveries.is_unsure


@pytest.mark.parametrize("outcome", [Rejected("once more", True), LOST])
async def test_meant_to_come_again(bench: Bench, outcome: Outcome) -> None:
    """A message that its task or the stopping worker gave back is not taken for a done one when it comes again."""
    received = await bench.received()
    bench.tracker.lost([received])
    bench.settler.stopping = isinstance(outcome, Lost)
    bench.settler.done(received, outcome, "ForkPoolWorker-1", 0.1)
    await bench.settled()
    known, _ = await come_back(bench, [])
    assert not known


@pytest.mark.parametrize("how", ["postponed", "renewed"])
async def test_postponed_is_not_done(bench: Bench, how: str) -> None:
    """A message that was published as it was is not taken for a done one when it comes again, whoever had it then."""
    received = await bench.received()
    bench.tracker.lost([])
    if how == "postponed":
        bench.settler.postponed(received, 0.0)
    else:
        bench.settler.renewed(received)
    await bench.settled()
    [later] = await bench.inbox.take(1)
    bench.server.cut()
    # as if another worker had it when the connections were lost
    bench.tracker.lost([])
    [again] = await bench.inbox.take(1)
    assert again.body == later.body
    assert not bench.tracker.recognises(again, read_head(again))


async def test_still_being_settled_when_the_connection_went(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that comes again while its result waits for a connection is acknowledged after it, and not run."""
    monkeypatch.setattr(fallback, "FIRST_PAUSE_S", 0.0)
    received = await bench.received()
    bench.broker.errors["publish answers"] = BrokerUnavailable("cut")
    bench.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    known, _ = await come_back(bench, [])
    assert known
    assert await bench.settled() == ["publish answers", "publish answers", "ack"]
    assert await bench.left("celery") is None


@pytest.mark.parametrize("error", [errors.MessageTooLarge("too large"), errors.CannotEncode("no form")])
async def test_a_result_that_does_not_fit(bench: Bench, error: BrokerError) -> None:
    """A client whose result the broker does not take is told so, and the task is not run again."""
    received = await bench.received()
    bench.broker.errors["publish answers"] = error
    bench.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["publish answers", "publish answers", "ack"]
    answer = await bench.left("answers")
    assert answer is not None
    with pytest.raises(errors.ResultError, match=f"the task has run, but its result cannot be sent: {error}"):
        read_meta(answer.body)
    assert bench.observed.of(events.SettleFailed) == [
        events.SettleFailed(TASK, str(error), "the client is told so in place of the result")
    ]


@pytest.mark.parametrize("error", [errors.AccessRefused("no right"), errors.BrokerRefused("no")])
async def test_a_result_that_is_refused(bench: Bench, error: BrokerError) -> None:
    """A task whose client cannot be told is acknowledged: it has run."""
    received = await bench.received()
    bench.broker.errors["publish answers"] = error
    bench.settler.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["publish answers", "ack"]
    assert bench.observed.of(events.SettleFailed) == [events.SettleFailed(TASK, str(error), "the client is not told")]


async def test_a_dead_letter_with_headers_that_are_refused(bench: Bench) -> None:
    """A dead letter whose headers cannot be written goes without those that only its sender needs."""
    received = await bench.received()
    bench.broker.errors["publish celery.dead"] = errors.CannotEncode("headers too large")
    bench.settler.done(received, REFUSED, "ForkPoolWorker-1", 0.1)
    assert (await bench.settled())[-3:] == ["declare celery.dead", "publish celery.dead", "ack"]
    letter = await bench.left("celery.dead")
    assert letter is not None
    assert str(letter.headers[REASON]).startswith("arguments do not fit [left out: ")
    assert (letter.headers["task"], letter.headers["id"], letter.body) == ("shop.add", "id-1", b"[[],{},{}]")


@pytest.mark.parametrize("step", ["declare celery.dead", "publish celery.dead"])
async def test_a_dead_letter_that_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A message that can be stored nowhere is neither given back nor acknowledged; it is tried again, and said once."""
    monkeypatch.setattr(fallback, "FIRST_PAUSE_S", 0.001)
    received = await bench.received()
    bench.broker.lasting[step] = errors.AccessRefused("no right")
    bench.settler.done(received, REFUSED, "ForkPoolWorker-1", 0.1)
    await bench.until(lambda: bench.broker.told.count(step) >= 4)
    assert not {"ack", "requeue"} & set(bench.broker.told)
    assert len(bench.observed.of(events.SettleFailed)) == 1
    assert bench.held == ["celery"], "it keeps a place that others need"
    bench.broker.lasting.clear()
    await bench.until(lambda: "ack" in bench.broker.told)
    assert await bench.left("celery.dead") is not None


async def test_what_is_held_is_bounded_in_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is taken in the place of messages that wait when their bodies are large, and it is said once."""
    monkeypatch.setattr(redelivery, "MAX_HELD_BYTES", 25)
    bench.broker.lasting["publish celery.dead"] = errors.AccessRefused("no right")
    for _ in range(4):
        bench.settler.done(await bench.received(), REFUSED, "ForkPoolWorker-1", 0.1)
    await bench.settled()
    assert bench.held == ["celery", "celery"], "two bodies of 10 bytes"
    assert bench.observed.of(events.TooManyHeld) == [events.TooManyHeld("celery", 3)]


async def test_a_worker_that_ends_waits_for_no_right(bench: Bench) -> None:
    """A message that can be stored nowhere does not keep a worker from ending: the broker has it back then."""
    received = await bench.received()
    bench.broker.lasting["publish celery.dead"] = errors.AccessRefused("no right")
    bench.settler.done(received, REFUSED, "ForkPoolWorker-1", 0.1)
    await bench.settled()
    bench.settler.leave()
    await bench.until(lambda: "publish celery.dead" in bench.broker.told)
    await anyio.wait_all_tasks_blocked()
    assert not bench.tracker.unsettled
    assert "ack" not in await bench.settled()


async def test_a_retry_that_the_broker_does_not_hold(bench: Bench) -> None:
    """The next attempt of a task waits here where the broker may not hold it, and is counted."""
    received = await bench.received()
    bench.broker.refused_delays = errors.AccessRefused("no right")
    bench.settler.done(received, structs.replace(RETRYING, countdown=1.0), "ForkPoolWorker-1", 0.1)
    [again] = await bench.inbox.take(1)
    assert read_head(again).retries == 1
    assert await bench.settled() == ["publish answers", "publish celery", "publish celery", "ack"]
    assert bench.observed.of(events.SettleFailed) == [
        events.SettleFailed(TASK, "no right", "it waits here for 1 s, and not in the broker")
    ]


async def test_a_retry_that_waits_here_when_the_worker_ends(bench: Bench) -> None:
    """A worker that ends publishes what waits here, with the time before which it must not run."""
    received = await bench.received()
    bench.broker.refused_delays = errors.AccessRefused("no right")
    bench.settler.done(received, structs.replace(RETRYING, countdown=300.0), "ForkPoolWorker-1", 0.1)
    await bench.settled()
    bench.settler.leave()
    [again] = await bench.inbox.take(1)
    head = read_head(again)
    assert head.retries == 1
    assert head.eta is not None
    assert head.eta > dt.datetime.now(dt.UTC) + dt.timedelta(seconds=200)


@pytest.mark.parametrize(
    "error",
    [errors.AccessRefused("no right"), errors.MessageTooLarge("too large"), errors.CannotEncode("too many headers")],
)
@pytest.mark.parametrize("outcome", [RETRYING, LOST])
async def test_an_attempt_that_cannot_be_published(bench: Bench, outcome: Outcome, error: BrokerError) -> None:
    """A task whose next attempt is refused for good is not run again: its client is told, its message dead-lettered."""
    received = await bench.received()
    bench.broker.lasting["publish celery"] = error
    bench.settler.done(received, outcome, "ForkPoolWorker-1", 0.1)
    told = await bench.settled()
    assert told[-4:] == ["publish answers", "declare celery.dead", "publish celery.dead", "ack"]
    letter = await bench.left("celery.dead")
    assert letter is not None
    assert letter.headers[REASON] == f"its next attempt cannot be published: {error}"


@pytest.mark.parametrize("outcome", [RETRYING, LOST])
async def test_a_queue_that_stays_full(bench: Bench, monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    """The next attempt for a queue that stays full is held by the broker, so that it keeps no place here."""
    monkeypatch.setattr(fallback, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(fallback, "DIRECT_S", 0.02)
    received = await bench.received()
    bench.broker.lasting["publish celery"] = errors.QueueFull("full")
    bench.broker.takes_delays = True
    bench.settler.done(received, outcome, "ForkPoolWorker-1", 0.1)
    await bench.until(lambda: "ack" in bench.broker.told)
    assert bench.broker.published[-1].delay == DETOUR_S
    [delayed] = bench.observed.of(events.SettleDelayed)
    assert delayed.waits_for == "room"


FACTS: list[tuple[Outcome, Callable[[Any], bool]]] = [
    (RETURNED, lambda event: event == events.TaskSucceeded(TASK, "ForkPoolWorker-1", 0.1, "5")),
    (
        RAISED,
        lambda event: event == events.TaskFailed(TASK, "ForkPoolWorker-1", 0.1, "ValueError('x')", "Traceback …"),
    ),
    (
        REFUSED,
        lambda event: event == events.TaskRefused(TASK, "arguments do not fit", "celery.dead", "TypeError"),
    ),
]


@pytest.mark.parametrize(("outcome", "is_right"), FACTS)
async def test_facts(bench: Bench, outcome: Outcome, is_right: Callable[[Any], bool]) -> None:
    """The event of a task's end tells its outcome, with the result, the error or the reason."""
    bench.settler.done(await bench.received(), outcome, "ForkPoolWorker-1", 0.1)
    assert is_right(bench.observed.items[-1])
    await bench.settled()


async def test_without_a_backend(bench: Bench) -> None:
    """A worker without a result backend wants no results, and only acknowledges."""
    bare = Settler(bench.broker, None, bench.tracker, events.Bus(), bench.tasks, "w", "classic")
    received = await bench.received()
    assert not bare.wants_result(received.delivery)
    assert bench.settler.wants_result(received.delivery)
    bare.done(received, RETURNED, "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["ack"]


# ---- retries and verdicts --------------------------------------------------------------------------------------------


async def test_retried_is_told_published_then_acknowledged(bench: Bench) -> None:
    """A retry is told to the client, published under the same id and counted, then the message is acknowledged."""
    bench.settler.done(await bench.received(lost=1), RETRYING, "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["publish answers", "publish celery", "ack"]
    [again] = await bench.inbox.take(1)
    head = read_head(again)
    assert (head.id, head.retries, head.lost_before, head.eta) == ("id-1", 1, 0, None)
    assert (again.body, again.reply_to, again.priority, again.redelivered) == (b"[[],{},{}]", "answers", 4, False)
    told = await bench.left("answers")
    assert told is not None
    assert not is_final(told.body)
    retried = events.TaskRetried(TASK, "ForkPoolWorker-1", 0, "OSError('away')", "Traceback …")
    assert bench.observed.of(events.TaskRetried) == [retried]


async def test_a_retry_after_an_early_answer(bench: Bench) -> None:
    """A task that was acknowledged before its start can be retried, and is not acknowledged a second time."""
    received = await bench.received(attrs.evolve(WANTED, acks_late=False))
    received.acknowledged = True
    bench.settler.done(received, RETRYING, "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["publish answers", "publish celery"]


async def test_a_crash_between_publishing_and_the_answer(bench: Bench) -> None:
    """A crash between publishing a retry and the acknowledgement leaves both messages, and loses neither."""
    bench.broker.is_dying = True
    bench.settler.done(await bench.received(), RETRYING, "ForkPoolWorker-1", 0.1)
    await bench.settled()
    bench.server.cut()
    await anyio.wait_all_tasks_blocked()
    # the next attempt came at once; after the cut both come (again): nothing is gone
    found = {(read_head(item).retries, item.redelivered) for item in bench.inbox.items}
    assert found == {(1, False), (1, True), (0, True)}


async def test_the_wait_is_the_tasks(bench: Bench) -> None:
    """The delay, the `eta` and the event of the next attempt all follow the task's retry options."""
    pace = RetryPace(backoff=7, jitter=False)
    asked = attrs.evolve(WANTED, pace=pace)
    bench.settler.done(await bench.received(asked), structs.replace(RETRYING, countdown=None), "ForkPoolWorker-1", 0.1)
    await bench.settled()
    [message] = [message for message in bench.broker.published if message.routing_key == "celery"]
    assert message.delay == 7
    assert bench.observed.of(events.TaskRetried)[0].wait == 7
    eta = dt.datetime.fromisoformat(str(message.headers["eta"]))
    assert abs((eta - dt.datetime.now(dt.UTC)).total_seconds() - 7) < PATIENCE


async def test_a_wait_without_end(bench: Bench) -> None:
    """A retry with a countdown of millions of years is published and acknowledged as any other."""
    far = structs.replace(RETRYING, countdown=1e14)
    bench.settler.done(await bench.received(), far, "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["publish answers", "publish celery", "ack"]


async def test_new_arguments(bench: Bench) -> None:
    """The next attempt has the new arguments that the retry carries."""
    bench.settler.done(
        await bench.received(), structs.replace(RETRYING, body=b"[[7],{},null]"), "ForkPoolWorker-1", 0.1
    )
    await bench.settled()
    [again] = await bench.inbox.take(1)
    assert again.body == b"[[7],{},null]"


async def test_rejected_is_told_dead_lettered_then_acknowledged(bench: Bench) -> None:
    """A message that its task rejects is answered, dead-lettered with the reason, then acknowledged."""
    bench.settler.done(await bench.received(), REJECTED, "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["publish answers", "declare celery.dead", "publish celery.dead", "ack"]
    letter = await bench.left("celery.dead")
    assert letter is not None
    assert letter.headers[REASON] == "the task rejected it: no"
    [event] = bench.observed.of(events.TaskRejected)
    assert (event.reason, event.next_step) == ("no", "dead-lettered to celery.dead")


@pytest.mark.parametrize(
    ("early", "told", "then"),
    [(False, ["requeue"], "it goes back to its queue"), (True, ["publish celery"], "it is queued again")],
)
async def test_rejected_to_be_given_back(bench: Bench, early: bool, told: list[str], then: str) -> None:
    """A message that its task gives back is requeued, or published again if it was acknowledged before the start."""
    received = await bench.received()
    if early:
        bench.broker.ack(received.delivery)
        bench.broker.told.clear()
        received.acknowledged = True
    bench.settler.done(received, Rejected("not now", True), "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == told
    assert bench.observed.of(events.TaskRejected)[0].next_step == then
    assert len(await bench.inbox.take(1)) == 1


async def test_ignored(bench: Bench) -> None:
    """A message that its task ignores is acknowledged, and its client is not answered."""
    bench.settler.done(await bench.received(), Ignored(), "ForkPoolWorker-1", 0.1)
    assert await bench.settled() == ["ack"]
    assert bench.observed.of(events.TaskIgnored) == [events.TaskIgnored(TASK, "ForkPoolWorker-1")]


async def test_the_story_of_the_lost(bench: Bench) -> None:
    """The dead letter of a lost task tells how often, where and how its children died."""
    died = Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1", exitcode=-9, peak=2**20)
    received = await bench.received()
    for _ in range(2):
        bench.settler.done(received, died, "ForkPoolWorker-1", 0.0)
        [again] = await bench.inbox.take(1)
        received = Received(again, read_head(again), WANTED)
    bench.settler.done(received, died, "ForkPoolWorker-1", 0.0)
    await bench.settled()
    letter = await bench.left("celery.dead")
    assert letter is not None
    assert [letter.headers[name] for name in (dead_letter.DELIVERIES, dead_letter.EXIT, dead_letter.PEAK)] == [
        3,
        -9,
        2**20,
    ]
    notes = letter.headers[dead_letter.HISTORY]
    assert isinstance(notes, list)
    assert len(notes) == 3
    assert all("hybridpool@host ForkPoolWorker-1: signal 9 (SIGKILL)" in note for note in notes)
