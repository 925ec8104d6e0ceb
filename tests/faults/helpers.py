"""What fault tests share: numbered calls, their way to the broker, and deadlines for what other processes do."""

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import anyio
import attrs
import psutil

from hybridpool import App
from hybridpool._brokers.rabbitmq import RabbitBroker
from hybridpool._protocol.task_message import Request, to_message
from tests.faults.apps import JOURNAL
from tests.faults.ledger import Journal
from tests.queues import BrokerConsole
from tests.workers import PATIENCE, Gate, Worker

APP = "tests.faults.apps"
#: seconds in which all that belonged to a killed process must be gone; less than one, but for a busy machine
GONE = 30.0
#: seconds between looks
LOOK_AGAIN = 0.005
#: messages on their way to the broker at a time
AT_ONCE = 100


def wait_until(true: Callable[[], object], limit: float = PATIENCE, what: str = "it") -> float:
    """Look until it is true, and return the seconds that took. For what other processes do and do not announce."""
    begun = time.monotonic()
    while not true():
        if time.monotonic() - begun > limit:
            raise AssertionError(f"{what}: not within {limit:g} s")
        time.sleep(LOOK_AGAIN)
    return time.monotonic() - begun


async def until(true: Callable[[], object], limit: float = PATIENCE) -> None:
    """As `wait_until`, on an event loop."""
    with anyio.fail_after(limit):
        while not true():  # noqa: ASYNC110  what it waits for is outside, and has no event
            await anyio.sleep(LOOK_AGAIN)


def is_gone(process: psutil.Process) -> bool:
    """Tell whether a process has ended, and is not a zombie that one of ours has not reaped."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE and process.ppid() == 1
    except psutil.NoSuchProcess:
        return True


def wait_gone(processes: Sequence[psutil.Process], limit: float = GONE) -> float:
    """Wait until they have all ended, and return the seconds that took."""
    return wait_until(lambda: all(map(is_gone, processes)), limit, f"the end of {processes}")


@attrs.frozen
class Call:
    """A task to be sent."""

    id: str
    task: str = "number"
    args: Sequence[object] = ()


def numbers(count: int, *, first: int = 0, gate: Gate | None = None, gated: Sequence[int] = ()) -> list[Call]:
    """Return numbered calls: n0000, n0001, …

    :param gated: which of them stand in the gate.
    """
    at_gate = (gate.path,) if gate is not None else ()
    return [Call(f"n{n:04}", args=at_gate if n in gated else ()) for n in range(first, first + count)]


def publish(broker: str, queue: str, calls: Sequence[Call]) -> list[str]:
    """Send the calls in their order, confirmed; returns their ids."""

    async def send_all() -> None:
        async with App("sender", broker=broker, task_default_queue=queue) as app:
            await send_with(app, calls)

    anyio.run(send_all)
    return [call.id for call in calls]


def publish_for_reply(broker: str, queue: str, call: Call, reply_to: str) -> None:
    """Send a call whose result goes to a queue of the test's own."""
    request = Request(task=f"{APP}.{call.task}", id=call.id, queue=queue, args=call.args, reply_to=reply_to)

    async def send() -> None:
        async with RabbitBroker(broker, lambda _: None) as connection:
            await connection.connected(PATIENCE)
            await connection.publish(to_message(request, dt.datetime.now(dt.UTC)))

    anyio.run(send)


async def send_with(app: App, calls: Sequence[Call]) -> None:
    """Send the calls in their order."""

    async def send(call: Call) -> None:
        await app.send(f"{APP}.{call.task}", call.args, task_id=call.id, ignore_result=True)

    for first in range(0, len(calls), AT_ONCE):
        async with anyio.create_task_group() as sending:
            for call in calls[first : first + AT_ONCE]:
                sending.start_soon(send, call)


def worker(
    broker: str,
    queue: str,
    journal: Journal,
    *options: str,
    env: Mapping[str, str] | None = None,
    ready: int = 2,
    app: str = APP,
) -> Worker:
    """Start a worker of two children for the fault tests' app, which holds eight messages."""
    words = ("--concurrency=2", "--prefetch-multiplier=4", *options)
    return Worker(broker, queue, *words, app=app, env={JOURNAL: str(journal.path), **(env or {})}, ready=ready)


def deliveries(*outputs: Worker) -> Mapping[str, int]:
    """Return how often each task came in, as the workers' logs say; more than once: it was delivered again."""
    found = (match for output in outputs for match in output.seen(r"Task [\w.]+\[([^\]]+)\] received"))
    return Counter(match[1] for match in found)


def pid_of(output: Worker, child: int) -> int:
    """Return the pid of ForkPoolWorker-n, once it is ready."""
    name = f"ForkPoolWorker-{child}"
    output.see(rf"{name} \(pid \d+\) ready")
    return int(output.see(rf"{name} forked, pid (\d+)")[0][1])


def finished(journal: Journal, ids: Collection[str], limit: float = PATIENCE) -> None:
    """Wait until each of them was done at least once."""
    wait_until(lambda: journal.finished().issuperset(ids), limit, f"the end of {len(ids)} tasks")


def reached(journal: Journal, count: int) -> None:
    """Wait until so many tasks are done."""
    wait_until(lambda: len(journal.finished()) >= count, what=f"the end of {count} tasks")


def run_out(broker: str, queue: str, journal: Journal) -> list[str]:
    """Send one more call and wait for its end: then all that came before it has been started. Returns its id."""
    last = publish(broker, queue, [Call("last")])
    finished(journal, last)
    return last


def settled(broker: str, queue: str) -> int:
    """Return the depth of a queue that is not consumed any more; 0 if all was well."""
    with BrokerConsole(broker) as console:
        return console.depth(queue)
