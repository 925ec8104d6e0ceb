"""Apps as guests: embedded workers beside others, sync calls where no loop can start, processes that fork."""

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hybridpool import embedded, events
from tests.apps import second, worker

# starting a zygote reads the pipe on which exec would tell its failure
pytestmark = pytest.mark.may_block

ROOT = Path(__file__).parents[2]
#: seconds
PATIENCE = 30.0
#: does what sniffio does: outside of a task it knows only what the context says
SNIFFIO = """
import asyncio
from contextvars import ContextVar
current_async_library_cvar = ContextVar("current_async_library_cvar", default=None)
class AsyncLibraryNotFoundError(RuntimeError): ...
def current_async_library():
    named = current_async_library_cvar.get()
    if named is None:
        try:
            named = "asyncio" if asyncio.current_task() is not None else None
        except RuntimeError:
            pass
    if named is None:
        raise AsyncLibraryNotFoundError
    return named
"""


def run_program(folder: Path, text: str) -> str:
    """Run a program in a folder to its end; return what it prints."""
    (folder / "program.py").write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_beside_sniffio(tmp_path: Path) -> None:
    """An embedded worker settles its tasks where sniffio is installed and `asyncio.run` started the loop."""
    (tmp_path / "sniffio.py").write_text(SNIFFIO)
    printed = run_program(
        tmp_path,
        """
        import asyncio, sniffio
        from hybridpool import embedded
        from tests.apps import worker
        async def main():
            async with embedded(worker.app, worker_concurrency=1):
                handles = await worker.add.enqueue_many([(n, 1) for n in range(20)])
                print([await handle.get(timeout=20) for handle in handles] == list(range(1, 21)))
            print(sniffio.current_async_library_cvar.get())
        asyncio.run(main())
        """,
    )
    # What the worker says in its own tasks is not said in the program's.
    assert printed == "True\nNone\n"


async def test_two_workers_on_one_bus() -> None:
    """Two embedded workers send their events to one bus, and neither acts on the other's events."""
    bus, heard = events.Bus(), list[events.Event]()
    bus.subscribe(heard.append)
    async with embedded(worker.app, bus=bus, worker_concurrency=1):
        async with embedded(second.app, bus=bus, worker_concurrency=2):
            handles = [await worker.add.enqueue(n, 1) for n in range(5)]
            bus.emit(events.BrokerLost("amqp://", "a stranger's", 1.0))
            assert [await handle.get(timeout=PATIENCE) for handle in handles] == [1, 2, 3, 4, 5]
        assert await (await worker.add.enqueue(2, 3)).get(timeout=PATIENCE) == 5
    assert len([event for event in heard if isinstance(event, events.TaskSucceeded)]) == 6


async def test_two_workers_that_overlap() -> None:
    """Of two embedded workers of one app the later one gets the calls, and the earlier one may end first."""
    first, later = (embedded(worker.app, worker_concurrency=1) for _ in range(2))
    await asyncio.create_task(_entered_and_left(first, later))


async def _entered_and_left(first: object, later: object) -> None:
    async def live(one: object, is_up: asyncio.Event, is_over: asyncio.Event) -> None:
        async with one:  # type: ignore[attr-defined]  # what `embedded` gives
            is_up.set()
            await is_over.wait()

    ups, overs = [asyncio.Event() for _ in range(2)], [asyncio.Event() for _ in range(2)]
    lives = []
    for one, is_up, is_over in zip((first, later), ups, overs, strict=True):
        lives.append(asyncio.create_task(live(one, is_up, is_over)))
        await is_up.wait()
    overs[0].set()
    await lives[0]
    assert await (await worker.add.enqueue(2, 3)).get(timeout=PATIENCE) == 5
    overs[1].set()
    await lives[1]
    assert worker.app._outbox.transport_override is None


async def test_sync_calls_to_an_embedded_worker() -> None:
    """`delay` reaches an embedded worker from its own thread and from others, though it uses another loop."""
    async with embedded(worker.app, worker_concurrency=1):
        handle = worker.add.delay(2, 3)
        assert await asyncio.to_thread(handle.get, PATIENCE) == 5
        assert await asyncio.to_thread(lambda: worker.add.delay(3, 4).get(PATIENCE)) == 7
    await asyncio.to_thread(worker.app.close)


UNREACHABLE = """
import atexit, os, threading
from hybridpool import App
app = App("guest", broker="amqp://guest:guest@127.0.0.1:1//", broker_connection_timeout=0.2)
def call(where):
    try:
        app.send_task("t")
    except Exception as error:
        print(where, type(error).__name__, str(error).partition(":")[0].partition(" to ")[0], flush=True)
"""


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        (
            """
import resource
call("first"); app.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); kept = []
try:
    while True: kept.append(os.open("/dev/null", os.O_RDONLY))
except OSError: pass
call("none left")
for fd in kept: os.close(fd)
call("again")
""",
            [
                "first BrokerUnavailable no connection",
                "none left BrokerUnavailable sync calls cannot be sent",
                "again BrokerUnavailable no connection",
            ],
        ),
        ("atexit.register(call, 'at exit')", ["at exit BrokerUnavailable no connection"]),
        (
            "atexit.register(call, 'at exit'); call('before')",
            ["before BrokerUnavailable no connection", "at exit BrokerUnavailable no connection"],
        ),
        (
            """
with app._outbox._portal_lock:
    pid = os.fork()
if pid == 0:
    call("child"); os._exit(0)
os.waitpid(pid, 0)
call("parent")
""",
            ["child BrokerUnavailable no connection", "parent BrokerUnavailable no connection"],
        ),
    ],
    ids=["no descriptor left", "at exit", "at exit, after a call", "forked while another thread sends"],
)
def test_sync_calls_end(tmp_path: Path, program: str, printed: list[str]) -> None:
    """A synchronous call whose background loop cannot start, or is gone, ends in an error or uses a new loop."""
    assert run_program(tmp_path, UNREACHABLE + program).splitlines() == printed
