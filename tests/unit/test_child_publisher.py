"""What a task sends: the parent waits out a short loss of the connection, and answers with the client's errors."""

import anyio
import attrs
import pytest

from hybridpool import App
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._ipc.frames import Enqueue, EnqueueAnswer
from hybridpool._message import Outgoing, pack
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


def test_errors_of_an_unknown_kind() -> None:
    """An answer of an unknown error kind becomes a BrokerError."""
    for kind in ("", "Exception", "annotations", "ConfigError"):
        assert type(not_published(kind, "why")) is BrokerError
