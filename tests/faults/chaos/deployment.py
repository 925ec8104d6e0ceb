"""The processes under test: a node, three workers, each behind a proxy, and the publisher behind a fourth."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import attrs
import psutil
from anyio.to_thread import run_sync

from tests.faults.apps import JOURNAL
from tests.faults.chaos.app import MARKS, WHO
from tests.faults.chaos.calls import (
    ANSWERS,
    FORBIDDEN,
    FULL,
    LETTERS,
    MAIN,
    NARROW,
    OURS,
    QUEUES,
    ROOM,
    ChaosCall,
)
from tests.faults.chaos.letters import take_all
from tests.faults.chaos.plan import WORKERS, Kind
from tests.faults.chaos.sender import HEARTBEAT
from tests.faults.ledger import Journal
from tests.proxy import Connection, Proxy
from tests.queues import BrokerConsole
from tests.rabbit import Node
from tests.workers import PATIENCE, Worker

T = TypeVar("T")
#: the workers' user, who lacks a right
USER = "worker"
#: seconds between looks
LOOK = 0.05
#: seconds; what broke several times waits half a minute before it tries again
RECOVERY = 75.0
#: lines of each log to be shown with an error; those of tasks that went well are too many
TAIL = 25
WELL = (" received", " succeeded in ", " raised expected", "forked, pid", " ready", "retry: ")


class ClientProxy(Proxy):
    """A proxy that resets a connection if the broker is away."""

    def url(self, user: str = "guest") -> str:
        """Return the broker's address through this proxy for a user, whose password is the name."""
        return f"amqp://{user}:{user}@127.0.0.1:{self.port}//"

    def live(self) -> list[Connection]:
        """Return the connections that work."""
        return [one for one in self.connections if not one.is_dead and not one.ends[0].transport.is_closing()]

    async def _accept(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        try:
            await super()._accept(near_in, near_out)
        except OSError:
            near_out.transport.abort()


@attrs.frozen(kw_only=True)
class Hit:
    """A fault that was injected, and where. Times are the machine's monotonic seconds."""

    kind: Kind
    begin: float
    #: until then a process may not have noticed
    end: float
    #: name of the worker; None: all of them
    worker: str | None = None
    #: of the child or zygote
    pid: int | None = None


@attrs.define
class WorkerSlot:
    """One of the workers, which is started several times."""

    number: int
    proxy: ClientProxy
    runs: list[Worker] = attrs.field(factory=list)
    #: a fault is being injected already
    is_busy: bool = False

    @property
    def worker(self) -> Worker:
        """The worker of the latest run."""
        return self.runs[-1]

    @property
    def is_ready(self) -> bool:
        """Whether the worker has been ready; the node may be away just now, so this may take long."""
        return bool(self.worker.seen(r"ready\.$"))

    @property
    def has_exited(self) -> bool:
        """Whether the worker has exited."""
        try:
            return psutil.Process(self.worker.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    @property
    def name(self) -> str:
        """The name of the latest run."""
        return f"w{self.number}.{len(self.runs) - 1}"


class Deployment:
    """Node, workers and publisher's proxy of one chaos run."""

    def __init__(
        self, node: Node, queue_type: str, folder: Path, options: Sequence[str], odd: Sequence[ChaosCall] = ()
    ) -> None:
        """Start nothing yet; see `prepare` and `open`.

        :param options: further ones for the workers.
        :param odd: calls that are sent as bytes.
        """
        self.node = node
        self.node_is_busy = False
        self.journal = Journal(folder / "journal")
        self.slots: list[WorkerSlot] = []
        self.sender_proxy = ClientProxy(node.port)
        self.hits: list[Hit] = []
        self.odd = list(odd)
        #: letters that the operator has taken out of dead-letter queues, and sent back: the calls' names
        self.taken: list[str] = []
        self.replayed: list[str] = []
        #: what the operator could not do
        self.troubles: list[str] = []
        #: of those that were stopped in good order
        self.exit_codes: list[int] = []
        #: the workers that ended by themselves, and how
        self.unexpected_exits: list[str] = []
        self.folder = folder
        self._queue_type = queue_type
        own = ("--concurrency=2", "--default-queue-type", queue_type, f"--broker-heartbeat={HEARTBEAT}s")
        lanes = ("--loop-block-timeout=4s", "--lane-drain-timeout=2s")
        self._options = (*own, *lanes, "--queues", ",".join(QUEUES), "--result-backend", "rpc://", *options)
        self._marks = folder / "marks"

    def prepare(self) -> None:
        """Make user and queues; as workers do with the first letter, for the reason in `Sender.send_all`."""
        self._marks.mkdir()
        self.node.ctl("add_user", USER, USER)
        self._permit(f"^(?!{FORBIDDEN}.dead$)".replace(".", r"\."))
        kind = {} if self._queue_type == "classic" else {"x-queue-type": self._queue_type}
        narrow, full = ({**kind, "x-max-length": most, "x-overflow": "reject-publish"} for most in (LETTERS, ROOM))
        with BrokerConsole(self.node.url) as console:
            for queue in (MAIN, dead(MAIN), FORBIDDEN, NARROW, dead(FULL)):
                console.declare(queue, kind)
            console.declare(dead(NARROW), narrow)
            console.declare(FULL, full)
            # quorum whatever the others are, for answers must outlive the node
            console.declare(ANSWERS, {"x-queue-type": "quorum"})

    def permit_all(self) -> None:
        """Give the workers the right that they lack."""
        self._permit(".*")

    def _permit(self, configure: str) -> None:
        self.node.ctl("set_permissions", USER, configure, ".*", ".*")

    def take_letters(self, queue: str) -> None:
        """Take the dead letters of a queue, and remember them."""
        self.taken += take_all(self.node.port, dead(queue))

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Start the workers; in the end nothing is left of them, and their logs are files."""
        async with AsyncExitStack() as proxies:
            await proxies.enter_async_context(self.sender_proxy)
            for number in range(WORKERS):
                self.slots.append(WorkerSlot(number, await proxies.enter_async_context(ClientProxy(self.node.port))))
            try:
                async with anyio.create_task_group() as starting:
                    for slot in self.slots:
                        starting.start_soon(self.start, slot)
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await in_thread(self._destroy)

    async def start(self, slot: WorkerSlot) -> None:
        """Start the worker."""
        name = f"w{slot.number}.{len(slot.runs)}"
        env = {JOURNAL: str(self.journal.path), WHO: name, MARKS: str(self._marks)}
        options = (*self._options, f"--hostname={name}@chaos")
        slot.runs.append(
            await in_thread(lambda: Worker(slot.proxy.url(USER), MAIN, *options, app=OURS, env=env, ready=0))
        )
        await until(lambda: slot.is_ready or slot.has_exited, RECOVERY, f"{name} ready")

    async def stop(self, slot: WorkerSlot) -> None:
        """Stop the worker in order."""
        try:
            self.exit_codes.append(await in_thread(slot.worker.stop))
        except AssertionError as error:
            self.troubles.append(f"{slot.name} was to stop: {error}")
            await in_thread(slot.worker.destroy)

    async def replace(self, slot: WorkerSlot) -> None:
        """Start the worker again after it ended by itself, and note that."""
        code = await in_thread(slot.worker.wait)
        self.unexpected_exits.append(f"{slot.name} ended by itself, exit code {code}")
        # it may have ended any time before
        self.note(Kind.EXITED, time.monotonic() - RECOVERY, worker=slot.name)
        await self.start(slot)

    async def stop_all(self) -> None:
        """Stop all workers in order."""
        async with anyio.create_task_group() as stopping:
            for slot in self.slots:
                stopping.start_soon(self.stop, slot)

    def note(
        self, kind: Kind, begin: float, *, notice: float = 0.0, worker: str | None = None, pid: int | None = None
    ) -> None:
        """Note a fault that has just been injected.

        :param notice: seconds until every process has noticed.
        """
        self.hits.append(Hit(kind=kind, begin=begin, end=time.monotonic() + notice, worker=worker, pid=pid))

    def logs(self) -> dict[str, list[str]]:
        """Return the log lines of each run of each worker."""
        return {f"w{slot.number}.{at}": run.lines for slot in self.slots for at, run in enumerate(slot.runs)}

    def tails(self) -> str:
        """Return the end of each worker's latest log, without the lines of tasks that went well."""
        told = []
        for slot in self.slots:
            if slot.runs:
                lines = [line for line in slot.worker.lines if not any(word in line for word in WELL)]
                told += [f"---- {slot.name}", *lines[-TAIL:]]
        return "\n".join([*told, f"The journal and all logs are in {self.folder}"])

    def _destroy(self) -> None:
        for slot in self.slots:
            for run in slot.runs:
                run.destroy()
        for name, lines in self.logs().items():
            (self.folder / f"{name}.log").write_text("\n".join(lines) + "\n")


def dead(queue: str) -> str:
    """Return the name of a queue's dead-letter queue."""
    return f"{queue}.dead"


async def in_thread(call: Callable[[], T]) -> T:
    """Do what waits for processes; it has deadlines of its own."""
    return await run_sync(call)


async def until(true: Callable[[], object], limit: float = PATIENCE, what: str = "it") -> None:
    """Look until it is true.

    :raises AssertionError: if that is not in time.
    """
    with anyio.move_on_after(limit):
        while not true():  # noqa: ASYNC110  others get on with it, and announce nothing
            await anyio.sleep(LOOK)
        return
    raise AssertionError(f"{what}: not within {limit:g} s")
