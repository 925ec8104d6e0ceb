"""What is harmed: a node, three workers, each behind a proxy of its own, and the publisher behind a fourth."""

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
from tests.proxy import ChildHandle, Proxy
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


class Way(Proxy):
    """A proxy that does not mind if there is nobody behind it."""

    def url(self, user: str = "guest") -> str:
        """Return the broker's address for a user, whose password is the name, who goes this way."""
        return f"amqp://{user}:{user}@127.0.0.1:{self.port}//"

    def live(self) -> list[ChildHandle]:
        """Return the connections that work."""
        return [child for child in self.children if not child.is_dead and not child.ends[0].transport.is_closing()]

    async def _accept(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        try:
            await super()._accept(near_in, near_out)
        except OSError:
            near_out.transport.abort()


@attrs.frozen(kw_only=True)
class Hit:
    """What happened in event, and to whom. Times are the machine's monotonic seconds."""

    kind: Kind
    begin: float
    #: until then somebody may not have noticed
    end: float
    #: name of the worker; None: all of them
    worker: str | None = None
    #: of the child or zygote
    pid: int | None = None


@attrs.define
class Seat:
    """A place for a worker, which may live there several times."""

    number: int
    way: Way
    lives: list[Worker] = attrs.field(factory=list)
    #: something is happening to it already
    is_busy: bool = False

    @property
    def worker(self) -> Worker:
        """Whoever sits there."""
        return self.lives[-1]

    @property
    def is_ready(self) -> bool:
        """Whoever sits there can take tasks; the node may be away just now, so this may last."""
        return bool(self.worker.seen(r"ready\.$"))

    @property
    def is_deserted(self) -> bool:
        """Whoever sat there is gone, and nobody has made him."""
        try:
            return psutil.Process(self.worker.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    @property
    def name(self) -> str:
        """The name of this life."""
        return f"w{self.number}.{len(self.lives) - 1}"


class Estate:
    """All of it."""

    def __init__(
        self, node: Node, queue_type: str, folder: Path, options: Sequence[str], odd: Sequence[ChaosCall] = ()
    ) -> None:
        """Know it; see `prepare` and `open`.

        :param options: further ones for the workers.
        :param odd: calls that are sent as bytes.
        """
        self.node = node
        self.node_is_busy = False
        self.journal = Journal(folder / "journal")
        self.seats: list[Seat] = []
        self.sender_way = Way(node.port)
        self.hits: list[Hit] = []
        self.odd = list(odd)
        #: letters that the operator has taken out of dead-letter queues, and sent back: the calls' names
        self.taken: list[str] = []
        self.replayed: list[str] = []
        #: what the operator could not do
        self.troubles: list[str] = []
        #: of those that were stopped in good order
        self.exit_codes: list[int] = []
        #: whoever ended by himself, and how
        self.deserters: list[str] = []
        self.folder = folder
        self._queue_type = queue_type
        own = ("--concurrency=2", "--default-queue-type", queue_type, f"--broker-heartbeat={HEARTBEAT}s")
        self._options = (*own, "--queues", ",".join(QUEUES), "--result-backend", "rpc://", *options)
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
        async with AsyncExitStack() as ways:
            await ways.enter_async_context(self.sender_way)
            for number in range(WORKERS):
                self.seats.append(Seat(number, await ways.enter_async_context(Way(self.node.port))))
            try:
                async with anyio.create_task_group() as starting:
                    for seat in self.seats:
                        starting.start_soon(self.start, seat)
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await in_thread(self._destroy)

    async def start(self, seat: Seat) -> None:
        """Begin a life."""
        name = f"w{seat.number}.{len(seat.lives)}"
        env = {JOURNAL: str(self.journal.path), WHO: name, MARKS: str(self._marks)}
        options = (*self._options, f"--hostname={name}@chaos")
        seat.lives.append(
            await in_thread(lambda: Worker(seat.way.url(USER), MAIN, *options, app=OURS, env=env, ready=0))
        )
        await until(lambda: seat.is_ready or seat.is_deserted, RECOVERY, f"{name} ready")

    async def stop(self, seat: Seat) -> None:
        """End a life in good order."""
        try:
            self.exit_codes.append(await in_thread(seat.worker.stop))
        except AssertionError as error:
            self.troubles.append(f"{seat.name} was to stop: {error}")
            await in_thread(seat.worker.destroy)

    async def replace(self, seat: Seat) -> None:
        """Begin another life where one has ended by itself, and remember that."""
        code = await in_thread(seat.worker.wait)
        self.deserters.append(f"{seat.name} ended by itself, exit code {code}")
        # nobody knows since when
        self.note(Kind.DESERTED, time.monotonic() - RECOVERY, worker=seat.name)
        await self.start(seat)

    async def stop_all(self) -> None:
        """End all lives in good order."""
        async with anyio.create_task_group() as stopping:
            for seat in self.seats:
                stopping.start_soon(self.stop, seat)

    def note(
        self, kind: Kind, begin: float, *, notice: float = 0.0, worker: str | None = None, pid: int | None = None
    ) -> None:
        """Note what has happened just now.

        :param notice: seconds until everybody has noticed.
        """
        self.hits.append(Hit(kind=kind, begin=begin, end=time.monotonic() + notice, worker=worker, pid=pid))

    def logs(self) -> dict[str, list[str]]:
        """Return what each worker said in each of its lives."""
        return {f"w{seat.number}.{at}": life.lines for seat in self.seats for at, life in enumerate(seat.lives)}

    def tails(self) -> str:
        """Return the end of the log of each who is there now, but for what went well."""
        told = []
        for seat in self.seats:
            if seat.lives:
                lines = [line for line in seat.worker.lines if not any(word in line for word in WELL)]
                told += [f"---- {seat.name}", *lines[-TAIL:]]
        return "\n".join([*told, f"The journal and all logs are in {self.folder}"])

    def _destroy(self) -> None:
        for seat in self.seats:
            for life in seat.lives:
                life.destroy()
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
