"""The article's prefork worker, scenario by scenario, against a real node: command, configuration, pool, autoscale."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hybridpool import App
from hybridpool.errors import ChildLost
from tests.queues import BrokerConsole
from tests.rabbit import wait_for
from tests.workers import PATIENCE, Gate, Worker, client_of, gate_in

RETIRED_BY_COUNT = r"INFO/MainProcess\] (ForkPoolWorker-\d+) \(pid \d+\) retires: max_tasks_per_child: 2 tasks$"
RETIRED_BY_MEMORY = (
    r"INFO/MainProcess\] (ForkPoolWorker-\d+) \(pid \d+\) retires: max_memory_per_child: ([\d.]+) MiB own, limit "
)
UP, DOWN = r"INFO/MainProcess\] Scaling up (\d+) processes\.$", r"INFO/MainProcess\] Scaling down (\d+) processes\.$"


def concurrency(worker: Worker) -> str:
    """Return what the banner says of the pool's size."""
    return worker.see(r"\.> concurrency: (.*)$")[0][1]


def until(true: Callable[[], bool]) -> None:
    """Wait for something that no line announces."""
    assert wait_for(true, PATIENCE)


def fill(app: App, gate: Gate, count: int) -> None:
    """Bring so many tasks to the gate, one after the other."""
    for _ in range(count):
        app.send_task("worker.hold", (gate.path,))
        gate.entered()


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "options"),
    [
        ("worker.app", ["--concurrency=2", "--pool=prefork"]),
        ("worker:app", ["-c", "2", "-P", "processes"]),
        ("worker", ["-c2"]),
    ],
)
def test_command(app: str, options: list[str], broker_url: str, queue_name: str) -> None:
    """The article's command lines start a worker with two children that run its tasks and log its lines."""
    with Worker(broker_url, queue_name, *options, app=app, ready=2) as worker, client_of(broker_url, queue_name) as us:
        assert concurrency(worker) == "2 (prefork): fixed by --concurrency"
        assert us.send_task("worker.add", (2, 3)).get(PATIENCE) == 5
        assert us.send_task("worker.task1").get(PATIENCE) in ("ForkPoolWorker-1", "ForkPoolWorker-2")
        worker.see(r"INFO/MainProcess\] Task worker\.task1\[[0-9a-f-]{36}\] received$")
        worker.see(r"INFO/ForkPoolWorker-[12]\] Task worker\.task1\[[0-9a-f-]{36}\] succeeded in [\d.]+s: 'Fork")
        assert len(worker.children()) == 2


def test_solo(broker_url: str, queue_name: str) -> None:
    """`--pool=solo` is one child, and a line says that it is not the main process."""
    with Worker(broker_url, queue_name, "--pool=solo") as worker, client_of(broker_url, queue_name) as us:
        assert concurrency(worker) == "1 (prefork): fixed by --pool"
        worker.see(
            r"WARNING/MainProcess\] worker_pool solo: one forked child runs the tasks, not the main process as in"
        )
        assert us.send_task("worker.task1").get(PATIENCE) == "ForkPoolWorker-1"
        assert len(worker.children()) == 1


def test_short_options_and_banner(broker_url: str, queue_name: str) -> None:
    """Short options work, and the banner shows name, app, broker, results, queues and tasks."""
    second = f"{queue_name}-b"
    options = ["-Q", f"{queue_name},{second}", "-n", "w1@%h", "-c1", "--result-backend=rpc://"]
    with Worker(broker_url, queue_name, *options) as worker, client_of(broker_url, second) as us:
        worker.see(r"^ -------------- w1@\S+ v[\d.]+ \(hybridpool\)$")
        worker.see(r"\.> app:         worker$")
        worker.see(r"\.> transport:   amqp://guest:\*\*@127\.0\.0\.1:\d+//$")
        worker.see(r"\.> results:     rpc://$")
        worker.see(r"\.> task events: OFF")
        worker.see(rf"\.> {queue_name} +exchange=\S+ key={queue_name}$")
        worker.see(rf"\.> {second} +exchange=\S+ key={second}$")
        worker.see(r"^  \. worker\.add$")
        worker.see(r"INFO/MainProcess\] w1@\S+ ready\.$")
        assert us.send_task("worker.add", (2, 3)).get(PATIENCE) == 5


def test_without_banner(broker_url: str, queue_name: str) -> None:
    """`--without-banner` leaves the banner out, and the log still has the line `Connected to`."""
    with Worker(broker_url, queue_name, "-c1", "--without-banner") as worker:
        worker.see(r"INFO/MainProcess\] Connected to amqp://guest:\*\*@127\.0\.0\.1:\d+//$")
        assert not worker.seen(r"\[config\]|\[queues\]|\[tasks\]")


# ---- configuration on the live worker --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "env", "options", "count", "source"),
    [
        ("chosen:app", "4", ["--concurrency=1"], 1, "--concurrency"),
        ("chosen:app", "4", [], 4, "HYBRIDPOOL_WORKER_CONCURRENCY"),
        ("chosen:app", "", [], 2, "app.conf.worker_concurrency"),
        ("chosen:only_init", "", [], 3, "App(worker_concurrency=…)"),
    ],
)
def test_four_ways(
    app: str, env: str, options: list[str], count: int, source: str, broker_url: str, queue_name: str
) -> None:
    """A setting is taken from command line, environment, `app.conf` and `App(...)`, in this order of precedence."""
    variables = {"HYBRIDPOOL_WORKER_CONCURRENCY": env}
    with Worker(broker_url, queue_name, *options, app=app, env=variables, ready=count) as worker:
        assert concurrency(worker) == f"{count} (prefork): fixed by {source}"
        assert len(worker.children()) == count


def test_settings_of_the_app_reach_the_broker(broker_url: str, queue_name: str) -> None:
    """A setting given to `App(...)` reaches the worker's parent process."""
    with Worker(broker_url, queue_name, app="chosen:app", ready=2) as worker:
        worker.see(rf"Consuming from {queue_name}, prefetch 14$")


def test_quorum_queue(broker_url: str, queue_name: str) -> None:
    """A queue declared as quorum is a quorum queue, is consumed, and so is its dead-letter queue."""
    with (
        Worker(broker_url, queue_name, "-c1", "--default-queue-type=quorum") as worker,
        client_of(broker_url, queue_name) as us,
        BrokerConsole(broker_url) as console,
    ):
        # the same declaration again is allowed, another one is not
        console.declare(queue_name, {"x-queue-type": "quorum"})
        us.conf.task_default_queue_type = "quorum"
        assert us.send_task("worker.add", (2, 3)).get(PATIENCE) == 5
        us.send_task("worker.nothing")
        console.until_depth(f"{queue_name}.dead", 1)
        console.declare(f"{queue_name}.dead", {"x-queue-type": "quorum"})
        assert not worker.seen("exists with other arguments")


# ---- the pool --------------------------------------------------------------------------------------------------------


def test_children_are_apart_and_stay(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """Children share no state and stay the same processes from task to task."""
    with (
        Worker(broker_url, queue_name, "-c2", ready=2) as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        before = {child.pid for child in worker.children()}
        fill(us, gate, 1)
        counted = [us.send_task("worker.count").get(PATIENCE) for _ in range(5)]
        gate.release()
        assert len({name for name, _ in counted}) == 1
        assert [number for _, number in counted] == [1, 2, 3, 4, 5]
        fill(us, gate, 2)
        gate.release(2)
        assert {child.pid for child in worker.children()} == before


def test_hooks(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """Hooks run in the right process: worker_init in the zygote, the process hooks once in each child."""
    diary = tmp_path / "diary"
    with (
        Worker(broker_url, queue_name, "-c1", app="hooks", env={"DIARY": str(diary)}) as worker,
        client_of(broker_url, queue_name) as us,
    ):
        zygote, (child,) = worker.zygote.pid, worker.children()
        assert us.send_task("hooks.opened").get(PATIENCE) == f"resource of {child.pid}"
        assert worker.stop() == 0
    assert diary.read_text().splitlines() == [f"init {zygote}", f"process_init {child.pid}", f"shutdown {child.pid}"]


def test_hook_that_fails(broker_url: str, queue_name: str) -> None:
    """A `worker_init` that fails ends the start with its traceback and one line that names it."""
    with Worker(broker_url, queue_name, "-c1", app="hooks", env={"DIARY": "/no/such/diary"}, ready=0) as worker:
        # worker_init comes first: the worker does not start at all
        assert worker.wait() == 1
        assert worker.lines[-1] == (
            "hybridpool: 'worker_init' failed: FileNotFoundError: [Errno 2] No such file or directory: '/no/such/diary'"
        )
        assert worker.lines[0] == "Traceback (most recent call last):"


def test_tasks_know_themselves(broker_url: str, queue_name: str) -> None:
    """A task can read its own ID, name, retries, root and process."""
    with Worker(broker_url, queue_name, "-c1") as worker, client_of(broker_url, queue_name) as us:
        handle = us.send_task("worker.identity")
        told = handle.get(PATIENCE)
        (child,) = worker.children()
        assert told == {
            "id": handle.id,
            "name": "worker.identity",
            "retries": 0,
            "root_id": handle.id,
            "pid": child.pid,
            "group": child.pid,
        }


def test_recycling_by_count(broker_url: str, queue_name: str) -> None:
    """A child retires after `--max-tasks-per-child` tasks, and the log names it."""
    with (
        Worker(broker_url, queue_name, "-c1", "--max-tasks-per-child=2") as worker,
        client_of(broker_url, queue_name) as us,
    ):
        handles = [us.send_task("worker.task1") for _ in range(7)]
        served = [handle.get(PATIENCE) for handle in handles]
        # which child is ready first is chance, as one stands by from the start
        assert served[0:6:2] == served[1:6:2]
        assert len(set(served)) == 4
        retired = worker.see(RETIRED_BY_COUNT, 3)
        assert [match[1] for match in retired] == served[0:6:2]
        worker.see(r"DEBUG/MainProcess\] Process 'ForkPoolWorker-\d' pid:\d+ exited with 'exit code 0'$", 3)
        # the one that works, and the one that stands by
        until(lambda: len(worker.children()) == 2)


def test_recycling_does_not_wait_for_others(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """Children are recycled while a long task runs in another child, and that task ends."""
    with (
        Worker(broker_url, queue_name, "-c2", "--max-tasks-per-child=2", ready=2) as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        slow = us.send_task("worker.hold", (gate.path,))
        (held,) = gate.entered()
        served = [us.send_task("worker.task1").get(PATIENCE) for _ in range(6)]
        assert held.child not in served
        assert len(set(served)) == 3
        worker.see(RETIRED_BY_COUNT, 3)
        gate.release()
        assert slow.get(PATIENCE) == held.child


def test_recycling_by_memory(broker_url: str, queue_name: str) -> None:
    """A child beyond `--max-memory-per-child` is replaced after its task, and the log says how large it was."""
    with (
        Worker(broker_url, queue_name, "-c1", "--max-memory-per-child=100MB", "--prefetch-multiplier=1") as worker,
        client_of(broker_url, queue_name) as us,
    ):
        first = us.send_task("worker.leak", (40 << 20,)).get(PATIENCE)
        assert us.send_task("worker.task1").get(PATIENCE) == first
        assert not worker.seen(RETIRED_BY_MEMORY)
        assert us.send_task("worker.leak", (70 << 20,)).get(PATIENCE) == first
        retired = worker.see(RETIRED_BY_MEMORY + r"100\.0 MiB$")[0]
        assert retired[1] == first
        assert 110 <= float(retired[2]) < 150
        assert us.send_task("worker.task1").get(PATIENCE) != first


def test_inherited_memory_does_not_count(broker_url: str, queue_name: str) -> None:
    """Memory inherited from the zygote does not count against `--max-memory-per-child`."""
    with (
        Worker(broker_url, queue_name, "-c1", "--max-memory-per-child=81920", app="fat") as worker,
        client_of(broker_url, queue_name) as us,
    ):
        handles = [us.send_task("fat.where") for _ in range(10)]
        assert len({handle.get(PATIENCE) for handle in handles}) == 1
        assert max(child.memory_info().rss for child in worker.children()) > 160 << 20
        assert not worker.seen(RETIRED_BY_MEMORY)


@pytest.mark.parametrize(
    ("task", "args", "cause"),
    [
        ("worker.kill_self", (), "signal 9 (SIGKILL)"),
        ("worker.segfault", (), "signal 11 (SIGSEGV)"),
        ("worker.leave", (3,), "exit code 3"),
        ("worker.leave", (0,), "exit code 0"),
    ],
)
def test_death_costs_one_task(
    task: str, args: tuple[int, ...], cause: str, broker_url: str, queue_name: str, tmp_path: Path
) -> None:
    """A child's death loses one task, which is delivered three times and then dead-lettered; others are unharmed."""
    with (
        Worker(broker_url, queue_name, "-c2", ready=2) as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
        BrokerConsole(broker_url) as console,
    ):
        beside = us.send_task("worker.hold", (gate.path,))
        gate.entered()
        deadly = us.send_task(task, args)
        after = [us.send_task("worker.add", (number, 1)) for number in range(5)]
        with pytest.raises(ChildLost, match=re.escape(cause)):
            deadly.get(PATIENCE)
        assert [handle.get(PATIENCE) for handle in after] == [1, 2, 3, 4, 5]
        gate.release()
        assert beside.get(PATIENCE).startswith("ForkPoolWorker-")
        lost = rf"Task {task}\[{deadly.id}\] lost its child ForkPoolWorker-\d+: {re.escape(cause)} \(delivery (\d)\)"
        assert [match[1] for match in worker.see(lost, 3)] == ["1", "2", "3"]
        worker.see(rf"ERROR/MainProcess\] Process 'ForkPoolWorker-\d+' pid:\d+ exited with '{re.escape(cause)}'$", 3)
        console.until_depth(f"{queue_name}.dead", 1)
        letter = console.take(f"{queue_name}.dead")
        assert letter.headers["id"] == deadly.id
        assert cause in letter.headers["x-hybridpool-reason"]
        until(lambda: len(worker.children()) == 2)


def test_children_of_a_child_go_with_it(broker_url: str, queue_name: str) -> None:
    """A process that a task started is gone after its child has retired."""
    with (
        Worker(broker_url, queue_name, "-c1", "--max-tasks-per-child=1"),
        client_of(broker_url, queue_name) as us,
    ):
        left = us.send_task("worker.grandchild").get(PATIENCE)
        until(lambda: not psutil.pid_exists(left))


def test_orphans_of_tasks_are_reaped(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """A process that a task left behind becomes the zygote's child, and is reaped when it ends."""
    with (
        Worker(broker_url, queue_name, "-c1") as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        alone = us.send_task("worker.orphan", (gate.path,)).get(PATIENCE)
        assert psutil.Process(alone).ppid() == worker.zygote.pid
        gate.release()
        until(lambda: not psutil.pid_exists(alone))


# ---- autoscale -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "floor", "ceiling", "why"),
    [
        (["--autoscale=1,3"], 1, 3, "--autoscale 1,3"),
        (["-c2", "--autoscale=3,1"], 2, 3, "--concurrency 2 is the floor, the maximum of --autoscale 1,3 the ceiling"),
        (["-c2", "--autoscale=3,4"], 2, 4, "--concurrency 2 is the floor, the maximum of --autoscale 3,4 the ceiling"),
    ],
)
def test_autoscale(
    options: list[str], floor: int, ceiling: int, why: str, broker_url: str, queue_name: str, tmp_path: Path
) -> None:
    """`--autoscale` grows and shrinks the pool within its range, and the banner shows the range and its source."""
    with (
        Worker(broker_url, queue_name, *options, "--autoscale-idle=1s", ready=floor) as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        assert concurrency(worker) == f"{{min={floor}, max={ceiling}}} (prefork): {why}"
        assert len(worker.children()) == floor
        fill(us, gate, ceiling)
        # A task may be at the gate before the line about its child is read here.
        assert [int(match[1]) for match in worker.see(UP, ceiling - floor)] == [1] * (ceiling - floor)
        waiting = us.send_task("worker.add", (2, 3))
        worker.see(rf"Task worker\.add\[{waiting.id}\] received")
        assert len(worker.children()) == ceiling
        gate.release(ceiling)
        assert waiting.get(PATIENCE) == 5
        worker.see(DOWN)
        until(lambda: sum(int(match[1]) for match in worker.seen(DOWN)) == ceiling - floor)
        until(lambda: len(worker.children()) == floor)
        assert len(worker.seen(UP)) == ceiling - floor
        assert us.send_task("worker.add", (3, 4)).get(PATIENCE) == 7


def test_autoscale_spares_the_busy(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """Scaling down retires an idle child, and busy ones finish their tasks."""
    with (
        Worker(broker_url, queue_name, "--autoscale=1,3", "--autoscale-idle=200ms") as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        held = [us.send_task("worker.hold", (gate.path,)) for _ in range(3)]
        entered = {who.child: who for who in gate.entered(3)}
        # one of them is let go: whichever it is, the pool shrinks around the two that are still busy
        gate.release()
        worker.see(DOWN)
        gone = worker.see(r"(ForkPoolWorker-\d+) \(pid \d+\) retires: more children than needed$")[0][1]
        worker.see(rf"Process '{gone}' pid:\d+ exited with 'exit code 0'$")
        assert gone in entered
        assert {child.pid for child in worker.children()} == {who.pid for who in entered.values()} - {entered[gone].pid}
        gate.release(2)
        assert sorted(handle.get(PATIENCE) for handle in held) == sorted(entered)


def test_prefetch_follows_the_pool(broker_url: str, queue_name: str, tmp_path: Path) -> None:
    """The prefetch count follows the size of the pool."""
    with (
        Worker(
            broker_url, queue_name, "--autoscale=1,3", "--autoscale-idle=200ms", "--prefetch-multiplier=2"
        ) as worker,
        client_of(broker_url, queue_name) as us,
        gate_in(tmp_path) as gate,
    ):
        worker.see(rf"Consuming from {queue_name}, prefetch 2$")
        fill(us, gate, 3)
        worker.see(rf"Consuming from {queue_name}, prefetch 6$")
        gate.release(3)
        worker.see(rf"Consuming from {queue_name}, prefetch 2$", 2)


def test_a_child_killed_from_outside(broker_url: str, queue_name: str) -> None:
    """An idle child that is killed from outside is replaced."""
    with Worker(broker_url, queue_name, "-c2", ready=2) as worker, client_of(broker_url, queue_name) as us:
        victim = worker.children()[0]
        victim.send_signal(signal.SIGKILL)
        worker.see(rf"pid:{victim.pid} exited with 'signal 9 \(SIGKILL\)'$")
        worker.see(r"ForkPoolWorker-3 \(pid \d+\) ready$")
        assert us.send_task("worker.add", (2, 3)).get(PATIENCE) == 5
        assert len(worker.children()) == 2
