"""A worker whose results go to Redis, while that is killed, away at the start, or refuses."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis as redis_client

from hybridpool import App
from hybridpool._policy.backlog import MAX_WAITING
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Program, Worker, command, gate_in


@pytest.fixture
def own() -> Iterator[Redis]:
    """Start a server that this test may harm."""
    with Redis() as server:
        yield server


def keys(server: Redis) -> int:
    """Count the results that are stored."""
    with redis_client.Redis(port=server.port) as look:
        return len(list(look.scan_iter("celery-task-meta-*", count=1000)))


def test_killed_and_back(rabbit_node: Node, queue_name: str, own: Redis, tmp_path: Path) -> None:
    """A server that is killed while tasks run: every result is stored when it is back, no task runs twice, and what
    the worker holds meanwhile is bounded by its prefetch.
    """
    journal = tmp_path / "ran"
    options = ("-c2", "--result-backend", own.url, "-l", "INFO", "--prefetch-multiplier", "5")
    with Worker(rabbit_node.url, queue_name, *options, ready=0) as worker, BrokerConsole(rabbit_node.url) as console:
        worker.see(r"ready\.$")
        own.stop()
        for number in range(60):
            console.call(queue_name, "worker.note", str(journal), str(number))
        worker.see(rf"Results cannot be stored: {re.escape(own.url)}: .*refused.*\. They wait")
        assert wait_for(lambda: journal.exists() and len(journal.read_text().split()) == 10, PATIENCE)
        # ten are held, and the others stay in their queue
        console.until_depth(queue_name, 50)
        own.start()
        assert wait_for(lambda: keys(own) == 60, PATIENCE)
        assert len(worker.see(r"Results are stored again")) == 1
        assert sorted(map(int, journal.read_text().split())) == list(range(60))
        console.until_depth(queue_name, 0)
        assert len(worker.seen(r"Results cannot be stored")) == 1
        assert not worker.seen("Traceback")


def test_stopped_while_it_is_away(rabbit_node: Node, queue_name: str, own: Redis, tmp_path: Path) -> None:
    """A worker that is stopped while its results wait ends, and their messages go back and are run by the next one."""
    journal = tmp_path / "ran"
    own.stop()
    options = ("-c1", "--result-backend", own.url, "-l", "INFO")
    with BrokerConsole(rabbit_node.url) as console:
        with Worker(rabbit_node.url, queue_name, *options, ready=0) as worker:
            # away at the start: one line, and it goes on
            worker.see(r"Results cannot be stored: .*refused")
            worker.see(r"ready\.$")
            console.call(queue_name, "worker.note", str(journal), "a")
            assert wait_for(lambda: journal.exists() and journal.read_text().split() == ["a"], PATIENCE)
            worker.stop(signal.SIGTERM)
        console.until_depth(queue_name, 1)
        own.start()
        with Worker(rabbit_node.url, queue_name, *options, ready=0):
            assert wait_for(lambda: keys(own) == 1, PATIENCE)
        assert journal.read_text().split() == ["a", "a"]
        assert console.depth(queue_name) == 0


def test_acknowledged_early(rabbit_node: Node, queue_name: str, own: Redis) -> None:
    """While the server is away a worker takes messages whose tasks are acknowledged early only until a thousand results
    wait, and goes on when it is back: every result is stored.
    """
    options = ("-c2", "--result-backend", own.url, "-l", "INFO", "--prefetch-multiplier", "5")
    env = {"HYBRIDPOOL_TASK_ACKS_LATE": "false"}
    count, surplus = 2500, 500
    with (
        Worker(rabbit_node.url, queue_name, *options, ready=0, env=env) as worker,
        BrokerConsole(rabbit_node.url) as console,
    ):
        worker.see(r"ready\.$")
        own.stop()
        for number in range(count):
            console.call(queue_name, "worker.add", number, 1)
        worker.see(r"\d+ outcomes of tasks .* wait to be stored or sent: no more messages are taken")

        def at_rest() -> bool:
            return console.depth(queue_name) + len(worker.seen(r"worker\.add\[.*\] succeeded")) == count

        assert wait_for(at_rest, PATIENCE)
        ran = count - console.depth(queue_name)
        assert MAX_WAITING < ran < MAX_WAITING + surplus
        own.start()
        assert wait_for(lambda: keys(own) == count, PATIENCE)
        assert len(worker.see(r"Messages are taken again")) == 1
        assert len(worker.seen(r"no more messages are taken")) == 1
        console.until_depth(queue_name, 0)


def test_acknowledged_early_and_stopped(rabbit_node: Node, queue_name: str, own: Redis) -> None:
    """A warm stop waits for results of tasks that were acknowledged early, as long as it waits for tasks; what is not
    stored then is said to be lost.
    """
    options = ("-c1", "--result-backend", own.url, "-l", "INFO")
    env = {"HYBRIDPOOL_TASK_ACKS_LATE": "false"}
    with BrokerConsole(rabbit_node.url) as console:
        for back in (True, False):
            limit = "60s" if back else "2500ms"
            with Worker(rabbit_node.url, queue_name, *options, "--shutdown-timeout", limit, ready=0, env=env) as worker:
                worker.see(r"ready\.$")
                own.stop()
                for number in range(3):
                    console.call(queue_name, "worker.add", number, 1)
                worker.see(r"worker\.add\[.*\] succeeded", 3)
                worker.main.send_signal(signal.SIGTERM)
                worker.see(r"3 outcomes of tasks .* the stop waits for them \(\d+ s at most\)")
                if back:
                    own.start()
                assert worker.wait() == 0
                assert len(worker.seen(r"3 outcomes of tasks .* are lost")) == (not back)
                if back:
                    assert keys(own) == 3
                assert not worker.seen("Traceback")


def test_password(rabbit_node: Node, queue_name: str) -> None:
    """A wrong password ends the worker with one line, and no password is shown, neither there nor in the banner."""
    with Redis("--requirepass", "right") as server:
        url = f"redis://:wr0ng@127.0.0.1:{server.port}/0"
        words = ["--app=worker.app", "worker", "--default-queue", queue_name]
        env = {"HYBRIDPOOL_BROKER_URL": rabbit_node.url, "HYBRIDPOOL_RESULT_BACKEND": url}
        with Program(command(*words), env=env) as program:
            assert program.wait() == 1
            [line] = program.seen("invalid username-password pair")
            assert line.string.startswith(f"hybridpool: redis://:**@127.0.0.1:{server.port}/0: ")
            assert "wr0ng" not in program.text
            assert "Traceback" not in program.text
        app = App("client", broker=rabbit_node.url, result_backend=url, task_default_queue=queue_name)
        try:
            with pytest.raises(Exception, match=r"redis://:\*\*@") as caught:
                app.send_task("worker.add", (1, 2))
            assert "wr0ng" not in f"{caught.value} {app.conf.settings()!r}"
        finally:
            app.close()


def test_chord_whose_worker_is_killed(rabbit_node: Node, queue_name: str, own: Redis, tmp_path: Path) -> None:
    """A chord whose worker is killed in the middle of its parts completes in the next one, and its body runs once."""
    journal = tmp_path / "body"
    body = {"task": "worker.note", "args": [str(journal), "body"], "options": {"task_id": "body"}, "immutable": True}
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": body}
    options = ("-c2", "--result-backend", own.url, "-l", "INFO")
    with BrokerConsole(rabbit_node.url) as console, gate_in(tmp_path) as gate:
        with redis_client.Redis(port=own.port) as look:
            look.set("celery-taskset-meta-group.s", 3)
        with Worker(rabbit_node.url, queue_name, *options, ready=0) as worker:
            worker.see(r"ready\.$")
            for number in range(3):
                raw = msgspec.json.encode([[gate.path, str(number)], {}, embed])
                console.call(
                    queue_name, "worker.hold", body=raw, group="group", group_index=number, id=f"part-{number}"
                )
            gate.entered(2)
            gate.release(1)
            assert wait_for(lambda: keys(own) == 1, PATIENCE)
            worker.main.kill()
            worker.wait()
        with Worker(rabbit_node.url, queue_name, *options, ready=0):
            gate.release(10)
            assert wait_for(journal.exists, PATIENCE)
            assert wait_for(lambda: keys(own) == 4, PATIENCE)
        assert journal.read_text().split() == ["body"]
        with redis_client.Redis(port=own.port) as look:
            assert look.get("celery-taskset-meta-group.c") == b"done"
