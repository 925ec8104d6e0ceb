"""A Celery app in our worker: how it is found, which of its settings hold, and what the worker says of the others."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from tests.interop.guests import client_of, new_queue, worker_of
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, ROOT, Program, Worker, command

WITHOUT_RESULTS = "disabled://"


@pytest.mark.parametrize(
    "name", ["celery_project", "celery_project.celery", "celery_project.celery:app", "celery_project.celery.app"]
)
def test_where_the_app_is_found(rabbit_node: Node, name: str) -> None:
    """An app is found where Celery finds it, with the tasks that its own settings include."""
    with worker_of(rabbit_node.url, WITHOUT_RESULTS, new_queue(), "-c1", app=name) as worker:
        worker.see(r"\. celery_project\.tasks\.add")
        worker.see(r"\.> app: +celery_project")


@contextmanager
def started(rabbit_node: Node, redis: Redis, *options: str) -> Iterator[tuple[Worker, Celery, str]]:
    """Give a worker of the app with many settings, a client, and the queue."""
    queue = new_queue()
    told = ("--queues", f"{queue},{queue}.news", *options)
    with (
        worker_of(rabbit_node.url, redis.url, queue, *told, app="celery_settings") as worker,
        client_of(rabbit_node.url, redis.url, queue) as client,
    ):
        client.conf.accept_content = ["json", "pickle"]
        # As the app declares the queue: the client must not declare it in another way.
        client.conf.task_create_missing_queues = True
        yield worker, client, queue


def call(client: Celery, name: str, *args: Any, **options: Any) -> Any:
    """Send by name over the default exchange, without declaring a queue, and wait."""
    options = {"exchange": "", "routing_key": client.conf.task_default_queue, "declare": [], **options}
    return client.send_task(f"celery_settings.{name}", args, **options).get(timeout=PATIENCE)


def test_settings(rabbit_node: Node, redis: Redis) -> None:
    """Concurrency, recycling, time limit, accepted content and late acknowledgement come from the app's settings."""
    with started(rabbit_node, redis) as (worker, client, queue):
        worker.see(r"concurrency: 3 \(prefork\): fixed by app\.conf\.worker_concurrency")
        assert len({call(client, "pid") for _ in range(12)}) >= 4
        assert call(client, "kind", {1, 2}, serializer="pickle") == "set"
        with pytest.raises(SoftTimeLimitExceeded):
            call(client, "slow")
        # Rejected, because it failed and was not acknowledged: the queue's own dead-letter queue gets it.
        with BrokerConsole(rabbit_node.url) as console:
            console.declare(f"{queue}.failed")
            with pytest.raises(ValueError, match="no"):
                call(client, "fail")
            assert wait_for(lambda: console.depth(f"{queue}.failed") == 1, PATIENCE)


def test_stronger_sources(rabbit_node: Node, redis: Redis) -> None:
    """The command line is stronger than the app's settings."""
    with started(rabbit_node, redis, "--concurrency", "1", "--max-tasks-per-child", "none") as (worker, client, _):
        worker.see(r"concurrency: 1 \(prefork\)")
        assert len({call(client, "pid") for _ in range(6)}) == 1


def test_exchanges(rabbit_node: Node, redis: Redis) -> None:
    """A queue of the app is declared with its exchange, its binding and its arguments."""
    with started(rabbit_node, redis) as (_, client, queue):
        assert call(client, "echo", 7, exchange=f"{queue}.news", routing_key="news.of.today", priority=5) == 7


def test_soft_shutdown(rabbit_node: Node, redis: Redis) -> None:
    """QUIT lets tasks go on for as long as the app's settings say; then a late one is back in its queue."""
    with started(rabbit_node, redis) as (worker, client, queue):
        # sent by the app when the worker is ready
        worker.see(r"echo\[\S+\] succeeded")
        options = {"exchange": "", "routing_key": queue, "declare": [], "soft_time_limit": 600}
        client.send_task("celery_settings.slow", **options)
        worker.see(r"slow\[\S+\] received")
        worker.send(signal.SIGQUIT)
        worker.see(r"Initiating Soft Shutdown, terminating in 0\.1 seconds")
        assert worker.wait() == 1
        with BrokerConsole(rabbit_node.url) as console:
            console.until_depth(queue, 1)


def test_signals_of_the_worker(rabbit_node: Node, redis: Redis) -> None:
    """An app's listeners hear when the worker is ready, stops and has stopped, and can send tasks."""
    with started(rabbit_node, redis, "-n", "one@test") as (worker, _, _):
        worker.see(r"Finisher-1\] signal worker_ready one@test")
        worker.see(r"Task celery_settings\.echo\[\S+\] succeeded in \S+: 'at the start'")
        assert worker.stop() == 0
        worker.see(r"Finisher-1\] signal worker_shutting_down one@test Warm")
        worker.see(r"Finisher-1\] signal worker_shutdown one@test")


def test_what_is_not_honoured(rabbit_node: Node, redis: Redis) -> None:
    """For each thing that is not honoured there is one line at the start."""
    with started(rabbit_node, redis) as (worker, _, _):
        for line in (
            r"app\.conf\.worker_send_task_events is not honoured: this worker sends no events yet",
            r"bootsteps are not run: Step",
            r"signals of Celery's main process are not sent: heartbeat_sent",
        ):
            assert len(worker.see(f"WARNING/MainProcess\\] {line}")) == 1


def check(*options: str, app: str = "celery_settings", broker: str = "amqp://localhost//") -> tuple[int, str]:
    """Run `check`; return its exit code and output."""
    told = {"GUEST_BROKER": broker, "GUEST_BACKEND": WITHOUT_RESULTS, "GUEST_QUEUE": "q"}
    with Program(command("-A", app, "check", *options), env=told) as program:
        return program.wait(), program.text


def test_check() -> None:
    """`check` says of settings and tasks what becomes of them, without a broker; its exit code says whether it would
    start.
    """
    code, text = check("-X", "q.mine")
    assert code == 0
    assert "celery_settings: Celery 5.7.0, 15 tasks, queues q, q.news" in text
    assert re.search(r"as in Celery: .*\btask_acks_late\b", text)
    assert "  not honoured: worker_eta_task_limit: " in text
    assert "  differs: worker_lost_wait: no effect" in text
    assert "  bootsteps are not run: Step" in text
    assert check("-X", "q.mine", "--strict")[0] == 1
    assert check("--strict", app="celery_project")[0] == 0


def test_check_refuses() -> None:
    """`check` ends with 1 and the line with which a worker would end; with `--json` it is in the object."""
    code, text = check()
    assert (code, text.count("\n")) == (1, 0)
    assert "queue 'q.mine' cannot be consumed: it is declared with exclusive=True" in text
    code, text = check("--json", broker="redis://:geheim@localhost:6379/0")
    assert code == 1
    assert "this worker needs RabbitMQ" in json.loads(text)["refusal"]
    assert "geheim" not in text
    code, text = check("--json", "-X", "q.mine")
    told = json.loads(text)
    assert (code, told["refusal"]) == (0, "")
    assert told["settings"]["worker_eta_task_limit"]["state"] == "not honoured"
    assert told["tasks"]["celery_settings.echo"] == []


def test_no_warnings_without_cause(rabbit_node: Node) -> None:
    """An ordinary app starts without a word about settings."""
    with worker_of(rabbit_node.url, WITHOUT_RESULTS, new_queue(), "-c1", app="celery_project") as worker:
        assert not worker.seen(r"not honoured|not obeyed|not sent|not run|not tested|not used")


def refusal(rabbit_node: Node, *options: str, app: str = "celery_settings", **env: str) -> str:
    """Start a worker that does not come up; return what it says."""
    told = {"GUEST_BROKER": rabbit_node.url, "GUEST_BACKEND": WITHOUT_RESULTS, "GUEST_QUEUE": new_queue(), **env}
    with Program(command("-A", app, "worker", *options), env=told) as program:
        assert program.wait() != 0
        return program.text


def test_refused_queue(rabbit_node: Node) -> None:
    """A queue that cannot be consumed stops the start, with one line that says how to go on."""
    text = refusal(rabbit_node)
    assert re.search(r"queue 'guest-.*\.mine' cannot be consumed: it is declared with exclusive=True; name the", text)
    assert "Traceback" not in text


def test_refused_broker(rabbit_node: Node) -> None:
    """A broker other than RabbitMQ stops the start, with one line that does not show its password."""
    text = refusal(rabbit_node, app="celery_project", GUEST_BROKER="redis://:geheim@localhost:6379/0")
    assert "this worker needs RabbitMQ: an amqp:// URL" in text
    assert "geheim" not in text
    assert "Traceback" not in text


def test_refused_pool(rabbit_node: Node) -> None:
    """Threads stop the start: tasks of Celery run in the process lane only."""
    assert "run in the process lane only" in refusal(rabbit_node, "-P", "threads", app="celery_project")


def test_other_broker(rabbit_node: Node, redis: Redis) -> None:
    """Children publish over the broker that the command line names, although the app has another."""
    queue = new_queue()
    env = {"GUEST_BROKER": "amqp://nobody:none@localhost:1//"}
    with (
        worker_of(rabbit_node.url, redis.url, queue, "-c1", env=env) as worker,
        client_of(rabbit_node.url, redis.url, queue) as client,
    ):
        assert client.send_task("celery_app.retried", (1,)).get(timeout=PATIENCE) == 1
        assert "localhost:1/" not in worker.text


#: notes each process that imports Celery
SPY = """
import os, sys
class Spy:
    def find_spec(self, name, path, target=None):
        if name == "celery":
            with open(os.environ["SPY_FILE"], "a") as file:
                file.write(f"{os.getpid()}\\n")
sys.meta_path.insert(0, Spy())
"""


def test_what_is_loaded_where(rabbit_node: Node, redis: Redis, tmp_path: Path) -> None:
    """Only the zygote imports Celery, and it holds no connection."""
    (tmp_path / "sitecustomize.py").write_text(SPY)
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "SPY_FILE": str(tmp_path / "pids")}
    with worker_of(rabbit_node.url, redis.url, new_queue(), "-c1", env=env) as worker:
        assert {int(pid) for pid in (tmp_path / "pids").read_text().split()} == {worker.zygote.pid}
        assert worker.zygote.net_connections(kind="inet") == []
