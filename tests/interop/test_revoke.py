"""Revoking as Celery's clients do."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from celery.exceptions import TaskRevokedError

from tests.interop.test_celery_client import celery_client
from tests.rabbit import Node, wait_for
from tests.workers import PATIENCE, Worker, gate_in


def test_by_celerys_client(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """`revoke` of a Celery client revokes waiting and running tasks of our worker."""
    with (
        celery_client(rabbit_node.url, queue_name) as client,
        gate_in(tmp_path) as gate,
        Worker(rabbit_node.url, queue_name, "-c1", "--result-backend=rpc://") as worker,
    ):
        first = client.send_task("worker.hold", (gate.path, "first"))
        gate.entered()
        second, third = (client.send_task("worker.hold", (gate.path, tag)) for tag in ("second", "third"))
        second.revoke()
        client.control.revoke([third.id, str(uuid.uuid4())])
        worker.see(f"flagged as revoked: {second.id}")
        worker.see(f"flagged as revoked: {third.id}, ")
        first.revoke(terminate=True)
        for result in (first, second, third):
            with pytest.raises(TaskRevokedError):
                result.get(timeout=PATIENCE)
            assert result.state == "REVOKED"
        assert gate.is_empty()


def test_ping(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """Our worker answers `celery inspect ping`, also while it is busy."""
    with (
        celery_client(rabbit_node.url, queue_name) as client,
        gate_in(tmp_path) as gate,
        Worker(rabbit_node.url, queue_name, "-c1", "-n", "w1@here"),
    ):
        assert client.control.ping(timeout=PATIENCE, limit=1) == [{"w1@here": {"ok": "pong"}}]
        held = client.send_task("worker.hold", (gate.path, "first"))
        gate.entered()
        assert client.control.ping(destination=["w1@here"], timeout=PATIENCE, limit=1) == [{"w1@here": {"ok": "pong"}}]
        gate.release()
        assert held.get(timeout=PATIENCE)


def test_other_orders_do_no_harm(rabbit_node: Node, queue_name: str) -> None:
    """An unknown or wrong remote-control command of Celery is ignored, and the worker goes on."""
    with (
        celery_client(rabbit_node.url, queue_name) as client,
        Worker(rabbit_node.url, queue_name, "-c1", "--result-backend=rpc://") as worker,
    ):
        client.control.broadcast("pool_grow", arguments={"n": 1})
        client.control.revoke("someone", destination=["nobody@nowhere"])
        client.control.broadcast("revoke", arguments={"task_id": 7})
        worker.see("an order is not understood: revoke without the task_id")
        assert client.send_task("worker.add", (2, 3)).get(timeout=PATIENCE) == 5
        assert not worker.seen("someone")


def test_answers_as_celery_gives_them(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """Our worker answers `celery control` as Celery's worker does."""
    with (
        celery_client(rabbit_node.url, queue_name) as client,
        gate_in(tmp_path) as gate,
        Worker(rabbit_node.url, queue_name, "-c1", "-n", "w1@here", "--result-backend=rpc://"),
    ):
        assert client.send_task("worker.add", (2, 3)).get(timeout=PATIENCE) == 5

        def asked(method: str, **arguments: object) -> object:
            return client.control.broadcast(method, arguments, reply=True, timeout=PATIENCE, limit=1)[0]["w1@here"]

        assert asked("revoke", task_id=["a"]) == {"ok": "tasks {'a'} flagged as revoked"}
        assert asked("revoke", task_id=["a"], terminate=True) == {"ok": "terminate: tasks unknown"}
        assert "task_id" in asked("revoke", task_id=7)["error"]  # type: ignore[index]
        held = client.send_task("worker.hold", (gate.path, "first"))
        gate.entered()
        assert asked("terminate", signal="TERM", task_id=held.id) == {"ok": f"terminate: {held.id}"}
        told = asked("hello", from_node="other@here", revoked=["b"])
        assert told["revoked"] == ["a", held.id, "b"]  # type: ignore[index]


def test_a_worker_of_celerys_beside_ours(rabbit_node: Node, queue_name: str, tmp_path: Path) -> None:
    """Workers of both kinds exchange their revoked tasks when they start, and neither logs an error."""
    log = tmp_path / "celery.log"
    code = (
        "from celery import Celery; import sys;"
        "app = Celery('c', broker=sys.argv[1]); app.conf.task_default_queue = sys.argv[2];"
        "app.worker_main(['worker', '--pool=solo', '-l', 'INFO', '-n', 'celery@here', '--without-gossip'])"
    )
    with (
        celery_client(rabbit_node.url, queue_name) as client,
        Worker(rabbit_node.url, queue_name, "-c1", "-n", "ours@here", "--result-backend=rpc://") as ours,
    ):
        assert client.send_task("worker.add", (2, 3)).get(timeout=PATIENCE) == 5
        client.control.revoke("first")
        ours.see("flagged as revoked: first")
        with (
            log.open("wb") as out,
            subprocess.Popen(
                [sys.executable, "-c", code, rabbit_node.url, f"{queue_name}-theirs"], stdout=out, stderr=out
            ) as celery,
        ):
            try:
                assert wait_for(lambda: "celery@here ready" in log.read_text(), 3 * PATIENCE)
                assert "sync with 1 nodes" in log.read_text()
                assert client.control.inspect(["celery@here"], timeout=PATIENCE).revoked() == {"celery@here": ["first"]}
                with Worker(rabbit_node.url, queue_name, "-c1", "-n", "third@here"):
                    assert wait_for(lambda: "sync with third@here" in log.read_text(), PATIENCE)
                assert not [line for line in log.read_text().splitlines() if "ERROR" in line or "Traceback" in line]
            finally:
                celery.terminate()
                celery.wait(PATIENCE)
