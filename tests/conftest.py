"""What holds for all tests: markers by folder, a private RabbitMQ node, and guards that let nothing stay behind.

After each test: no process that it started, no socket, pipe or event fd that it opened. During an async test: nothing
in hybridpool blocks the event loop.
"""

import gc
import inspect
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tests.apt_install import ServerAbsent
from tests.guards import blocking_watch, our_processes, tell, watched_fds
from tests.postgres import Postgres
from tests.private_server import PrivateServer
from tests.rabbit import MARK, Node, wait_for
from tests.redis_server import Redis

# A test has a deadline, each of its examples has none, and none is made too slowly: a busy machine is not a
# fault of the code
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

HERE = Path(__file__).parent
#: seconds that a test's processes and fds may take to go after its end, on a busy machine
GRACE = 30.0
SHARED_PIDS = pytest.StashKey[set[int]]()
S = TypeVar("S", bound=PrivateServer)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the whole suite run on the plain asyncio loop too."""
    parser.addoption("--loop", choices=("uvloop", "asyncio"), default="uvloop", help="event loop of async tests")


def pytest_configure(config: pytest.Config) -> None:
    """Mark what this run starts by exec, so that orphans are found even when their parent is gone."""
    config.stash[SHARED_PIDS] = set()
    os.environ[MARK] = uuid.uuid4().hex
    # setproctitle writes its title over the environment that /proc shows, and with it over the mark. The price is a
    # title no longer than the command line; a test of titles takes this variable out again for what it starts
    os.environ["SPT_NOENV"] = "1"
    # libuv opens a pipe for signals with its first loop and keeps it for ever; not a leak of the first async test
    uvloop.new_event_loop().close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder: tests/faults/test_x.py is a fault test."""
    for item in items:
        if HERE in item.path.parents and item.path.parent != HERE:
            item.add_marker(item.path.relative_to(HERE).parts[0])


@pytest.fixture(scope="session")
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Async tests run on uvloop unless ``--loop=asyncio`` is given, or a test is parametrized by ``anyio_backend``."""
    return "asyncio", {"use_uvloop": request.config.getoption("--loop") == "uvloop"}


@pytest.fixture(scope="session")
def rabbit_node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """One node for the whole run, booted when first asked for. Tests that harm a node start one of their own."""
    yield from shared(request, Node)


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """One PostgreSQL server for the whole run, started when first asked for. Take a database of your own in it."""
    yield from shared(request, Postgres)


@pytest.fixture(scope="session")
def redis(request: pytest.FixtureRequest) -> Iterator[Redis]:
    """One Redis server for the whole run, started when first asked for. Tests that harm a server start their own."""
    yield from shared(request, Redis)


def shared(request: pytest.FixtureRequest, kind: Callable[[], S]) -> Iterator[S]:
    """Start a server that all tests of the run may use; if its program is absent, say how to get it."""
    try:
        server = kind()
    except ServerAbsent as absent:
        pytest.fail(str(absent), pytrace=False)
    with server:
        request.config.stash[SHARED_PIDS].add(server.pid)
        yield server


@pytest.fixture
def broker_url(rabbit_node: Node) -> str:
    """Where the run's node is. It is shared: take queues by the name that ``queue_name`` gives."""
    return rabbit_node.url


@pytest.fixture
def queue_name() -> str:
    """Return a name that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process or an fd; end the process, so that the next test does not suffer."""
    shared = request.config.stash[SHARED_PIDS]
    processes, fds = our_processes(shared), watched_fds()
    yield

    def clean() -> bool:
        return our_processes(shared) <= processes and watched_fds() <= fds

    if clean():
        return
    # what is only waiting for the collector has an owner, and is not a leak
    gc.collect()
    if wait_for(clean, GRACE):
        return
    orphans = our_processes(shared) - processes
    told = [f"process {tell(orphan)}" for orphan in orphans] + [f"fd {fd}" for fd in watched_fds() - fds]
    for orphan in orphans:
        orphan.kill()
    psutil.wait_procs(orphans, timeout=GRACE)
    pytest.fail("left behind: " + "; ".join(told))


@pytest.fixture(autouse=True)
def loop_not_blocked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail an async test in which hybridpool blocks the loop: sleeps, reads a file, waits on a blocking socket."""
    is_async = inspect.iscoroutinefunction(getattr(request.node, "obj", None))
    if not is_async or request.node.get_closest_marker("may_block"):
        yield
        return
    watch = blocking_watch()
    watch.activate()
    yield
    watch.deactivate()
