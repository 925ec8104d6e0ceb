"""One node of three goes, under load: killed, or frozen. Quorum queues go on with the others, and so do we."""

from collections.abc import Callable, Iterator, Sequence

import anyio
import pytest
from anyio.to_thread import run_sync

from hybridpool import App
from hybridpool.errors import BrokerError
from tests.cluster import Cluster
from tests.conftest import SHARED_PIDS
from tests.faults.helpers import Call, deliveries, finished, numbers, reached, run_out, send_with, worker
from tests.faults.ledger import Journal, account, tell
from tests.queues import BrokerConsole
from tests.rabbit import Node
from tests.workers import Worker

#: with the boots before and after it, on a machine that has other things to do
pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]

QUORUM = "--default-queue-type=quorum"
#: how many calls are confirmed, and how many done, before harm is done while the rest is on its way
EARLY, DONE = 700, 200
#: seconds in which nothing may be confirmed without a majority
DEAF = 4.0


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    """Boot the cluster of this file; see `cluster`."""
    with Cluster() as made:
        yield made


@pytest.fixture
def cluster(running: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Give three nodes that may be harmed; they are healed afterwards."""
    yield running
    try:
        running.heal()
    finally:
        # those that were started again are not what the test has left behind
        request.config.stash[SHARED_PIDS].update(node.pid for node in running.nodes if node.is_running())


def led_by(node: Node, queue: str) -> None:
    """Make a quorum queue whose leader is this node."""
    with BrokerConsole(node.url) as console:
        console.declare(queue, {"x-queue-type": "quorum"})


def sender(brokers: str, queue: str) -> App:
    """Return an app whose queue is a quorum queue."""
    return App("sender", broker=brokers, task_default_queue=queue, task_default_queue_type="quorum")


def publish_through(brokers: str, queue: str, calls: Sequence[Call], harm: Callable[[], object]) -> list[str]:
    """Send the calls, confirmed, and do harm while the greater part of them is on its way; returns their ids."""

    async def send_all() -> None:
        async with sender(brokers, queue) as app:
            await send_with(app, calls[:EARLY])
            async with anyio.create_task_group() as group:
                group.start_soon(run_sync, harm)
                await send_with(app, calls[EARLY:])

    anyio.run(send_all)
    return [call.id for call in calls]


def failed_over(output: Worker, lost: Node, found: Node) -> None:
    """Check how the log tells of it: why it was lost, once; then one line that names both; and no more."""
    output.see("Connected to", 2)
    told = [match[0] for match in output.seen(r"No connection to .*|Connected to .*")]
    tell("".join(f"\n  {line}" for line in told))
    old, new = (f"amqp://guest:**@127.0.0.1:{node.port}//" for node in (lost, found))
    first, loss, change, last = told
    assert first == f"Connected to {old}"
    assert loss.startswith(f"No connection to {old}: ")
    assert change.startswith(f"No connection to {old}: ")
    assert change.endswith(f" Trying {new} now.")
    assert last == f"Connected to {new}"
    assert not output.seen("Traceback")


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_node_of_the_worker_is_killed(leads: bool, cluster: Cluster, queue_name: str, journal: Journal) -> None:
    """A worker goes on at another node of the cluster when its own is killed, and no task is lost."""
    one, two, _ = cluster.nodes
    led_by(one if leads else two, queue_name)
    assert cluster.leader(queue_name) is (one if leads else two)
    with worker(cluster.url(0, 1, 2), queue_name, journal, QUORUM) as at_work:

        def harm() -> None:
            reached(journal, DONE)
            one.kill()

        # once the publisher loses its connection too, and once it has to wait for a confirm of the others'
        ids = publish_through(cluster.url(0, 2) if leads else cluster.url(2, 0), queue_name, numbers(2000), harm)
        finished(journal, ids)
        failed_over(at_work, one, two)
    with BrokerConsole(two.url) as console:
        console.until_depth(queue_name, 0)
    account(ids, journal, depth=0, redelivered=deliveries(at_work))


def test_node_is_cut_off(cluster: Cluster, queue_name: str, journal: Journal) -> None:
    """A worker leaves a node that is cut off, and that node is of use again when it is back."""
    one, _, three = cluster.nodes
    led_by(three, queue_name)
    patience = ("--broker-heartbeat=1s", "--connection-timeout=1s")
    with worker(cluster.url(2, 0, 1), queue_name, journal, QUORUM, *patience) as at_work:

        def harm() -> None:
            reached(journal, DONE)
            three.freeze()

        ids = publish_through(cluster.url(0, 1), queue_name, numbers(2000), harm)
        finished(journal, ids)
        failed_over(at_work, three, one)
        cluster.heal()
        ids += publish_through(three.url, queue_name, numbers(50, first=2000), lambda: None)
        finished(journal, ids)
    with BrokerConsole(three.url) as console:
        console.until_depth(queue_name, 0)
    account(ids, journal, depth=0, redelivered=deliveries(at_work))


def test_majority_is_lost(cluster: Cluster, queue_name: str, journal: Journal) -> None:
    """Without a majority no call is confirmed, and all confirmed calls run once it is back."""
    one, two, three = cluster.nodes
    led_by(one, queue_name)
    calls = numbers(400)
    early, vain = calls[:350], calls[350:]
    confirmed = [call.id for call in early]
    heard: list[str] = []

    async def send_in_vain(app: App, call: Call) -> None:
        with anyio.move_on_after(DEAF):
            try:
                await send_with(app, [call])
            except* BrokerError as error:
                heard.append(str(error.exceptions[0]))
            else:
                confirmed.append(call.id)

    async def send_all() -> None:
        async with sender(cluster.url(0, 1, 2), queue_name) as app:
            await send_with(app, early)
            for node in (two, three):
                await run_sync(node.kill)
            async with anyio.create_task_group() as group:
                for call in vain:
                    group.start_soon(send_in_vain, app, call)
            assert len(confirmed) == len(early)

    with worker(cluster.url(0, 1, 2), queue_name, journal, QUORUM) as at_work:
        anyio.run(send_all)
        tell(f"\n  {len(vain)} calls without a majority; {len(heard)} of them heard: {set(heard)}")
        cluster.heal()
        finished(journal, confirmed)
        confirmed += run_out(cluster.url(0, 1, 2), queue_name, journal)
    # what was not confirmed may have been taken after all
    ids = {*confirmed, *journal.finished() & {call.id for call in vain}}
    with BrokerConsole(one.url) as console:
        console.until_depth(queue_name, 0)
    account(ids, journal, depth=0, redelivered=deliveries(at_work))
