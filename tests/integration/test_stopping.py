"""How a worker stops: warmly, coldly, before it has begun, as PID 1; and how it starts when there is no broker."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import anyio.from_thread
import anyio.to_thread
import psutil
import pytest

from tests.faults.ledger import tell
from tests.proxy import Proxy
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.workers import PATIENCE, Entered, Gate, Worker, client_of, gate_in

WARM, COLD = r"WARNING/MainProcess\] worker: Warm shutdown", r"WARNING/MainProcess\] worker: Cold shutdown"
#: seconds for a stop, on a busy machine; about half of it is promised
IN_TIME = 14.0
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate for this test's tasks."""
    with gate_in(tmp_path) as made:
        yield made


@pytest.fixture
def console(broker_url: str, queue_name: str) -> Iterator[BrokerConsole]:
    """Another client's view of the queues; the test's own exists already."""
    with BrokerConsole(broker_url) as opened:
        opened.declare(queue_name)
        yield opened


def load(worker: Worker, gate: Gate, console: BrokerConsole, queue: str) -> Entered:
    """Have one task running, and three received that have not begun; returns the running one."""
    console.call(queue, "worker.hold", gate.path)
    (held,) = gate.entered()
    for number in range(3):
        console.call(queue, "worker.add", number, 1)
    worker.see(r"Task worker\.add\[\S+\] received$", 3)
    assert console.depth(queue) == 0
    return held


@pytest.mark.parametrize("options", [[], ["--no-acks-late"]], ids=["late", "early"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_warm(
    signum: int, options: list[str], broker_url: str, queue_name: str, gate: Gate, console: BrokerConsole
) -> None:
    """A warm stop returns at once what has not begun, waits for the running task, and ends with code 0."""
    with Worker(broker_url, queue_name, "-c1", *options) as worker:
        held = load(worker, gate, console, queue_name)
        began = time.monotonic()
        worker.send(signum)
        # at once: the running task has not ended yet
        console.until_depth(queue_name, 3)
        tell(f"what had not begun was back {(time.monotonic() - began) * 1000:.0f} ms after the signal")
        worker.see(WARM)
        assert psutil.pid_exists(held.pid)
        gate.release()
        assert worker.wait() == 0
        worker.see(r"Task worker\.hold\[\S+\] succeeded")
        assert len(worker.seen(r"Ctrl\+C again")) == (signum == signal.SIGINT)
        assert not worker.seen(r"Task worker\.add\[\S+\] succeeded|ERROR/|Traceback")
    assert console.depth(queue_name) == 3
    assert console.depth(f"{queue_name}.dead") == -1


def test_warm_delivers_the_last_result(broker_url: str, queue_name: str, gate: Gate) -> None:
    """A result that arrives during a warm stop is delivered."""
    with Worker(broker_url, queue_name, "-c1") as worker, client_of(broker_url, queue_name) as us:
        handle = us.send_task("worker.hold", (gate.path,))
        gate.entered()
        worker.send(signal.SIGTERM)
        worker.see(WARM)
        gate.release()
        assert worker.wait() == 0
        assert handle.get(PATIENCE) == "ForkPoolWorker-1"


def test_warm_stop_lets_a_task_enqueue(broker_url: str, queue_name: str, gate: Gate, console: BrokerConsole) -> None:
    """A task can enqueue another one during a warm stop."""
    with Worker(broker_url, queue_name, "-c1") as worker:
        console.call(queue_name, "worker.enqueue_at_last", gate.path, queue_name)
        gate.entered()
        worker.send(signal.SIGTERM)
        worker.see(WARM)
        gate.release()
        assert worker.wait() == 0
        worker.see(r"Task worker\.enqueue_at_last\[\S+\] succeeded")
    assert console.take(queue_name).headers["task"] == "worker.add"


def test_warm_turns_cold_in_time(broker_url: str, queue_name: str, gate: Gate, console: BrokerConsole) -> None:
    """A warm stop becomes cold after `--shutdown-timeout`, and all tasks go back to the queue."""
    with Worker(broker_url, queue_name, "-c1", "--shutdown-timeout=500ms") as worker:
        held = load(worker, gate, console, queue_name)
        assert worker.stop() == 1
        assert not psutil.pid_exists(held.pid)
    assert_all_back(console, queue_name)


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGQUIT,),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGQUIT),
    ],
    ids=lambda signals: "+".join(signum.name for signum in signals),
)
def test_cold(signals: tuple[int, ...], broker_url: str, queue_name: str, gate: Gate, console: BrokerConsole) -> None:
    """A cold stop kills the running tasks at once, and all tasks go back to the queue."""
    with Worker(broker_url, queue_name, "-c2", ready=2) as worker:
        console.call(queue_name, "worker.hold", gate.path)
        gate.entered()
        load(worker, gate, console, queue_name)
        for number, signum in enumerate(signals, 1):
            worker.send(signum)
            worker.see(f"{WARM}|{COLD}", number)
        worker.see(COLD)
        assert worker.wait() == 1
    assert_all_back(console, queue_name, 5)


def assert_all_back(console: BrokerConsole, queue: str, count: int = 4) -> None:
    """Check that each message is in its queue, redelivered, and none counted as having killed its child."""
    console.until_depth(queue, count)
    letters = [console.take(queue) for _ in range(count)]
    assert all(letter.redelivered for letter in letters)
    assert not any("x-hybridpool-lost" in letter.headers for letter in letters)
    assert console.depth(f"{queue}.dead") == -1


@pytest.mark.parametrize(
    ("signals", "env", "ends_in_time"),
    [
        ((signal.SIGQUIT,), {}, True),
        ((signal.SIGTERM,), {"REMAP_SIGTERM": "SIGQUIT"}, False),
        ((signal.SIGTERM, signal.SIGQUIT, signal.SIGQUIT), {}, False),
    ],
    ids=["in-time", "too-late", "twice"],
)
def test_soft(
    signals: tuple[int, ...],
    env: dict[str, str],
    ends_in_time: bool,
    broker_url: str,
    queue_name: str,
    gate: Gate,
    console: BrokerConsole,
) -> None:
    """QUIT lets tasks go on for `worker_soft_shutdown_timeout`, then or at the second QUIT the stop is cold; TERM does
    so with REMAP_SIGTERM.
    """
    timeout = "500ms" if env else "5m"
    with Worker(broker_url, queue_name, "-c1", f"--soft-shutdown-timeout={timeout}", env=env) as worker:
        held = load(worker, gate, console, queue_name)
        for number, signum in enumerate(signals, 1):
            worker.send(signum)
            worker.see(r"worker: (Warm|Soft|Cold) shutdown", number)
        assert len(worker.seen(r"WARNING/MainProcess\] Initiating Soft Shutdown, terminating in")) == 1
        if ends_in_time:
            # What has not begun is back: it would run now if the task ended before that.
            console.until_depth(queue_name, 3)
            gate.release()
            assert worker.wait() == 0
            worker.see(r"Task worker\.hold\[\S+\] succeeded")
        else:
            assert worker.wait() == 1
            worker.see(COLD)
            assert not psutil.pid_exists(held.pid)
    if ends_in_time:
        console.until_depth(queue_name, 3)
    else:
        assert_all_back(console, queue_name)


def test_remapped_without_soft(broker_url: str, queue_name: str, gate: Gate, console: BrokerConsole) -> None:
    """With REMAP_SIGTERM, and no time for tasks, TERM stops coldly."""
    with Worker(broker_url, queue_name, "-c1", env={"REMAP_SIGTERM": "SIGQUIT"}) as worker:
        load(worker, gate, console, queue_name)
        assert worker.stop() == 1
        worker.see(COLD)
    assert_all_back(console, queue_name)


def test_cold_at_most_once(broker_url: str, queue_name: str, gate: Gate, console: BrokerConsole) -> None:
    """With task_acks_late off, a task that a cold stop killed does not go back to the queue."""
    with Worker(broker_url, queue_name, "-c1", "--no-acks-late") as worker:
        load(worker, gate, console, queue_name)
        assert worker.stop(signal.SIGQUIT) == 1
    console.until_depth(queue_name, 3)
    assert {console.take(queue_name).headers["task"] for _ in range(3)} == {"worker.add"}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_stop_while_the_app_is_imported(signum: int, broker_url: str, queue_name: str, gate: Gate) -> None:
    """A stop during the app's import ends the worker with code 0, and leaves no process."""
    with Worker(broker_url, queue_name, app="slow", env={"GATE": gate.path}, ready=0) as worker:
        (importing,) = gate.entered()
        worker.send(signum)
        assert worker.wait() == 0
        assert not psutil.pid_exists(importing.pid)
        assert worker.text == ""


def test_stop_before_there_is_a_broker(queue_name: str) -> None:
    """A worker that waits for its broker stops on a signal."""
    node = Node("absent")
    try:
        with Worker(node.url, queue_name, ready=0) as worker:
            worker.see(r"No connection to")
            assert worker.stop() == 0
    finally:
        node.destroy()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGQUIT, 1)])
def test_stop_while_the_state_file_hangs(
    signum: int, code: int, broker_url: str, queue_name: str, tmp_path: Path
) -> None:
    """A state file that cannot be read to its end delays neither the stop nor the exit."""
    fifo = tmp_path / "state"
    os.mkfifo(fifo)
    with Worker(broker_url, queue_name, "-c1", f"--statedb={fifo}") as worker:
        began = time.monotonic()
        assert worker.stop(signum) == code
        assert time.monotonic() - began < IN_TIME


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGQUIT, 1)])
def test_stop_while_the_broker_is_silent(signum: int, code: int, queue_name: str) -> None:
    """A broker that accepts connections and never answers does not delay the stop."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}//"
        with Worker(url, queue_name, "-c1", "--connection-timeout=60s", ready=0) as worker:
            worker.see(r"ForkPoolWorker-1 \(pid \d+\) ready")
            began = time.monotonic()
            assert worker.stop(signum) == code
            assert time.monotonic() - began < IN_TIME


@pytest.mark.may_block
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT])
async def test_stop_while_an_established_connection_is_silent(
    signum: int, broker_url: str, queue_name: str, gate: Gate
) -> None:
    """A network that drops every packet on an open connection does not delay the stop."""
    async with Proxy(urlsplit(broker_url).port or 0) as proxy:

        def run() -> float:
            url = broker_url.replace(f":{urlsplit(broker_url).port}", f":{proxy.port}")
            options = ("-c1", "--shutdown-timeout=500ms")
            with Worker(url, queue_name, *options) as worker, client_of(broker_url, queue_name) as us:
                us.send_task("worker.hold", (gate.path,))
                gate.entered()
                anyio.from_thread.run_sync(proxy.stall)
                began = time.monotonic()
                assert worker.stop(signum) == 1
                return time.monotonic() - began

        took = await anyio.to_thread.run_sync(run)
    tell(f"gone {took:.1f} s after the signal")
    assert took < IN_TIME


@pytest.mark.slow
def test_no_broker_at_the_start(queue_name: str) -> None:
    """A worker started before its broker tries again at growing intervals, logs that, and connects."""
    node = Node("late")
    try:
        with Worker(node.url, queue_name, ready=0) as worker:
            told = worker.see(
                r"ERROR/MainProcess\] No connection to amqp://guest:\*\*@127\.0\.0\.1:\d+//: (.*)\. "
                r"Trying again in ([\d.]+) seconds\.\.\.$",
                3,
            )
            assert "refused" in told[0][1]
            waits = [float(match[2]) for match in told]
            assert waits[0] < waits[2]
            assert not worker.seen(r"ready\.$")
            node.start()
            worker.see(r"Connected to amqp://guest:\*\*@127", within=45)
            worker.see(r"ready\.$")
            with client_of(node.url, queue_name) as us:
                assert us.send_task("worker.add", (2, 3)).get(PATIENCE) == 5
            assert len(worker.seen("No connection to")) < 20
    finally:
        node.destroy()


@pytest.fixture
def namespace() -> tuple[str, ...]:
    """The words that make a command PID 1; skips where that is not allowed."""
    try:
        done = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare(1)")
    if done.returncode:
        pytest.skip(f"not allowed to make a pid namespace: {done.stderr.decode().strip()}")
    return NAMESPACE


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGQUIT, 1)])
def test_stop_as_pid_1(
    signum: int,
    code: int,
    namespace: tuple[str, ...],
    broker_url: str,
    queue_name: str,
    gate: Gate,
    console: BrokerConsole,
) -> None:
    """As PID 1 the worker stops on SIGTERM and SIGQUIT."""
    with Worker(broker_url, queue_name, "-c1", prefix=namespace) as worker:
        console.call(queue_name, "worker.hold", gate.path)
        gate.entered()
        worker.main.send_signal(signum)
        worker.see(WARM if code == 0 else COLD)
        if code == 0:
            gate.release()
        assert worker.wait() == code
    assert console.depth(queue_name) == code


@pytest.mark.slow
def test_reap_as_pid_1(namespace: tuple[str, ...], broker_url: str, queue_name: str, console: BrokerConsole) -> None:
    """As PID 1 the worker reaps the children of a dead zygote, and notices a new zygote's death."""
    with Worker(broker_url, queue_name, "-c2", prefix=namespace, ready=2) as worker:
        orphans = [child.pid for child in worker.children()]
        worker.zygote.send_signal(signal.SIGKILL)
        worker.see(r"The zygote died \(signal 9 \(SIGKILL\)\)")
        worker.see(r"ForkPoolWorker-[34] \(pid \d+\) ready$", 2)
        assert wait_for(lambda: not any(map(psutil.pid_exists, orphans)), PATIENCE)
        console.call(queue_name, "worker.add", 2, 3)
        worker.see(r"Task worker\.add\[\S+\] succeeded in \S+: 5$")
        # the new zygote's end is waited for by the parent, not taken away by the reaper
        worker.zygote.send_signal(signal.SIGKILL)
        worker.see(r"The zygote died \(signal 9 \(SIGKILL\)\)", 2)
        worker.see(r"ForkPoolWorker-[56] \(pid \d+\) ready$", 2)


def test_stop_as_pid_1_while_the_app_is_imported(
    namespace: tuple[str, ...], broker_url: str, queue_name: str, gate: Gate
) -> None:
    """As PID 1 the worker stops on SIGTERM while the app is imported."""
    env = {"GATE": gate.path}
    with Worker(broker_url, queue_name, app="slow", env=env, prefix=namespace, ready=0) as worker:
        gate.entered()
        worker.main.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
