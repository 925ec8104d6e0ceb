"""Our own delays, end to end: `countdown` and `eta` of our client, retries, workers that come and go meanwhile."""

import datetime as dt
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridpool import App, embedded
from hybridpool.errors import TaskRevoked
from tests.apps import delayed
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.workers import PATIENCE, Worker, client_of

#: the test app under the name by which this process imports it
APP = "tests.apps.delayed"
STAMP = "delayed.stamp"
#: seconds by which clocks may differ over a delay
ROUNDING = 0.05


@pytest.fixture
def worker(broker_url: str, queue_name: str) -> Iterator[Worker]:
    """A worker of this test's own: what it shall not have run must not run in the next test."""
    with Worker(broker_url, queue_name, "-c1", app="delayed.app") as started:
        yield started


@pytest.fixture
def client(broker_url: str, queue_name: str) -> Iterator[App]:
    """A client on the worker's queue."""
    with client_of(broker_url, queue_name) as app:
        yield app


@pytest.fixture
def stamps(tmp_path: Path) -> Path:
    """Where tasks note when they run."""
    return tmp_path / "stamps"


def times(stamps: Path) -> list[float]:
    """Return when tasks ran."""
    return [float(line) for line in stamps.read_text().splitlines()]


def until_idle(node: Node, queue: str) -> None:
    """Wait until the queue has no message, ready or delivered."""
    row = re.compile(rf"^{queue}\t0\t0$", re.MULTILINE)
    columns = ("name", "messages_ready", "messages_unacknowledged")
    assert wait_for(lambda: bool(row.search(node.ctl("list_queues", *columns))), PATIENCE)


def test_countdown_and_eta(worker: Worker, client: App, stamps: Path) -> None:
    """A task with a countdown or an ETA runs once, and not before its time."""
    began, now = time.monotonic(), dt.datetime.now(dt.UTC)
    sent = [
        (2.0, client.send_task(STAMP, (str(stamps),), countdown=2)),
        (1.5, client.send_task(STAMP, (str(stamps),), eta=now + dt.timedelta(seconds=1.5))),
        (0.4, client.send_task(STAMP, (str(stamps),), countdown=0.4)),
        (0.0, client.send_task(STAMP, (str(stamps),), eta=now - dt.timedelta(days=1))),
    ]
    ran = [handle.get(PATIENCE) for _, handle in sent]
    for (seconds, _), moment in zip(sent, ran, strict=True):
        assert moment - began >= seconds - ROUNDING
    client.send_task(STAMP, (str(stamps),)).get(PATIENCE)
    assert len(times(stamps)) == 5


def test_held_with_no_worker_at_all(broker_url: str, queue_name: str, stamps: Path) -> None:
    """A countdown waits in the broker, without a worker and without its client."""
    with client_of(broker_url, queue_name) as other:
        began = time.monotonic()
        other.send_task(STAMP, (str(stamps),), countdown=2)
    with BrokerConsole(broker_url) as console:
        assert console.depth(queue_name) == 0
        console.until_depth(queue_name, 1)
    with Worker(broker_url, queue_name, "-c1", app="delayed.app") as worker:
        worker.see(r"Task delayed\.stamp\[.*\] succeeded")
    (ran,) = times(stamps)
    assert ran - began >= 2 - ROUNDING


def test_far_ones_do_not_reach_the_worker(
    worker: Worker, client: App, rabbit_node: Node, queue_name: str, stamps: Path
) -> None:
    """A task with a long countdown does not reach the worker before its time."""
    for countdown in (3600, 10**8):
        client.send_task(STAMP, (str(stamps),), countdown=countdown)
    client.send_task(STAMP, (str(stamps),)).get(PATIENCE)
    until_idle(rabbit_node, queue_name)
    assert len(times(stamps)) == 1
    assert worker.seen("before its time") == []


def test_expires_before_its_time(worker: Worker, client: App, stamps: Path) -> None:
    """A task that expires before its ETA is revoked, does not run, and its caller is told."""
    late = client.send_task(STAMP, (str(stamps),), countdown=2, expires=1)
    with pytest.raises(TaskRevoked):
        late.get(PATIENCE)
    assert not stamps.exists()


def test_retry(worker: Worker, client: App, stamps: Path) -> None:
    """A retry with a countdown runs once, and not before its time."""
    second = client.send_task("delayed.again", (str(stamps), 2)).get(PATIENCE)
    client.send_task(STAMP, (str(stamps),)).get(PATIENCE)
    first, *others = times(stamps)
    assert others[0] == second
    assert second - first >= 2 - ROUNDING
    assert len(others) == 2


def test_retry_waits_in_the_broker(
    worker: Worker, client: App, rabbit_node: Node, queue_name: str, stamps: Path
) -> None:
    """A task that waits for its retry occupies no child and no unacknowledged message."""
    handle = client.send_task("delayed.again", (str(stamps), 3600))
    worker.see(rf"Task delayed\.again\[{handle.id}\] retry")
    until_idle(rabbit_node, queue_name)
    client.send_task(STAMP, (str(stamps),)).get(PATIENCE)
    assert len(times(stamps)) == 2


def test_retry_outlives_its_worker(broker_url: str, client: App, queue_name: str, stamps: Path) -> None:
    """A retry that waits runs in another worker if the first one has stopped."""
    with Worker(broker_url, queue_name, "-c1", app="delayed.app") as first:
        handle = client.send_task("delayed.again", (str(stamps), 4))
        first.see(rf"Task delayed\.again\[{handle.id}\] retry")
    with Worker(broker_url, queue_name, "-c1", app="delayed.app"):
        handle.get(PATIENCE)
    assert len(times(stamps)) == 2


@pytest.mark.may_block
@pytest.mark.anyio
async def test_embedded(stamps: Path) -> None:
    """Countdowns and retries work in an embedded worker, without a broker."""
    async with embedded(delayed.app, f"{APP}:app", worker_concurrency=1):
        began = time.monotonic()
        ran = await (await delayed.stamp.options(countdown=1.2).enqueue(str(stamps))).get(PATIENCE)
        assert ran - began >= 1.2 - ROUNDING
        # written as the app's users write it: the first argument is the task itself
        again = await (await delayed.app.send(f"{APP}.again", (str(stamps), 1))).get(PATIENCE)
    assert again - times(stamps)[1] >= 1 - ROUNDING
    assert len(times(stamps)) == 3
