"""What a task sends: the parent waits out a short loss of the connection, and answers with the client's errors."""

from collections.abc import AsyncIterator

import anyio
import attrs
import msgspec
import pytest

from hybridpool import App
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._ipc.frames import Declare, Enqueue, EnqueueAnswer, EnqueueRaw
from hybridpool._message import Binding, ExchangeType, Outgoing, QueueSpec, pack
from hybridpool._policy import backoff
from hybridpool._task_context import not_published
from hybridpool._worker.child_publisher import ChildPublisher
from hybridpool.errors import (
    AccessRefused,
    BrokerError,
    BrokerUnavailable,
    CannotEncode,
    MessageTooLarge,
    ProtocolError,
    QueueFull,
    QueueNotFound,
)

pytestmark = pytest.mark.anyio

SETTINGS = attrs.evolve(App("shop", worker_concurrency=1).conf.settings(), broker_connection_timeout=0.1)
MESSAGE = pack(Outgoing(body=b"[[],{},{}]", routing_key="celery", headers={"task": "t", "id": "id-1"}))


class Breaking(MemoryBroker):
    """A memory broker that fails some times before it takes a message."""

    def __init__(self, server: MemoryServer, errors: list[BrokerError]) -> None:
        super().__init__(server, lambda _: None)
        self.errors = errors

    async def publish(self, message: Outgoing) -> None:
        """Fail, or store the message."""
        if self.errors:
            raise self.errors.pop(0)
        await super().publish(message)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the waits between attempts."""
    monkeypatch.setattr(backoff, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(backoff, "_MAX_PAUSE_S", 0.0)


async def ask(message: bytes, errors: list[BrokerError], *, is_open: bool = True) -> tuple[EnqueueAnswer, int]:
    """Have a message published; return the answer, and how many messages are in the queue."""
    server, answers = MemoryServer(), list[EnqueueAnswer]()
    broker = Breaking(server, errors)
    async with anyio.create_task_group() as tasks:
        relay = ChildPublisher(broker, tasks, SETTINGS)
        if is_open:
            async with broker:
                relay.publish(Enqueue(7, message), answers.append)
                await anyio.wait_all_tasks_blocked()
        else:
            relay.publish(Enqueue(7, message), answers.append)
    [answer] = answers
    return answer, len(server.queue("celery")) if not errors and answer.error is None else 0


async def test_a_short_loss_is_waited_out() -> None:
    """A short loss of the connection is waited out."""
    answer, depth = await ask(MESSAGE, [BrokerUnavailable("gone")] * (backoff.ATTEMPTS - 1))
    assert (answer, depth) == (EnqueueAnswer(7, None), 1)


@pytest.mark.parametrize(
    ("message", "errors", "is_open", "kind"),
    [
        (MESSAGE, [BrokerUnavailable("gone")] * backoff.ATTEMPTS, True, BrokerUnavailable),
        (MESSAGE, [], False, BrokerUnavailable),
        (MESSAGE, [BrokerError("NO_ROUTE")], True, BrokerError),
        (MESSAGE, [QueueNotFound("no queue")] * 2, True, QueueNotFound),
        (MESSAGE, [AccessRefused("no right")], True, AccessRefused),
        (MESSAGE, [MessageTooLarge("too large")], True, MessageTooLarge),
        (MESSAGE, [CannotEncode("no form")], True, CannotEncode),
        (MESSAGE, [QueueFull("full")] * backoff.ATTEMPTS, True, QueueFull),
        (b"nonsense", [], True, ProtocolError),
    ],
    ids=[
        "gone for long",
        "never there",
        "refused",
        "no queue",
        "no right",
        "too large",
        "no form",
        "full",
        "no message",
    ],
)
async def test_what_cannot_be_published(
    message: bytes, errors: list[BrokerError], is_open: bool, kind: type[Exception]
) -> None:
    """A task gets the same kind of error as a client, with its text."""
    answer, _ = await ask(message, errors, is_open=is_open)
    assert answer.error is not None
    error = not_published(answer.kind, answer.error)
    assert type(error) is kind
    assert str(error) == answer.error


class Noting(Breaking):
    """A memory broker that notes what it is asked for."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server, [])
        self.declared: list[object] = []
        self.published: list[Outgoing] = []
        #: times that it is away
        self.away = 0

    def _fail(self) -> None:
        if self.away:
            self.away -= 1
            raise BrokerUnavailable("away")

    async def declare(self, queue: QueueSpec) -> None:
        """Note it."""
        self._fail()
        self.declared.append(queue)

    async def declare_exchange(self, exchange: str, type: ExchangeType = "topic", *, durable: bool = True) -> None:
        """Note it."""
        self._fail()
        self.declared.append((exchange, type, durable))

    async def publish(self, message: Outgoing) -> None:
        """Note it."""
        self._fail()
        self.published.append(message)


async def ask_for_app(frame: Enqueue, failures: int, patience: float | None) -> str | None:
    """Have a frame of another library's app dealt with over a broker that is away so often; return the error."""
    answers: list[EnqueueAnswer] = []
    async with anyio.create_task_group() as tasks, Noting(MemoryServer()) as broker:
        broker.away = failures
        ChildPublisher(broker, tasks, SETTINGS, patience=patience).publish(frame, answers.append)
        await anyio.wait_all_tasks_blocked()
    return answers[0].error


@pytest.mark.parametrize(
    "frame", [EnqueueRaw(1, b"", "", "q", b""), Declare(1, b"", queue="q"), Declare(1, b"", exchange="e")]
)
async def test_another_librarys_patience(frame: Enqueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another library's app wants waits out a loss of the connection for as long as the app's settings say."""
    many = 10 * backoff.ATTEMPTS
    assert await ask_for_app(frame, many, 0.0) is None
    assert await ask_for_app(frame, many, None) is None
    monkeypatch.setattr("hybridpool._worker.child_publisher.MIN_PATIENCE_S", 0.0)
    assert await ask_for_app(frame, many, 60.0) is None
    assert await ask_for_app(frame, backoff.ATTEMPTS - 1, 0.0) is None
    assert await ask_for_app(frame, many, 0.0) == "away"


KNOWN = QueueSpec(name="known", bindings=(Binding(exchange="known", type="topic", routing_key="a.#"),))


@pytest.fixture
async def noting() -> AsyncIterator[tuple[Noting, ChildPublisher, list[EnqueueAnswer]]]:
    """Give a publisher of an app of another library; answers are put into the list."""
    answers: list[EnqueueAnswer] = []
    async with anyio.create_task_group() as tasks, Noting(MemoryServer()) as broker:
        specs = {"known": KNOWN, "other": attrs.evolve(KNOWN, name="other")}
        yield broker, ChildPublisher(broker, tasks, SETTINGS, specs, ["known"]), answers


async def test_another_librarys_message_is_published_as_it_is(
    noting: tuple[Noting, ChildPublisher, list[EnqueueAnswer]],
) -> None:
    """Nothing is added to it, nothing is declared for it, and many go to the broker in their order."""
    broker, publisher, answers = noting
    for number in range(50):
        publisher.publish(
            EnqueueRaw(number, b"%d" % number, "", "q", b"properties", mandatory=number == 3), answers.append
        )
    await anyio.wait_all_tasks_blocked()
    assert broker.published == [
        Outgoing(body=b"%d" % number, routing_key="q", raw=b"properties", mandatory=number == 3) for number in range(50)
    ]
    assert not broker.declared
    assert answers == [EnqueueAnswer(number, None) for number in range(50)]


async def test_another_librarys_declarations(noting: tuple[Noting, ChildPublisher, list[EnqueueAnswer]]) -> None:
    """Exchange, queue and binding are declared once for all children; what the worker consumes is declared already."""
    broker, publisher, answers = noting
    arguments = msgspec.msgpack.encode({"x-queue-type": "quorum", "x-expires": 1000})
    for _ in range(2):
        for frame in (
            Declare(1, b"", exchange="e", exchange_type="topic"),
            Declare(1, b"", queue="q", arguments=arguments),
            Declare(1, b"", queue="q", exchange="e", routing_key="a.#"),
            Declare(1, b"", queue="known", arguments=arguments),
            Declare(1, b"", queue="known", exchange="known", routing_key="a.#"),
            Declare(1, b"", queue="other"),
        ):
            publisher.publish(frame, answers.append)
            await anyio.wait_all_tasks_blocked()
    queue = QueueSpec(name="q", kind="quorum", arguments={"x-expires": 1000})
    assert broker.declared == [
        ("e", "topic", True),
        queue,
        attrs.evolve(queue, bindings=(Binding(exchange="e", type="topic", routing_key="a.#"),)),
        attrs.evolve(KNOWN, name="other"),
    ]
    assert answers == [EnqueueAnswer(1, None)] * 12


def test_errors_of_an_unknown_kind() -> None:
    """An answer of an unknown error kind becomes a BrokerError."""
    for kind in ("", "Exception", "annotations", "ConfigError"):
        assert type(not_published(kind, "why")) is BrokerError
