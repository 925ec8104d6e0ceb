"""Remote control of our worker with a Celery app: what is ordered is done. All tests share one worker."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

from tests.interop.guests import client_of, new_queue, worker_of
from tests.queues import BrokerConsole
from tests.rabbit import MARK, Node, wait_for
from tests.redis_server import Redis
from tests.workers import APPS, PATIENCE, ROOT, Worker

APP = "celery_controlled"
NODE = "ours@here"
#: of a worker of one test
OTHER = "other@here"


class Boss:
    """Gives orders to a worker, and sends tasks to it."""

    def __init__(self, client: Celery, worker: Worker, queue: str, node: str = NODE) -> None:
        self.node = node
        self.client = client
        self.worker = worker
        self.queue = queue

    def order(self, method: str, **arguments: object) -> Any:
        """Give an order, and return the answer."""
        [answer] = self.client.control.broadcast(
            method, arguments, reply=True, timeout=PATIENCE, limit=1, destination=[self.node]
        )
        return answer[self.node]

    def send(self, name: str, *args: object, **options: Any) -> Any:
        """Send a task."""
        return self.client.send_task(f"{APP}.{name}", args, **options)

    def hold(self, gate: Path, **options: Any) -> Any:
        """Send a task that waits for a file, and wait until it runs."""
        held = self.send("hold", str(gate), **options)
        assert wait_for(Path(f"{gate}.entered").exists, PATIENCE)
        return held


@pytest.fixture(scope="module")
def boss(rabbit_node: Node, redis: Redis) -> Iterator[Boss]:
    """Orders for one worker."""
    queue = new_queue()
    options = ("-c2", "-n", NODE, "-Q", queue)
    with (
        # Children come and go while a test runs: that nothing of them is left is seen to when the worker ends.
        worker_of(rabbit_node.url, redis.url, queue, *options, app=APP, env={MARK: ""}) as worker,
        client_of(rabbit_node.url, redis.url, queue) as client,
    ):
        made = Boss(client, worker, queue)
        # so that the child which does what no other can is there before the first test
        assert made.order("echo", word="x")["word"] == "x"
        # likewise the client's connections
        assert made.send("add", 1, 1).get(timeout=PATIENCE) == 2
        yield made


def test_rate_limit(boss: Boss, tmp_path: Path) -> None:
    """A task starts only as often as its limit says, which an order changes; meanwhile other tasks run."""
    assert boss.order("rate_limit", task_name=f"{APP}.limited", rate_limit="8/s") == {
        "ok": "new rate limit set successfully"
    }
    assert f"{APP}.limited [rate_limit=8/s]" in boss.order("registered")
    results = [boss.send("limited") for _ in range(30)]
    # behind thirty of them in the queue, far more than children and prefetch
    began = time.monotonic()
    assert boss.send("add", 1, 2).get(timeout=PATIENCE) == 3
    assert time.monotonic() - began < 4.0, "it did not wait for those before it"
    begun = sorted(result.get(timeout=PATIENCE) for result in results[:20])
    assert all(begun[place + 8] - begun[place] >= 0.9 for place in range(len(begun) - 8))
    assert boss.order("rate_limit", task_name=f"{APP}.limited", rate_limit=0) == {
        "ok": "rate limit disabled successfully"
    }
    for result in results:
        result.get(timeout=PATIENCE)


def test_wrong_limits(boss: Boss) -> None:
    """A limit that is none, and a task that is not there, change nothing and are answered as by Celery."""
    wrong = boss.order("rate_limit", task_name=f"{APP}.add", rate_limit="soon")
    assert wrong["error"].startswith("Invalid rate limit string: ValueError(")
    for method in ("rate_limit", "time_limit"):
        assert boss.order(method, task_name="nowhere", **({"rate_limit": 1} if method == "rate_limit" else {})) == {
            "error": "unknown task"
        }
    assert "TypeError" in boss.order("rate_limit")["error"]


def test_time_limit(boss: Boss, tmp_path: Path) -> None:
    """Time limits that an order sets hold for calls that come, and for those that wait."""
    answer = {"ok": "time limits set successfully"}
    gates = [boss.hold(tmp_path / name) for name in ("a", "b")]
    waiting = boss.send("hold", str(tmp_path / "never"))
    assert wait_for(lambda: waiting.id in str(boss.order("reserved")), PATIENCE)
    assert boss.order("time_limit", task_name=f"{APP}.hold", hard=1.0) == answer
    for name in ("a", "b"):
        (tmp_path / name).touch()
    with pytest.raises(TimeLimitExceeded):
        waiting.get(timeout=PATIENCE)
    assert [gate.get(timeout=PATIENCE) for gate in gates]
    assert boss.order("time_limit", task_name=f"{APP}.hold", soft=0.5, hard=60) == answer
    with pytest.raises(SoftTimeLimitExceeded):
        boss.send("hold", str(tmp_path / "never")).get(timeout=PATIENCE)
    assert boss.order("time_limit", task_name=f"{APP}.hold") == answer


def test_pool_size(boss: Boss) -> None:
    """The pool grows and shrinks, and the prefetch with it; one child stays."""
    assert boss.order("pool_grow", n=2) == {"ok": "pool will grow"}
    assert wait_for(lambda: boss.order("stats")["pool"]["max-concurrency"] == 4, PATIENCE)
    assert wait_for(lambda: boss.order("stats")["prefetch_count"] == 40, PATIENCE)
    assert boss.order("pool_shrink", n=2) == {"ok": "pool will shrink"}
    assert wait_for(lambda: boss.order("stats")["prefetch_count"] == 20, PATIENCE)
    assert "shrink" in boss.order("pool_shrink", n=2)["error"]
    assert boss.order("autoscale", max=3, min=1) == {"error": "ValueError('Autoscale not enabled')"}


def test_consumers(boss: Boss) -> None:
    """A queue is consumed as ordered: one that the app declares, one with an exchange and key, and no longer."""
    consumed_and_left(boss, f"{boss.queue}.new", f"{boss.queue}.new", "key")
    exchange = f"{boss.queue}.x"
    binding = {"exchange": exchange, "exchange_type": "topic", "routing_key": "a.#"}
    consumed_and_left(boss, f"{boss.queue}.more", exchange, "a.b", **binding)
    assert "exchange_type" in boss.order("add_consumer", queue="q", exchange="e", exchange_type="headers")["error"]


def consumed_and_left(boss: Boss, name: str, to: str, key: str, **binding: object) -> None:
    """Have a queue consumed, not consumed, and consumed again."""

    def is_consumed() -> bool:
        return name in [queue["name"] for queue in boss.order("active_queues")]

    def send() -> Any:
        return boss.send("add", 1, 1, exchange=to, routing_key=key, declare=[])

    assert boss.order("add_consumer", queue=name, **binding) == {"ok": f"add consumer {name}"}
    assert wait_for(is_consumed, PATIENCE)
    assert send().get(timeout=PATIENCE) == 2
    assert boss.order("cancel_consumer", queue=name) == {"ok": f"no longer consuming from {name}"}
    assert not is_consumed()
    with BrokerConsole(boss.client.conf.broker_url) as console:
        boss.worker.see(f"No longer consuming from {name}")
        left = send()
        assert wait_for(lambda: console.depth(name) == 1, PATIENCE)
    assert boss.order("add_consumer", queue=name) == {"ok": f"add consumer {name}"}
    assert left.get(timeout=PATIENCE) == 2
    boss.order("cancel_consumer", queue=name)


def test_terminate(boss: Boss, tmp_path: Path) -> None:
    """A task that runs is ended by its id with a signal, and one that waits is not begun."""
    for signal in ("KILL", "TERM"):
        held = boss.hold(tmp_path / signal)
        assert boss.order("terminate", signal=signal, task_id=held.id) == {"ok": f"terminate: {held.id}"}
        with pytest.raises(TaskRevokedError, match="terminated"):
            held.get(timeout=PATIENCE)
    assert boss.order("terminate", signal="TERM", task_id=["nope"]) == {"ok": "terminate: tasks unknown"}
    assert "AttributeError" in boss.order("terminate", signal="NOPE", task_id="x")["error"]
    assert "TypeError" in boss.order("terminate", task_id="x")["error"]
    assert "nope" in boss.order("revoked")


def test_stamps(boss: Boss, tmp_path: Path) -> None:
    """Tasks are revoked by a stamp: those that run, if that is asked, and those that come."""
    stamped = {"headers": {"stamped_headers": ["batch"], "stamps": {"batch": ["seven"]}}}
    held = boss.hold(tmp_path / "held", **stamped)
    flagged = boss.order("revoke_by_stamped_headers", headers={"other": "x"})
    assert flagged == {"ok": "headers {'other': 'x'} flagged as revoked, but not terminated"}
    none = boss.order("revoke_by_stamped_headers", headers={"other": "x"}, terminate=True)
    assert none == {"ok": "headers {'other': 'x'} were not terminated"}
    ended = boss.order("revoke_by_stamped_headers", headers=["batch=seven"], terminate=True)
    assert ended == {"ok": "headers {'batch': {'seven'}} revoked"}
    for result in (held, boss.send("add", 1, 1, **stamped)):
        with pytest.raises(TaskRevokedError):
            result.get(timeout=PATIENCE)


def test_revoked_at_once(boss: Boss) -> None:
    """A task that has not begun, here or in the broker, is revoked for its client as soon as it is ordered."""
    later = boss.send("add", 1, 1, countdown=300)
    answer = boss.order("revoke", task_id=[later.id])
    assert answer == {"ok": f"tasks {{'{later.id}'}} flagged as revoked"}
    with pytest.raises(TaskRevokedError):
        later.get(timeout=PATIENCE)


def test_restart_without_a_gap(rabbit_node: Node, redis: Redis, tmp_path: Path) -> None:
    """`pool_restart` loads the app anew: tasks go on, those that run finish, and new code and new tasks are run then.

    An app that cannot be imported changes nothing.
    """
    source = (APPS / f"{APP}.py").read_text()
    module = tmp_path / "renewed.py"
    module.write_text(source)
    queue = new_queue()
    options = ("-c2", "-n", OTHER, "-Q", queue)
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with (
        worker_of(rabbit_node.url, redis.url, queue, *options, app="renewed", env=env) as worker,
        client_of(rabbit_node.url, redis.url, queue) as client,
    ):
        boss = Boss(client, worker, queue, OTHER)

        def call(name: str, *args: object) -> Any:
            return client.send_task(f"renewed.{name}", args).get(timeout=PATIENCE)

        old_zygote = worker.zygote.pid
        held = client.send_task("renewed.hold", (str(tmp_path / "gate"),))
        assert wait_for((tmp_path / "gate.entered").exists, PATIENCE)
        module.write_text("raise OSError('no')")
        assert boss.order("pool_restart") == {"ok": "reload started"}
        worker.see("The app cannot be loaded anew, and the worker goes on with what it has: .*OSError: no")
        assert call("where")[1] == old_zygote
        module.write_text(source.replace("return x + y", "return x * y") + NEW_TASK)
        assert boss.order("pool_restart", modules=["json"]) == {"ok": "reload started"}
        seen: set[tuple[int, int]] = set()
        while not any(zygote != old_zygote for _, zygote in seen):
            seen.add(tuple(call("where")))
        assert not worker.seen("All children have the app"), "one task of the old code runs"
        (tmp_path / "gate").touch()
        assert held.get(timeout=PATIENCE)
        worker.see("All children have the app that was loaded anew")
        assert [call("add", 3, 4), call("new")] == [12, "new"]
        assert "renewed.new" in boss.order("registered")
        assert wait_for(lambda: [child.pid for child in worker.main.children()] != [old_zygote], PATIENCE)
        assert worker.zygote.pid != old_zygote
        assert not worker.seen("died|unknown task")


#: appended to an app
NEW_TASK = """

@app.task
def new():
    return "new"
"""


def test_shutdown(rabbit_node: Node, redis: Redis, tmp_path: Path) -> None:
    """`shutdown` stops the worker warmly, without an answer."""
    queue = new_queue()
    with (
        worker_of(rabbit_node.url, redis.url, queue, "-c1", "-n", OTHER, "-Q", queue, app=APP) as worker,
        client_of(rabbit_node.url, redis.url, queue) as client,
    ):
        boss = Boss(client, worker, queue, OTHER)
        held = boss.hold(tmp_path / "held")
        client.control.shutdown(destination=[OTHER])
        worker.see("Got shutdown from remote")
        (tmp_path / "held").touch()
        assert held.get(timeout=PATIENCE)
        assert worker.wait() == 0
