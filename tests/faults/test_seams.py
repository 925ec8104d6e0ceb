"""Between any two steps of settling (result, follow-up, acknowledgement) the parent dies, or its connection is cut.

The worker reaches the broker through a proxy (`tests.frame_breakpoints`) that stops it at exactly that step. What the
broker has by then is counted, so that no test passes because it stopped somewhere else. In the end nothing is lost, and
no attempt was made more than once too often.
"""

import datetime as dt
import json
from collections.abc import Collection, Iterator

import anyio
import attrs
import pytest

from hybridpool._brokers.rabbitmq import RabbitBroker
from hybridpool._protocol.task_message import Request, to_message
from tests.faults.apps import JOURNAL
from tests.faults.helpers import deliveries, finished
from tests.faults.ledger import Journal, account
from tests.frame_breakpoints import Step, stopped_at
from tests.queues import BrokerConsole
from tests.rabbit import Node
from tests.workers import PATIENCE, Worker

APP = "tests.faults.settling"
#: the queue of the message that is published before the acknowledgement
RESULT, RETRY, LETTER = "{}.answers", "{}", "{}.dead"


@attrs.frozen
class Ending:
    """How a call ends, and what follows from that."""

    task: str
    #: in order
    published: tuple[str, ...]
    #: all that its client is told, in order
    states: tuple[str, ...]
    attempts: int = 1
    #: the first attempt takes its child with it
    kills: bool = False


@attrs.frozen
class Seam:
    """A place between two steps of one ending."""

    ending: Ending
    #: what does not come through, and the queue's name in it
    step: Step
    queue: str
    #: what the broker has
    arrived: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.ending.task}, {self.step.name.lower()} {self.queue.format('queue')}"


ENDINGS = (
    Ending("returned", (RESULT,), ("SUCCESS",)),
    Ending("raised", (RESULT,), ("FAILURE",)),
    Ending("retried", (RESULT, RETRY), ("RETRY", "SUCCESS"), attempts=2),
    Ending("rejected", (RESULT, LETTER), ("FAILURE",)),
    Ending("lost", (RETRY,), ("SUCCESS",), kills=True),
)


def seams(ending: Ending) -> Iterator[Seam]:
    """Yield every seam, from the outcome to the acknowledgement."""
    for count, queue in enumerate(ending.published, 1):
        yield Seam(ending, Step.PUBLISH, queue, ending.published[: count - 1])
        yield Seam(ending, Step.CONFIRM, queue, ending.published[:count])
    yield Seam(ending, Step.ACK, "{}", ending.published)


EVERY_SEAM = [seam for ending in ENDINGS for seam in seams(ending)]
#: to a lost connection those are one at which the broker has the same, and the same does not come through
THOSE_CUT = list({(seam.step, seam.queue, seam.arrived): seam for seam in reversed(EVERY_SEAM)}.values())


@attrs.frozen
class Scene:
    """A queue, a journal, and the answers to the client."""

    broker: str
    queue: str
    journal: Journal
    console: BrokerConsole

    @property
    def answers(self) -> str:
        """The queue of the results."""
        return RESULT.format(self.queue)

    @property
    def dead(self) -> str:
        """The dead-letter queue."""
        return LETTER.format(self.queue)

    def worker(self, broker: str | None = None) -> Worker:
        """Start a worker that takes one message at a time."""
        options = ("--concurrency=1", "--prefetch-multiplier=1")
        return Worker(broker or self.broker, self.queue, *options, app=APP, env={JOURNAL: str(self.journal.path)})

    def send(self, task: str, task_id: str, args: Collection[object] = ()) -> None:
        """Send a call whose results stay where they can be counted."""
        request = Request(task=f"{APP}.{task}", id=task_id, queue=self.queue, args=tuple(args), reply_to=self.answers)

        async def publish() -> None:
            async with RabbitBroker(self.broker, lambda _: None) as connection:
                await connection.connected(PATIENCE)
                await connection.publish(to_message(request, dt.datetime.now(dt.UTC)))

        anyio.run(publish)

    def begin(self, ending: Ending) -> None:
        """Send the call."""
        fuse = self.journal.path.with_name("fuse")
        fuse.touch()
        self.send(ending.task, "it", [str(fuse)] if ending.kills else [])

    def finish(self, ending: Ending) -> None:
        """Wait until every attempt was made, and whatever had been queued before the last of them is done."""
        finished(self.journal, attempts(ending))
        self.send("returned", "last")
        finished(self.journal, ["last.0"])

    def at_broker(self, seam: Seam) -> None:
        """See that the broker has what it must have at this seam, the message itself included, and no more."""
        self.console.until_depth(self.queue, 1 + (RETRY in seam.arrived))
        assert self.console.depth(self.answers) == (RESULT in seam.arrived)
        assert max(0, self.console.depth(self.dead)) == (LETTER in seam.arrived)


@pytest.fixture
def scene(broker_url: str, queue_name: str, journal: Journal) -> Iterator[Scene]:
    """Everything is new."""
    with BrokerConsole(broker_url) as console:
        made = Scene(broker_url, queue_name, journal, console)
        for queue in (made.queue, made.answers):
            console.declare(queue)
        yield made
        for queue in (made.queue, made.answers, made.dead):
            console.delete(queue)


def attempts(ending: Ending) -> list[str]:
    """Return the attempts' names in the journal."""
    return [f"it.{number}" for number in range(ending.attempts)]


def audit(scene: Scene, ending: Ending, *workers: Worker) -> None:
    """Assert that nothing is lost, and nothing was done more than once too often."""
    scene.console.until_depth(scene.queue, 0)
    names = attempts(ending)
    starts = {name: scene.journal.started(name) for name in names}
    # each attempt is a message of its own; deliveries beyond these are repetitions by the broker
    again = deliveries(*workers)["it"] - len(names)
    account(
        [*names, "last.0"],
        scene.journal,
        depth=0,
        killed={starts["it.0"][0]: "child lost"} if ending.kills else {},
        redelivered=dict.fromkeys(names, 1 + again),
    )
    assert all(len(pids) <= 2 + (ending.kills and name == "it.0") for name, pids in starts.items()), starts
    states = [state for task_id, state in told(scene) if task_id == "it"]
    assert set(states) == set(ending.states)
    assert all(states.count(state) <= 2 for state in states), states
    dead_lettered = max(0, scene.console.depth(scene.dead))
    assert dead_lettered in ((1, 2) if ending.task == "rejected" else (0,))
    assert all(scene.console.take(scene.dead).headers["id"] == "it" for _ in range(dead_lettered))


def told(scene: Scene) -> list[tuple[str, str]]:
    """Return what clients have been told: ids and states."""
    metas = [json.loads(scene.console.take(scene.answers).body) for _ in range(scene.console.depth(scene.answers))]
    return [(meta["task_id"], meta["status"]) for meta in metas]


@pytest.mark.parametrize("seam", EVERY_SEAM, ids=str)
def test_parent_killed(seam: Seam, scene: Scene, rabbit_node: Node) -> None:
    """A worker killed between any two steps of settling loses no task, result, retry or dead letter."""
    scene.begin(seam.ending)
    with (
        stopped_at(rabbit_node.port, seam.step, seam.queue.format(scene.queue)) as proxy,
        scene.worker(proxy.url) as first,
    ):
        proxy.stop.wait()
        first.main.kill()
        first.wait()
    scene.at_broker(seam)
    with scene.worker() as second:
        scene.finish(seam.ending)
    audit(scene, seam.ending, first, second)


@pytest.mark.parametrize("seam", THOSE_CUT, ids=str)
def test_connection_cut(seam: Seam, scene: Scene, rabbit_node: Node) -> None:
    """A connection lost between two steps of settling loses no task, result, retry or dead letter."""
    scene.begin(seam.ending)
    with (
        stopped_at(rabbit_node.port, seam.step, seam.queue.format(scene.queue)) as proxy,
        scene.worker(proxy.url) as at_work,
    ):
        proxy.stop.wait()
        proxy.cut()
        at_work.see("No connection to")
        scene.finish(seam.ending)
    audit(scene, seam.ending, at_work)
