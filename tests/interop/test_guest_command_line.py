"""A Celery app in our worker, started with the command lines and the environment of Celery's worker."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.interop.guests import client_of, new_queue, worker_of
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Program, command

WITHOUT_RESULTS = "disabled://"


def environment_of(rabbit_node: Node, queue: str) -> dict[str, str]:
    """Return what the apps of tests/apps read."""
    return {"GUEST_BROKER": rabbit_node.url, "GUEST_BACKEND": WITHOUT_RESULTS, "GUEST_QUEUE": queue}


def test_options(rabbit_node: Node, redis: Redis) -> None:
    """Celery's options are taken in one command line: honoured, or named in one line of the log each."""
    queue = new_queue()
    options = (
        f"-c1 -P prefork -O fair -l info -Q {queue},{queue}.other -X {queue}.other -n w1@%h -E --time-limit 300 "
        "--without-gossip --without-mingle --without-heartbeat --heartbeat-interval 5 --purge --prefetch-multiplier 2 "
        "--max-tasks-per-child=100 --pool-start-method spawn -B -s schedule --scheduler some.Scheduler "
        f"--result-backend {redis.url} -- worker.max_memory_per_child=900000"
    )
    with BrokerConsole(rabbit_node.url) as console:
        console.declare(queue)
        console.put(queue, b"left over", {})
        console.until_depth(queue, 1)
    with (
        worker_of(rabbit_node.url, WITHOUT_RESULTS, queue, *options.split(), app="celery_project") as worker,
        client_of(rabbit_node.url, redis.url, queue) as client,
    ):
        worker.see(rf"purge: 1 messages of queue {queue} are deleted")
        worker.see(r"results: +redis://")
        worker.see(r"w1@\S+ ready")
        assert client.send_task("celery_project.tasks.add", (1, 2)).get(timeout=PATIENCE) == 3
        for noted in (r"-B", r"--schedule", r"--scheduler", r"--pool-start-method"):
            assert len(worker.seen(rf"WARNING/MainProcess\] {noted} is not honoured: ")) == 1
        assert not worker.seen(rf"{queue}\.other")
        worker.see(r"prefetch: +2 per child")


def test_variables(rabbit_node: Node) -> None:
    """The variables of Celery's options are stronger than the app's settings, and weaker than ours."""
    env = {
        "CELERY_APP": "celery_project",
        "CELERY_WORKER_CONCURRENCY": "3",
        "CELERY_WORKER_HOSTNAME": "theirs@%h",
        "HYBRIDPOOL_WORKER_HOSTNAME": "ours@%h",
        **environment_of(rabbit_node, new_queue()),
    }
    with Program(command("worker"), env=env) as worker:
        worker.see(r"concurrency: 3 \(prefork\): fixed by CELERY_WORKER_CONCURRENCY")
        worker.see(r"ours@\S+ ready")
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0


def test_detached(rabbit_node: Node, tmp_path: Path) -> None:
    """`-D` returns when the worker has started, which keeps its pid in a file; no other worker takes that file."""
    files = ["--pidfile", f"{tmp_path}/%n.pid", "--logfile", f"{tmp_path}/%n%I.log"]
    words = command("-A", "celery_project", "worker", "-c1", "-n", "w1@%h", "-D", "--umask", "077", *files)
    env = environment_of(rabbit_node, new_queue())
    log, pid_file = tmp_path / "w1.log", tmp_path / "w1.pid"
    # Not `wait`: it waits for all that it started.
    with Program(words, env=env) as starter:
        assert wait_for(lambda: log.exists() and "w1@" in log.read_text() and "ready." in log.read_text(), PATIENCE)
        worker = psutil.Process(int(pid_file.read_text()))
        assert wait_for(lambda: starter.returncode == 0, PATIENCE)
        assert os.getsid(worker.pid) != os.getsid(0)
        assert log.stat().st_mode & 0o777 == 0o600
        with Program(words, env=env) as second:
            assert second.wait() == 1
            assert f"a process with its pid {worker.pid} runs" in second.text
        worker.terminate()
        assert starter.wait() == 0
        assert not pid_file.exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--uid no-such-user", "--uid: there is no user no-such-user"),
        ("--umask 9", "--umask must be an octal number such as 022, not 9"),
        ("--pidfile /no/such/folder/pid", "--pidfile /no/such/folder/pid cannot be written: No such file or directory"),
        ("-P gevent", "gevent patches the whole interpreter"),
    ],
)
def test_refused(rabbit_node: Node, options: str, line: str) -> None:
    """What cannot be done stops the start, with one line."""
    env = environment_of(rabbit_node, new_queue())
    with Program(command("-A", "celery_project", "worker", "-c1", *options.split()), env=env) as program:
        assert program.wait() == 1
        assert line in program.lines[-1]
