"""The scenarios of Celery's smoke tests, run by one driver against a Celery worker and against ours.

`nox -s celery_suite -- smoke` runs them; they take long, so the ordinary suite does not collect this file. Each asserts
what a user sees: states, results, exit codes, and the messages that are left. Where ours does better, the scenario says
so. Left out are scenarios of clients alone, of Redis as a broker, and of gevent, beat and spawned pools, which this
worker does not have.
"""

import json
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Celery, chain, chord, group
from celery.canvas import Signature
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError
from celery.result import AsyncResult

from tests.interop.guests import client_of
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Program

LATE = {"task_acks_late": True}
ONE = {"worker_concurrency": 1, "worker_prefetch_multiplier": 1}
#: seconds; longer than the broker's heartbeat allows a silent connection
BEYOND_HEARTBEAT_S = 6.0


class Scene:
    """Workers of one kind with one queue, and a client."""

    def __init__(self, kind: str, broker: str, backend: str, folder: Path) -> None:
        self.kind = kind
        self.broker = broker
        self.backend = backend
        self.folder = folder
        self.queue = f"smoke-{uuid.uuid4().hex}"
        self._count = 0
        self._left = ExitStack()
        self.client: Celery = self._left.enter_context(client_of(broker, backend, self.queue))
        self.client.conf.task_default_queue = self.queue

    @property
    def is_ours(self) -> bool:
        """Tell which kind it is."""
        return self.kind == "ours"

    def start(
        self,
        *options: str,
        conf: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        queue: str = "",
        backend: str = "",
        name: str = "",
    ) -> Program:
        """Start a worker, and wait until it is ready."""
        self._count += 1
        node = name or f"{self.kind}{self._count}-{self.queue[-8:]}@localhost"
        library = "hybridpool" if self.is_ours else "celery"
        told = {
            "SMOKE_BROKER": self.broker,
            "SMOKE_BACKEND": backend or self.backend,
            "SMOKE_QUEUE": queue or self.queue,
            "SMOKE_CONF": json.dumps({"worker_concurrency": 2, **(conf or {})}),
            **(env or {}),
        }
        words = [sys.executable, "-m", library, "-A", "smoke_app", "worker", "-l", "INFO", "-n", node, *options]
        worker = Program(words, env=told)
        worker.node = node  # type: ignore[attr-defined]
        self._left.enter_context(worker)
        worker.see(r"ready\.$")
        return worker

    def sig(self, name: str, *args: Any, **options: Any) -> Signature:
        """Return a signature of a task of the app."""
        return self.client.signature(f"smoke_app.{name}", args=args, **options)

    def call(self, name: str, *args: Any, **options: Any) -> AsyncResult:
        """Send a task."""
        return self.sig(name, *args).apply_async(**options)

    def held(self, **options: Any) -> tuple[AsyncResult, Path]:
        """Send a task that waits for the file that is returned, and wait until it runs."""
        path = self.folder / uuid.uuid4().hex
        result = self.call("hold", str(path), **options)
        assert wait_for(lambda: self.runs_of(path) == 1, PATIENCE)
        return result, path

    @staticmethod
    def runs_of(path: Path) -> int:
        """Tell how many times a task has begun to wait for a file."""
        entered = Path(f"{path}.entered")
        return len(entered.read_text()) if entered.exists() else 0

    def works(self) -> bool:
        """Tell whether a task is run."""
        return bool(self.call("identity", "fine").get(timeout=PATIENCE) == "fine")

    def depth(self) -> int:
        """Return how many messages are in the queue, and not with a worker."""
        with BrokerConsole(self.broker) as console:
            return console.depth(self.queue)

    def until_depth(self, depth: int) -> None:
        """Wait until so many are."""
        with BrokerConsole(self.broker) as console:
            console.until_depth(self.queue, depth)

    def kill(self, worker: Program) -> None:
        """Kill all of a worker at once, as a container that is stopped by force."""
        for process in worker.tree():
            process.kill()
        worker.wait()

    def close(self) -> None:
        """End what is left."""
        self._left.close()


@pytest.fixture(params=["celery", "ours"])
def kind(request: pytest.FixtureRequest) -> str:
    """Whose worker it is."""
    return str(request.param)


@pytest.fixture
def scene(kind: str, rabbit_node: Node, redis: Redis, tmp_path: Path) -> Iterator[Scene]:
    """The workers of this test."""
    made = Scene(kind, rabbit_node.url, redis.url, tmp_path)
    try:
        yield made
    finally:
        made.close()


# ---- a worker is restarted ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pool", "warm", "force"])
def test_restart_during_a_task(scene: Scene, how: str) -> None:
    """A task that is acknowledged late ends well although its worker, or its pool, is restarted."""
    conf = {**LATE, "worker_pool_restarts": True}
    worker = scene.start(conf=conf)
    result, path = scene.held()
    match how:
        case "pool":
            scene.client.control.pool_restart(destination=[worker.node])  # type: ignore[attr-defined]
            path.touch()
        case "warm":
            worker.send(signal.SIGTERM)
            path.touch()
            assert worker.wait() == 0
            scene.start(conf=conf)
        case _:
            scene.kill(worker)
            path.touch()
            scene.start(conf=conf)
    assert result.get(timeout=PATIENCE) is True
    assert scene.works()


def test_restart_between_tasks(scene: Scene) -> None:
    """A chain goes on with its second task in the next worker."""
    worker = scene.start(conf=LATE)
    first, second = scene.folder / "first", scene.folder / "second"
    result = chain(scene.sig("hold", str(first)), scene.sig("hold", str(second)).set(immutable=True)).apply_async()
    first.touch()
    assert wait_for(lambda: scene.runs_of(second) == 1, PATIENCE)
    scene.kill(worker)
    second.touch()
    scene.start(conf=LATE)
    assert result.get(timeout=PATIENCE) is True
    assert scene.runs_of(first) == 1


def test_one_of_two_workers_is_killed(scene: Scene) -> None:
    """Another worker on the queue takes over, and after the death of both the next one does."""
    one, two = scene.start(conf=LATE), scene.start(conf=LATE)
    result, path = scene.held()
    scene.kill(one)
    assert scene.works()
    scene.kill(two)
    path.touch()
    assert result.state == "PENDING"
    scene.start(conf=LATE)
    assert result.get(timeout=PATIENCE) is True


def test_a_frozen_worker(scene: Scene) -> None:
    """The messages of a worker that stands still go to another one, after the broker's heartbeat."""
    conf = {**LATE, **ONE, "broker_heartbeat": 2}
    frozen = scene.start(conf=conf)
    result, path = scene.held()
    scene.start(conf=conf)
    processes = frozen.tree()
    for process in processes:
        process.suspend()
    path.touch()
    assert result.get(timeout=PATIENCE) is True
    for process in processes:
        process.resume()


# ---- a worker is stopped -----------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
def test_warm_shutdown(scene: Scene, times: int) -> None:
    """TERM, once or again and again, lets the running task end; a message that has not begun stays in the queue."""
    worker = scene.start(conf={**LATE, **ONE})
    result, path = scene.held()
    for _ in range(times):
        worker.send(signal.SIGTERM)
        worker.see("[Ww]arm shutdown")
    waiting = scene.call("identity", 1)
    scene.until_depth(1)
    path.touch()
    assert worker.wait() == 0
    assert result.get(timeout=PATIENCE) is True
    assert waiting.state == "PENDING"
    assert scene.depth() == 1


@pytest.mark.parametrize("signals", ["QUIT", "QUIT QUIT", "TERM QUIT QUIT"])
def test_cold_shutdown(scene: Scene, signals: str) -> None:
    """QUIT ends the worker at once; its late task has no result, and its message is in the queue again."""
    worker = scene.start(conf=LATE)
    result, path = scene.held()
    for number in signals.split():
        worker.send(getattr(signal, f"SIG{number}"))
    worker.wait()
    scene.until_depth(1)
    assert result.state == "PENDING"
    path.touch()
    scene.start(conf=LATE)
    assert result.get(timeout=PATIENCE) is True


@pytest.mark.parametrize("signals", ["TERM", "TERM TERM"])
def test_remapped(scene: Scene, signals: str) -> None:
    """With REMAP_SIGTERM=SIGQUIT a TERM is a QUIT."""
    worker = scene.start(conf=LATE, env={"REMAP_SIGTERM": "SIGQUIT"})
    result, _ = scene.held()
    for number in signals.split():
        worker.send(getattr(signal, f"SIG{number}"))
    worker.wait()
    scene.until_depth(1)
    assert result.state == "PENDING"


@pytest.mark.parametrize("remapped", [False, True])
def test_soft_shutdown(scene: Scene, remapped: bool) -> None:
    """With `worker_soft_shutdown_timeout` a QUIT gives the running task that time."""
    env = {"REMAP_SIGTERM": "SIGQUIT"} if remapped else {}
    worker = scene.start(conf={**LATE, "worker_soft_shutdown_timeout": 30}, env=env)
    result, path = scene.held()
    worker.send(signal.SIGTERM if remapped else signal.SIGQUIT)
    worker.see(r"(?i)soft shutdown")
    path.touch()
    worker.wait()
    assert result.state == "SUCCESS"
    assert scene.depth() == 0


def test_soft_shutdown_is_over(scene: Scene) -> None:
    """After `worker_soft_shutdown_timeout` the task is killed, and its message is in the queue again."""
    worker = scene.start(conf={**LATE, "worker_soft_shutdown_timeout": 1})
    result, _ = scene.held()
    worker.send(signal.SIGQUIT)
    worker.wait()
    scene.until_depth(1)
    assert result.state == "PENDING"


def test_soft_shutdown_is_cut_short(scene: Scene) -> None:
    """Further QUITs do not wait for the end of `worker_soft_shutdown_timeout`."""
    worker = scene.start(conf={**LATE, "worker_soft_shutdown_timeout": 600})
    result, _ = scene.held()
    worker.send(signal.SIGQUIT)
    worker.see(r"(?i)soft shutdown")
    for _ in range(2):
        worker.send(signal.SIGQUIT)
    worker.wait()
    scene.until_depth(1)
    assert result.state == "PENDING"


def test_time_limit_during_soft_shutdown(scene: Scene) -> None:
    """A time limit holds during a soft shutdown too."""
    conf = {**LATE, "worker_soft_shutdown_timeout": 30, "task_soft_time_limit": 2, "task_time_limit": 20}
    worker = scene.start(conf=conf)
    result, _ = scene.held()
    worker.send(signal.SIGQUIT)
    worker.wait()
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=PATIENCE)


def test_idle_worker_stops(scene: Scene) -> None:
    """An idle worker ends on QUIT. With `worker_enable_soft_shutdown_on_idle` Celery waits, for tasks with an ETA that
    it holds; the broker holds those of ours, so ours ends at once.
    """
    worker = scene.start(conf={"worker_soft_shutdown_timeout": 3, "worker_enable_soft_shutdown_on_idle": True})
    began = time.monotonic()
    worker.send(signal.SIGQUIT)
    worker.wait()
    assert not scene.is_ours or time.monotonic() - began < 3


def test_long_task_outlives_heartbeats(scene: Scene) -> None:
    """A task that outlives the broker's heartbeat during a warm shutdown is acknowledged, and not run again."""
    worker = scene.start(conf={**LATE, **ONE, "broker_heartbeat": 2})
    result, path = scene.held()
    worker.send(signal.SIGTERM)
    time.sleep(BEYOND_HEARTBEAT_S)
    path.touch()
    assert worker.wait() == 0
    assert result.get(timeout=PATIENCE) is True
    assert scene.depth() == 0


def test_acknowledged_while_it_drains(scene: Scene) -> None:
    """What ends during a warm shutdown is acknowledged at once, so a kill afterwards repeats only what still runs."""
    worker = scene.start("-c", "2", conf={**LATE, "worker_prefetch_multiplier": 1})
    long, _ = scene.held()
    short, path = scene.held()
    worker.send(signal.SIGTERM)
    worker.see("[Ww]arm shutdown")
    path.touch()
    assert short.get(timeout=PATIENCE) is True
    # Acknowledgements are not confirmed: so long one may be under way.
    time.sleep(1.0)
    scene.kill(worker)
    scene.until_depth(1)
    assert long.state == "PENDING"


def test_remote_shutdown(scene: Scene) -> None:
    """The remote order ends a worker with exit code 0, after the running task."""
    worker = scene.start()
    result, path = scene.held()
    scene.client.control.shutdown(destination=[worker.node])  # type: ignore[attr-defined]
    worker.see("(?i)shutdown")
    path.touch()
    assert worker.wait() == 0
    assert result.get(timeout=PATIENCE) is True


# ---- children ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("die", WorkerLostError, r"signal 9 \(SIGKILL\)"),
        ("leave", WorkerLostError, "exitcode 1"),
        ("too_long", TimeLimitExceeded, "1"),
    ],
)
@pytest.mark.parametrize("conf", [{}, LATE], ids=["early", "late"])
def test_child_ends(scene: Scene, name: str, error: type[Exception], text: str, conf: dict[str, Any]) -> None:
    """A task that ends its child, or is ended with it, fails with Celery's exception, and another child goes on."""
    worker = scene.start(conf={**ONE, **conf})
    with pytest.raises(error, match=text):
        scene.call(name).get(timeout=PATIENCE)
    assert scene.works()
    assert scene.depth() == 0
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0


def test_retry_on_worker_lost(scene: Scene) -> None:
    """`task_retry_on_worker_lost` makes as many attempts as the task has retries, and then it fails."""
    conf = {**LATE, **ONE, "task_reject_on_worker_lost": True, "task_retry_on_worker_lost": True}
    worker = scene.start(conf=conf)
    result = scene.call("die_with_retries")
    with pytest.raises(WorkerLostError):
        result.get(timeout=PATIENCE)
    assert len(worker.seen(rf"die_with_retries\[{result.id}\] received")) == 3
    assert scene.depth() == 0


def test_backend_is_unreachable(scene: Scene) -> None:
    """A worker whose result backend is away survives the loss of a child, and takes the next task."""
    conf = {
        **LATE,
        "task_reject_on_worker_lost": True,
        "result_backend_always_retry": True,
        "result_backend_max_retries": 9999999,
        "result_backend_base_sleep_between_retries_ms": 10,
        "result_backend_max_sleep_between_retries_ms": 10,
    }
    worker = scene.start(conf=conf, backend="redis://127.0.0.1:1/0")
    scene.call("die_once", str(scene.folder / "once"))
    worker.see(r"(?i)exited prematurely|exited with|died")
    result = scene.call("identity", "alive")
    worker.see(rf"identity\[{result.id}\] received")


def test_soft_limit(scene: Scene) -> None:
    """A task over its soft limit fails with Celery's exception."""
    scene.start()
    with pytest.raises(SoftTimeLimitExceeded):
        scene.call("soft").get(timeout=PATIENCE)


# ---- tasks -------------------------------------------------------------------------------------------------


def test_canvas(scene: Scene) -> None:
    """Chains, groups and chords, replaced and retried tasks, give what Celery gives."""
    scene.start()
    ones = [scene.sig("identity", i) for i in range(4)]
    assert group(ones, app=scene.client).apply_async().get(timeout=PATIENCE) == [0, 1, 2, 3]
    assert chord(ones, scene.sig("total"), app=scene.client).apply_async().get(timeout=PATIENCE) == 6
    assert scene.call("retried").get(timeout=PATIENCE) == 1
    steps = chain(
        scene.sig("identity", 1), group(scene.sig("identity"), scene.sig("identity")), scene.sig("total"),
        group(scene.sig("identity"), scene.sig("identity")), scene.sig("total"), app=scene.client,
    )  # fmt: skip
    assert steps.apply_async().get(timeout=PATIENCE) == 4
    failing = chord([scene.sig("identity", 1), scene.sig("fail")], scene.sig("total"), app=scene.client).apply_async()
    error = failing.get(timeout=PATIENCE, propagate=False)
    assert (failing.state, "no way" in str(error)) == ("FAILURE", True)


def test_replaced_by_a_task_of_another_queue(scene: Scene) -> None:
    """A task is replaced by one that another worker runs; the chain goes on."""
    other = f"{scene.queue}-other"
    scene.start()
    scene.start(queue=other)
    by = scene.sig("identity", 40).set(queue=other)
    whole = chain(scene.sig("replaced", by), scene.sig("identity").set(queue=other), app=scene.client)
    assert whole.apply_async().get(timeout=PATIENCE) == 40


def test_explicit_queue(scene: Scene) -> None:
    """A worker of one declared queue, without a default one, runs what is sent there."""
    conf = {"task_create_missing_queues": False, "task_queues": {scene.queue: {}}}
    scene.start("-Q", scene.queue, conf=conf)
    assert scene.works()


def test_disabled_backend(scene: Scene) -> None:
    """Without a result backend the errback of a chain is called."""
    scene.start(backend="disabled://")
    path = scene.folder / "error"
    errback = scene.sig("note", str(path), immutable=True)
    broken = chain(scene.sig("fail"), scene.sig("identity"), app=scene.client)
    broken.link_error(errback)
    broken.apply_async()
    assert wait_for(path.exists, PATIENCE)


@pytest.mark.parametrize(("name", "value"), [("reject_once", "second pass"), ("store_and_reject", "first pass")])
def test_deduplicated(scene: Scene, name: str, value: str) -> None:
    """A redelivered task goes on with its chain; with `worker_deduplicate_successful_tasks` it is not run again."""
    scene.start(conf={**LATE, "worker_deduplicate_successful_tasks": True})
    whole = chain(scene.sig(name), scene.sig("identity"), app=scene.client)
    assert whole.apply_async().get(timeout=PATIENCE) == value


def test_quorum_queue(scene: Scene) -> None:
    """With quorum queues, tasks run now and later, and are retried."""
    scene.start(conf={**LATE, "task_default_queue_type": "quorum", "task_default_exchange_type": "topic"})
    scene.client.conf.task_default_queue_type = "quorum"
    scene.client.conf.task_default_exchange_type = "topic"
    assert scene.works()
    assert scene.call("retried").get(timeout=PATIENCE) == 1
    assert scene.call("identity", 5, countdown=2).get(timeout=PATIENCE) == 5


def test_signals(scene: Scene) -> None:
    """The signals of processes and tasks are sent."""
    worker = scene.start()
    assert scene.works()
    for name in ("worker_init", "worker_process_init", "task_success"):
        worker.see(f"signal {name}")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    worker.see("signal worker_process_shutdown")


# ---- remote control ----------------------------------------------------------------------------------------


def test_revoke_a_running_task(scene: Scene) -> None:
    """A running task that is revoked without `terminate` goes on, and is not marked."""
    scene.start(conf={"task_track_started": True})
    scene.start(conf={"task_track_started": True})
    result, path = scene.held()
    result.revoke()
    assert scene.client.control.ping(timeout=2.0)
    assert result.state == "STARTED"
    path.touch()
    assert result.get(timeout=PATIENCE) is True


def test_terminate(scene: Scene) -> None:
    """A running task that is revoked with `terminate` is stopped and marked, whichever worker runs it."""
    scene.start()
    scene.start()
    result, _ = scene.held()
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=PATIENCE)
    assert scene.works()


def test_revoke_a_task_that_waits(scene: Scene) -> None:
    """A task that is revoked before its time is marked, and not run."""
    scene.start()
    scene.start()
    path = scene.folder / "ran"
    result = scene.call("note", str(path), countdown=4)
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=PATIENCE)
    assert not path.exists()


def test_revoke_in_a_chord(scene: Scene) -> None:
    """A chord whose member is revoked while another one runs comes to an end: it fails, and says why."""
    scene.start(conf={"worker_concurrency": 1})
    path = scene.folder / "go"
    result = chord([scene.sig("hold", str(path)), scene.sig("identity", 3)], scene.sig("total"), app=scene.client)
    sent = result.apply_async()
    slow, quick = sent.parent.results
    assert wait_for(lambda: scene.runs_of(path) == 1, PATIENCE)
    scene.client.control.revoke(quick.id)
    assert scene.client.control.ping(timeout=2.0)
    path.touch()
    error = sent.get(timeout=PATIENCE, propagate=False)
    assert (sent.state, "revoked" in repr(error)) == ("FAILURE", True)
    assert (quick.state, slow.get(timeout=PATIENCE)) == ("REVOKED", True)


def test_revoked_ids_are_passed_on(scene: Scene) -> None:
    """A worker that starts learns from another one what is revoked."""
    old = scene.start()
    revoked = str(uuid.uuid4())
    scene.client.control.revoke(revoked, destination=[old.node])  # type: ignore[attr-defined]
    assert scene.client.control.ping(timeout=2.0)
    new = scene.start().node  # type: ignore[attr-defined]
    inspect = scene.client.control.inspect(destination=[new], timeout=2.0)
    assert wait_for(lambda: revoked in (inspect.revoked() or {}).get(new, ()), PATIENCE)
    scene.kill(old)
    result = scene.call("identity", 1, task_id=revoked)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=PATIENCE)


def test_cancelled_consumer(scene: Scene) -> None:
    """A queue that a worker was told not to consume is not consumed any more, after a reconnect either."""
    other = f"{scene.queue}-other"
    worker = scene.start("-Q", f"{scene.queue},{other}")
    assert scene.call("identity", 1, queue=other).get(timeout=PATIENCE) == 1
    node = worker.node  # type: ignore[attr-defined]
    answer = scene.client.control.cancel_consumer(other, destination=[node], reply=True, timeout=5.0)
    assert answer == [{node: {"ok": f"no longer consuming from {other}"}}]
    left = scene.call("identity", 2, queue=other)
    assert scene.works()
    assert left.state == "PENDING"


def test_asked(scene: Scene) -> None:
    """A worker answers a ping and a report."""
    worker = scene.start()
    node = worker.node  # type: ignore[attr-defined]
    assert scene.client.control.ping(destination=[node], timeout=5.0) == [{node: {"ok": "pong"}}]
    report = scene.client.control.inspect(destination=[node], timeout=5.0).report()
    assert "software -> celery:" in report[node]["ok"]


# ---- the broker --------------------------------------------------------------------------------------------


def test_broker_restarts(kind: str, redis: Redis, tmp_path: Path) -> None:
    """Tasks are taken again after the broker was killed, and one that ran meanwhile is not run a second time by ours.

    Celery cannot acknowledge it over the new connection, and runs it again when it is delivered again.
    """
    with Node("restarted") as node:
        scene = Scene(kind, node.url, redis.url, tmp_path)
        try:
            scene.start(conf=LATE)
            result, path = scene.held()
            node.restart(hard=True)
            path.touch()
            assert result.get(timeout=PATIENCE) is True
            assert scene.works()
            calls = [scene.sig("identity", i) for i in range(5)]
            assert group(calls, app=scene.client).apply_async().get(timeout=PATIENCE) == [0, 1, 2, 3, 4]
            assert not scene.is_ours or scene.runs_of(path) == 1
        finally:
            scene.close()


def test_broker_failover(kind: str, redis: Redis, tmp_path: Path) -> None:
    """A worker goes on with the second broker when the first is gone, and with the first when that is back alone."""
    with Node("first") as first, Node("second") as second:
        scene = Scene(kind, f"{first.url};{second.url}", redis.url, tmp_path)
        try:
            scene.start()
            assert scene.works()
            first.kill()
            assert scene.works()
            first.start()
            second.kill()
            assert scene.works()
        finally:
            scene.close()
