"""Tasks that are run again, rejected or ignored: in a worker in this process, and in a real one over RabbitMQ."""

import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hybridpool import App, embedded, events
from hybridpool._protocol.dead_letter import REASON
from hybridpool.errors import ResultTimeout, RetriesExhausted, TaskFailed
from tests.apps import retrying
from tests.apps.retrying import Away, Gone
from tests.contract.inbox import Events
from tests.queues import BrokerConsole
from tests.rabbit import Node
from tests.workers import Worker, client_of

APP = "tests.apps.retrying"
RESULT = 60.0


@pytest.fixture
def journal(tmp_path: Path) -> str:
    """Where attempts are written down."""
    (tmp_path / "journal").touch()
    return str(tmp_path / "journal")


def attempts(journal: str) -> list[list[str]]:
    """Read it: id, retries and pid of each attempt."""
    return [line.split() for line in Path(journal).read_text().splitlines()]


# ---- embedded --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def observed() -> AsyncIterator[Events]:
    """A worker in this process."""
    bus, found = events.Bus(), Events()
    bus.subscribe(found)
    async with embedded(retrying.app, f"{APP}:app", bus=bus, worker_concurrency=1):
        yield found


@pytest.mark.may_block
@pytest.mark.anyio
async def test_autoretry(observed: Events, journal: str) -> None:
    """A task is retried until it succeeds, under one ID, and its caller gets the value."""
    handle = await retrying.succeed_at.enqueue(journal, 4)
    assert await handle.get(RESULT) == [f"{handle.id} {retries}" for retries in range(4)]
    told = observed.of(events.TaskRetried)
    assert [(event.task.id, event.wait, event.text) for event in told] == [
        (handle.id, 0, f"Away('attempt {number}')") for number in (1, 2, 3)
    ]
    assert not observed.of(events.TaskFailed)


@pytest.mark.may_block
@pytest.mark.anyio
async def test_the_end_of_retries(observed: Events, journal: str) -> None:
    """A task out of retries fails with its last exception."""
    handle = await retrying.succeed_at.enqueue(journal, 10)
    with pytest.raises(Away, match="attempt 5"):
        await handle.get(RESULT)
    assert len(attempts(journal)) == 5
    assert len(observed.of(events.TaskFailed)) == 1


@pytest.mark.may_block
@pytest.mark.anyio
async def test_no_end(observed: Events, journal: str) -> None:
    """`max_retries=None` means no limit."""
    assert await (await retrying.for_ever.enqueue(journal, 9)).get(RESULT) == 9


@pytest.mark.may_block
@pytest.mark.anyio
async def test_what_is_not_retried(observed: Events, journal: str) -> None:
    """An exception in `dont_autoretry_for` is not retried."""
    with pytest.raises(Gone, match="for good"):
        await (await retrying.gone.enqueue(journal)).get(RESULT)
    assert len(attempts(journal)) == 1


@pytest.mark.may_block
@pytest.mark.anyio
async def test_at_most_once(observed: Events, journal: str) -> None:
    """A task that is acknowledged early is retried as well."""
    handle = await retrying.at_most_once.enqueue(journal, 3)
    assert await handle.get(RESULT) == [f"{handle.id} {retries}" for retries in range(3)]


@pytest.mark.may_block
@pytest.mark.anyio
async def test_the_task_asks(observed: Events, journal: str) -> None:
    """`self.retry` keeps the ID, and passes on arguments, countdown and reason."""
    handle = await retrying.bound.enqueue(journal, 7)
    assert await handle.get(RESULT) == ["bound", 2, 8, "two"]
    assert [(event.wait, event.text) for event in observed.of(events.TaskRetried)] == [(0, ""), (0.2, "Away('again')")]
    assert {attempt[0] for attempt in attempts(journal)} == {handle.id}


@pytest.mark.may_block
@pytest.mark.anyio
async def test_without_bind(observed: Events, journal: str) -> None:
    """Code without `self` can ask for a retry, and `except Exception` around it does not catch it."""
    with pytest.raises(Away, match="that was all"):
        await (await retrying.unbound.enqueue(journal)).get(RESULT)
    assert [retries for _, retries, _ in attempts(journal)] == ["0", "1"]


@pytest.mark.may_block
@pytest.mark.anyio
async def test_raised_by_hand(observed: Events, journal: str) -> None:
    """`raise Retry` counts its attempts and ends at `max_retries`."""
    with pytest.raises(Away, match="by hand"):
        await (await retrying.by_hand.enqueue(journal)).get(RESULT)
    assert [retries for _, retries, _ in attempts(journal)] == ["0", "1", "2", "3"]


@pytest.mark.may_block
@pytest.mark.anyio
async def test_a_soft_limit_is_retried(observed: Events, journal: str, tmp_path: Path) -> None:
    """A task that exceeds its soft limit can be retried."""
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)
    # held for writing, so that opening it for reading does not wait for a writer
    fd = os.open(gate, os.O_RDWR)
    try:
        assert await (await retrying.too_slow.enqueue(journal, gate)).get(RESULT) == "in time"
    finally:
        os.close(fd)
    [event] = observed.of(events.TaskRetried)
    assert event.text.startswith("SoftTimeLimitExceeded(")


@pytest.mark.may_block
@pytest.mark.anyio
async def test_verdicts(observed: Events, journal: str) -> None:
    """A rejected task fails, one rejected with requeue runs again, and an ignored one has no result."""
    with pytest.raises(TaskFailed, match=r"Reject\('no stock', False\)"):
        await (await retrying.rejected.enqueue("no stock")).get(RESULT)
    assert await (await retrying.given_back.enqueue(journal)).get(RESULT) == 2
    ignored = await retrying.ignored.enqueue(journal)
    await observed.see(events.TaskIgnored)
    assert await (await retrying.add.enqueue(2, 3)).get(RESULT) == 5
    with pytest.raises(ResultTimeout):
        await ignored.get(0)
    # acknowledged: it did not come again
    assert len(attempts(journal)) == 3


@pytest.mark.may_block
@pytest.mark.anyio
async def test_slips(observed: Events) -> None:
    """A wrong argument to `retry` fails that task alone, and costs no child."""
    for slip, complaint in (("countdown", "not 'soon'"), ("infinity", "not inf"), ("object", "as JSON")):
        with pytest.raises(TypeError, match=complaint):
            await (await retrying.wrongly.enqueue(slip)).get(RESULT)
    await retrying.wrongly.enqueue("far")
    await observed.see(events.TaskRetried)
    assert await (await retrying.add.enqueue(2, 3)).get(RESULT) == 5
    assert len(observed.of(events.ChildReady)) == 1


# ---- RabbitMQ --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def queue() -> str:
    """The queue of this file's worker."""
    return f"test-retries-{time.time_ns()}"


@pytest.fixture(scope="module")
def worker(rabbit_node: Node, queue: str) -> Iterator[Worker]:
    """A real worker."""
    with Worker(rabbit_node.url, queue, "-c2", app=APP, ready=2) as started:
        yield started


@pytest.fixture
def client(worker: Worker, rabbit_node: Node, queue: str) -> Iterator[App]:
    """An app that knows no tasks."""
    with client_of(rabbit_node.url, queue) as app:
        yield app


def lines_of(worker: Worker, task_id: str) -> list[str]:
    """Return what the log says of a task: level, and what follows its id."""
    wanted = rf"(\w+)/[\w-]+\] Task {APP}\.\w+\[{task_id}\] (.*)"
    return [f"{match[1]} {match[2]}" for match in worker.seen(wanted)]


def test_autoretry_over_rabbit(client: App, worker: Worker, queue: str, broker_url: str, journal: str) -> None:
    """Over RabbitMQ a task is retried until it succeeds, and the log shows each attempt."""
    handle = client.send_task(f"{APP}.succeed_at", (journal, 3))
    assert handle.get(RESULT) == [f"{handle.id} {retries}" for retries in range(3)]
    worker.see(rf"{handle.id}\] succeeded")
    assert [line.split(" in ")[0] for line in lines_of(worker, handle.id)] == [
        "INFO received",
        "INFO retry: Retry",
        "INFO received",
        "INFO retry: Retry",
        "INFO received",
        "INFO succeeded",
    ]
    assert worker.seen(rf"{handle.id}\] retry: Retry in 0s: Away\('attempt 1'\)")
    with BrokerConsole(broker_url) as console:
        assert (console.depth(queue), console.depth(f"{queue}.dead")) == (0, -1)


def test_the_broker_holds_a_retry(client: App, worker: Worker, journal: str) -> None:
    """Over RabbitMQ the log shows each retry's countdown and reason."""
    handle = client.send_task(f"{APP}.bound", (journal, 7))
    assert handle.get(RESULT) == ["bound", 2, 8, "two"]
    worker.see(rf"{handle.id}\] retry: Retry in 0\.2s: Away\('again'\)")
    worker.see(rf"{handle.id}\] retry: Retry in 0s: the task asks for it")


def test_the_end_over_rabbit(client: App, worker: Worker, journal: str) -> None:
    """Over RabbitMQ a task out of retries fails with its last exception."""
    with pytest.raises(Away, match="attempt 5"):
        client.send_task(f"{APP}.succeed_at", (journal, 10)).get(RESULT)


def test_at_most_once_over_rabbit(client: App, worker: Worker, queue: str, broker_url: str, journal: str) -> None:
    """Over RabbitMQ a retried task that was acknowledged early runs again, and the channel stays open."""
    handle = client.send_task(f"{APP}.at_most_once", (journal, 3))
    assert handle.get(RESULT) == [f"{handle.id} {retries}" for retries in range(3)]
    assert not worker.seen("No connection to")


def test_expected_is_one_line(client: App, worker: Worker) -> None:
    """An expected exception is logged in one line without a traceback."""
    handle = client.send_task(f"{APP}.expected")
    with pytest.raises(KeyError, match="no such customer"):
        handle.get(RESULT)
    worker.see(rf"INFO/ForkPoolWorker-\d\] Task {APP}\.expected\[{handle.id}\] raised expected: KeyError\(")
    assert client.send_task(f"{APP}.add", (2, 3)).get(RESULT) == 5
    at = next(place for place, line in enumerate(worker.lines) if f"{handle.id}] raised expected" in line)
    assert "Traceback" not in worker.lines[at + 1]


def test_verdicts_over_rabbit(client: App, worker: Worker, queue: str, broker_url: str, journal: str) -> None:
    """Over RabbitMQ a rejected task is dead-lettered, a requeued one runs again, and an ignored one is acknowledged."""
    rejected = client.send_task(f"{APP}.rejected", ("no stock",))
    with pytest.raises(TaskFailed, match="no stock"):
        rejected.get(RESULT)
    back = client.send_task(f"{APP}.given_back", (journal,))
    assert back.get(RESULT) == 2
    ignored = client.send_task(f"{APP}.ignored", (journal,))
    worker.see(rf"INFO/ForkPoolWorker-\d\] Task {APP}\.ignored\[{ignored.id}\] ignored")
    worker.see(rf"WARNING/\S+\] Task {APP}\.given_back\[{back.id}\] Reject\(not here\); it goes back to its queue")
    worker.see(rf"{rejected.id}\] Reject\(no stock\); dead-lettered to {queue}\.dead")
    with BrokerConsole(broker_url) as console:
        console.until_depth(f"{queue}.dead", 1)
        letter = console.take(f"{queue}.dead")
        console.delete(f"{queue}.dead")
        console.until_depth(queue, 0)
    assert (letter.headers["id"], letter.headers[REASON]) == (rejected.id, "the task rejected it: no stock")


def test_giving_up(client: App) -> None:
    """A task that retries once too often without an exception fails with RetriesExhausted."""
    with pytest.raises(RetriesExhausted, match=rf"{APP}\.give_up was retried 0 times"):
        client.send_task(f"{APP}.give_up").get(RESULT)


def test_a_worker_dies_after_publishing(rabbit_node: Node, queue_name: str, journal: str) -> None:
    """A retry that a killed worker has published runs in the next worker."""
    with client_of(rabbit_node.url, queue_name) as client:
        with Worker(rabbit_node.url, queue_name, "-c1", app=APP) as first:
            handle = client.send_task(f"{APP}.bound", (journal, 7))
            first.see(rf"{handle.id}\] retry: Retry in 0s")
            first.main.kill()
            first.wait()
        with Worker(rabbit_node.url, queue_name, "-c1", app=APP):
            assert handle.get(RESULT) == ["bound", 2, 8, "two"]
    found = attempts(journal)
    assert {attempt[0] for attempt in found} == {handle.id}
    # at most the one that it had published and not acknowledged went on twice, and what was at work was begun again
    assert Counter(retries for _, retries, _ in found).items() <= {(n, times) for n in "012" for times in (1, 2, 3)}
    assert {retries for _, retries, _ in found} == {"0", "1", "2"}
