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
from tests.faults.chaos.app import WHO
from tests.faults.chaos.plan import OURS, WORKERS, Kind
from tests.faults.chaos.sender import HEARTBEAT
from tests.faults.ledger import Journal
from tests.proxy import Link, Proxy
from tests.rabbit import Node
from tests.workers import PATIENCE, Worker

T = TypeVar("T")
QUEUE = "chaos"
#: seconds between looks
LOOK = 0.05
#: seconds; what broke several times waits half a minute before it tries again
RECOVERY = 75.0
#: lines of each log to be shown with an error; those of tasks that went well are too many
TAIL = 25
WELL = (" received", " succeeded in ", " raised expected", "forked, pid", " ready", "retry: ")


class Way(Proxy):
    """A proxy that does not mind if there is nobody behind it."""

    @property
    def url(self) -> str:
        """The broker's address for whoever goes this way."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def live(self) -> list[Link]:
        """Return the connections that work."""
        return [link for link in self.links if not link.is_dead and not link.ends[0].transport.is_closing()]

    async def _accept(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        try:
            await super()._accept(near_in, near_out)
        except OSError:
            near_out.transport.abort()


@attrs.frozen(kw_only=True)
class Hit:
    """What happened in fact, and to whom. Times are the machine's monotonic seconds."""

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

    def __init__(self, node: Node, queue_type: str, folder: Path, options: Sequence[str]) -> None:
        """:param options: further ones for the workers."""
        self.node = node
        self.node_is_busy = False
        self.journal = Journal(folder / "journal")
        self.seats: list[Seat] = []
        self.sender_way = Way(node.port)
        self.hits: list[Hit] = []
        #: of those that were stopped in good order
        self.exit_codes: list[int] = []
        #: whoever ended by himself, and how
        self.deserters: list[str] = []
        self.folder = folder
        own = ("--concurrency=2", "--default-queue-type", queue_type, f"--broker-heartbeat={HEARTBEAT}s")
        self._options = (*own, *options)

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
        env = {JOURNAL: str(self.journal.path), WHO: name}
        options = (*self._options, f"--hostname={name}@chaos")
        seat.lives.append(await in_thread(lambda: Worker(seat.way.url, QUEUE, *options, app=OURS, env=env, ready=0)))
        await until(lambda: seat.is_ready or seat.is_deserted, RECOVERY, f"{name} ready")

    async def stop(self, seat: Seat) -> None:
        """End a life in good order."""
        self.exit_codes.append(await in_thread(seat.worker.stop))

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
